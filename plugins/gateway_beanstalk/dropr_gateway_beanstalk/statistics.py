"""What the stats commands tell, as far as the node does not know it.

Owns the counters of one gateway process: commands, connections, who uses and watches which tube, and what happened to
single jobs. All of it begins at zero when the process starts, as in beanstalkd, and is bounded. Must not know
connections.
"""

import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator

import attrs

from dropr_core.contracts.gateway import Counts, Seen
from dropr_core.model.message import State
from dropr_gateway_beanstalk.replies import quoted

TUBES_KEPT = 1000
"""Tubes whose counters are kept though nobody uses or watches them."""
JOBS_KEPT = 10_000
"""Jobs of which it is known how often they were released, kicked and so on."""

STATES = {
    State.READY: "ready", State.BLOCKED: "ready", State.DELAYED: "delayed", State.LEASED: "reserved",
    State.BURIED: "buried",
}  # fmt: skip
"""What beanstalkd calls the states of messages that are still there."""

COMMANDS = (
    "put", "peek", "peek-ready", "peek-delayed", "peek-buried", "reserve", "reserve-with-timeout", "delete", "release",
    "use", "watch", "ignore", "bury", "kick", "touch", "stats", "stats-job", "stats-tube", "list-tubes",
    "list-tube-used", "list-tubes-watched", "pause-tube",
)  # fmt: skip
"""Those that are counted, in the order in which they are told."""


@attrs.define
class Tube:
    """Counters of one tube."""

    using: int = 0
    watching: int = 0
    waiting: int = 0
    jobs: int = 0
    deletes: int = 0
    pauses: int = 0
    paused_for: int = 0

    @property
    def wanted(self) -> bool:
        """Whether a connection refers to it."""
        return bool(self.using or self.watching)


@attrs.define
class Job:
    """What happened to one job since the gateway began."""

    reserves: int = 0
    timeouts: int = 0
    releases: int = 0
    buries: int = 0
    kicks: int = 0
    delay: int = 0


class Statistics:
    """The counters of one gateway."""

    def __init__(self, version: str, max_job: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._version, self._max_job, self._clock, self._began = version, max_job, clock, clock()
        self._id = os.urandom(8).hex()
        self.commands: Counter[str] = Counter()
        self.tubes: dict[str, Tube] = {}
        self._jobs: dict[int, Job] = {}
        self.timeouts = self.jobs = 0
        self.connections = self.total_connections = self.producers = self.workers = self.waiting = 0

    def tube(self, name: str) -> Tube:
        """The counters of a tube; those of the longest unknown one are forgotten when there are too many."""
        tube = self.tubes.get(name)
        if tube is None:
            if len(self.tubes) >= TUBES_KEPT:
                self._forget_one()
            tube = self.tubes[name] = Tube()
        return tube

    def _forget_one(self) -> None:
        oldest = next((name for name, tube in self.tubes.items() if not tube.wanted), None)
        if oldest is not None:
            del self.tubes[oldest]

    def job(self, number: int) -> Job:
        """The counters of a job."""
        job = self._jobs.get(number)
        if job is None:
            if len(self._jobs) >= JOBS_KEPT:
                del self._jobs[next(iter(self._jobs))]
            job = self._jobs[number] = Job()
        return job

    def known_job(self, number: int) -> Job | None:
        """The same, if it has any."""
        return self._jobs.get(number)

    def gone(self, number: int) -> None:
        """The job is no more."""
        self._jobs.pop(number, None)

    def of_job(self, seen: Seen, tube: str, ttr: int) -> Iterator[tuple[str, object]]:
        """What stats-job tells."""
        job = self._jobs.get(seen.number) or Job(reserves=seen.attempts)
        left = seen.due_in if seen.state is State.DELAYED else seen.ends_in if seen.state is State.LEASED else 0
        yield from (
            ("id", seen.number), ("tube", quoted(tube)), ("state", STATES[seen.state]), ("pri", seen.rank),
            ("age", int(seen.age)), ("delay", job.delay), ("ttr", ttr), ("time-left", max(0, int(left or 0))),
            ("file", 0), ("reserves", max(job.reserves, seen.attempts)), ("timeouts", job.timeouts),
            ("releases", job.releases), ("buries", job.buries), ("kicks", job.kicks),
        )  # fmt: skip

    def of_tube(self, name: str, counts: Counts) -> Iterator[tuple[str, object]]:
        """What stats-tube tells."""
        tube = self.tubes.get(name) or Tube()
        left = counts.paused
        yield ("name", quoted(name))
        yield from _in_states(counts)
        yield from (
            ("total-jobs", tube.jobs), ("current-using", tube.using), ("current-watching", tube.watching),
            ("current-waiting", tube.waiting), ("cmd-delete", tube.deletes), ("cmd-pause-tube", tube.pauses),
            ("pause", 0 if left is None else tube.paused_for or _seconds(left)),
            ("pause-time-left", 0 if left is None else _seconds(left)),
        )  # fmt: skip
        if counts.outgoing:
            yield ("current-jobs-outgoing", counts.outgoing)

    def of_all(self, counts: Counts, tubes: int, *, draining: bool) -> Iterator[tuple[str, object]]:
        """What stats tells."""
        usage, system = resource.getrusage(resource.RUSAGE_SELF), platform.uname()
        yield from _in_states(counts)
        yield from ((f"cmd-{name}", self.commands[name]) for name in COMMANDS)
        yield from (
            ("job-timeouts", self.timeouts), ("total-jobs", self.jobs), ("max-job-size", self._max_job),
            ("current-tubes", tubes), ("current-connections", self.connections),
            ("current-producers", self.producers), ("current-workers", self.workers),
            ("current-waiting", self.waiting), ("total-connections", self.total_connections), ("pid", os.getpid()),
            ("version", quoted(self._version)), ("rusage-utime", f"{usage.ru_utime:.6f}"),
            ("rusage-stime", f"{usage.ru_stime:.6f}"), ("uptime", int(self._clock() - self._began)),
            ("binlog-oldest-index", 0), ("binlog-current-index", 0), ("binlog-records-migrated", 0),
            ("binlog-records-written", 0), ("binlog-max-size", 0), ("draining", "true" if draining else "false"),
            ("id", self._id), ("hostname", quoted(system.node)), ("os", quoted(system.version)),
            ("platform", quoted(system.machine)),
        )  # fmt: skip
        if counts.outgoing:
            yield ("current-jobs-outgoing", counts.outgoing)


def _in_states(counts: Counts) -> Iterator[tuple[str, object]]:
    yield from (
        ("current-jobs-urgent", counts.urgent), ("current-jobs-ready", counts.ready + counts.blocked),
        ("current-jobs-reserved", counts.leased), ("current-jobs-delayed", counts.delayed),
        ("current-jobs-buried", counts.buried),
    )  # fmt: skip


def _seconds(left: float) -> int:
    """A pause without an end is told as the longest that the protocol knows."""
    return int(min(left, 2**32 - 1))
