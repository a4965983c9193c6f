"""What the inbox knows in memory: queues, heads, leases, and of messages only those that are not simply ready.

Owns these values, their counts and indexes. A message that just waits is nowhere but in its queue's log, behind the
frontier; leases of such messages are kept as sets of numbers. Must not know files, nor how a change is written down.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence

from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Head, SourceLane, priority_of, priority_of_rank
from dropr_storage_fs.engine.run import Counts
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files.segment import End
from dropr_storage_fs.inbox.rows import JobRecord, Lease, OutcomeRun, Queue

HOLDING = frozenset({State.READY, State.DELAYED, State.LEASED})
"""States in which a message keeps others of its ordering key waiting."""


class InboxState(HalfState):
    """See module."""

    def __init__(self) -> None:
        super().__init__()
        self.queues: dict[tuple[str, int], Queue] = {}
        self.numbers: dict[int, Queue] = {}
        self.jobs: dict[int, JobRecord] = {}
        self.by_id: dict[bytes, list[int]] = {}
        self.keys: dict[tuple[str, str], set[int]] = {}
        self.leases: dict[bytes, Lease] = {}
        self.heads: dict[SourceLane, Head] = {}
        self.tentative: dict[SourceLane, Head] = {}
        """Heads in a journal that may run ahead of the logs, after a power cut."""
        self.outcomes: dict[str, list[Outcome]] = {}
        """Rows in memory; older ones may stand in files."""
        self.outcome_runs: dict[int, OutcomeRun] = {}
        self.outcome_numbers: Counter[str] = Counter()
        """Sender → the last row of its log."""
        self.told: Counter[str] = Counter()
        """Sender → up to where it has the rows of its log."""
        self.rows_in_memory = self.row_bytes = 0
        self.settled = 0
        """Messages in memory that are done with."""
        self.processed: Counter[str] = Counter()
        self.timers: list[tuple[float, int]] = []
        self.delayed: dict[str, list[tuple[float, int]]] = {}
        self.ranked: dict[str, list[tuple[int, int]]] = {}
        """Channel → rank and number of what is ready and has a rank of its own."""

    def logs(self) -> Iterable[int]:
        """The numbers of all queues."""
        return list(self.numbers)

    def note_end(self, number: int, end: End) -> None:
        """Up to there a queue's log was flushed when this was written: heads of it that stand before are true."""
        super().note_end(number, end)
        queue = self.numbers[number]
        if not self.cold:
            self.tentative = {}
        for source, head in list(self.tentative.items()):
            if (source.channel, priority_of(source.priority)) == (queue.channel, queue.priority):
                self.heads[source] = head
                del self.tentative[source]

    # ── messages with a state of their own ───────────────────────────────────────────────────────

    def add(self, job: JobRecord) -> None:
        """A message has a state of its own from now on."""
        self.jobs[job.number] = job
        self.numbers[job.queue].voids.discard(job.number)
        self.by_id.setdefault(job.id, []).append(job.number)
        self.number = max(self.number, job.number)
        self.enter(job)

    def enter(self, job: JobRecord) -> None:
        """Count it, and put it where it will be looked for."""
        queue = self.numbers[job.queue]
        queue.tally[job.state] += 1
        if not job.live:
            queue.dead_bytes += job.size
            self.settled += 1
        elif job.key is not None:
            self.keys.setdefault((queue.channel, job.key), set()).add(job.number)
        if job.state is State.READY and job.rank is not None:
            self._enter_by_rank(queue.channel, job.rank, job.number)
        elif job.state is State.READY:
            heapq.heappush(queue.ready, job.number)
        elif job.state is State.DELAYED:
            heapq.heappush(self.delayed.setdefault(queue.channel, []), (job.due, job.number))
        timer = job.timer
        if timer is not None:
            heapq.heappush(self.timers, (timer, job.number))
            if len(self.timers) > 3 * len(self.jobs) + 1000:
                self._renew_timers()

    def _enter_by_rank(self, channel: str, rank: int, number: int) -> None:
        mine = self.ranked.setdefault(channel, [])
        if len(mine) > 3 * len(self.jobs) + 1000:  # most of it is over: others take what stands in this process's list
            mine[:] = {one for one in mine if self._stands_at(*one)}
            heapq.heapify(mine)
        heapq.heappush(mine, (rank, number))

    def _stands_at(self, rank: int, number: int) -> bool:
        job = self.jobs.get(number)
        return job is not None and job.state is State.READY and job.rank == rank

    def first_by_rank(self, channel: str) -> tuple[int, int] | None:
        """Rank and number of the first ready message of a channel that has a rank of its own."""
        mine = self.ranked.get(channel)
        while mine:
            if self._stands_at(*mine[0]):
                return mine[0]
            heapq.heappop(mine)
        return None

    def take_by_rank(self, channel: str) -> None:
        """`first_by_rank` is about to be leased."""
        heapq.heappop(self.ranked[channel])

    def give_back_by_rank(self, channel: str, rank: int, number: int) -> None:
        """It was not leased after all."""
        heapq.heappush(self.ranked[channel], (rank, number))

    def first_ready(self, queue: Queue) -> JobRecord | None:
        """The first message of a queue that is ready again and has no rank of its own."""
        while queue.ready:
            job = self.jobs.get(queue.ready[0])
            if job is not None and job.state is State.READY and job.rank is None:
                return job
            heapq.heappop(queue.ready)
        return None

    def first_delayed(self, channel: str) -> JobRecord | None:
        """The delayed message of a channel that is due first."""
        late = self.delayed.get(channel)
        while late:
            job = self.jobs.get(late[0][1])
            if job is not None and job.state is State.DELAYED and job.due == late[0][0]:
                return job
            heapq.heappop(late)
        return None

    def priority(self, job: JobRecord) -> int:
        """That of a message with a state of its own."""
        return self.numbers[job.queue].priority if job.rank is None else priority_of_rank(job.rank)

    def rank(self, job: JobRecord) -> int:
        """Its order within its priority."""
        return self.numbers[job.queue].first_rank if job.rank is None else job.rank

    def _renew_timers(self) -> None:
        self.timers = [(one.timer, one.number) for one in self.jobs.values() if one.timer is not None]
        heapq.heapify(self.timers)

    def next_timer(self) -> None:
        """The first timer was looked at."""
        heapq.heappop(self.timers)

    def leave(self, job: JobRecord) -> None:
        """Count it out of the state that it had."""
        queue = self.numbers[job.queue]
        queue.tally[job.state] -= 1
        if not job.live:
            queue.dead_bytes -= job.size
            self.settled -= 1
        elif job.key is not None:
            same = self.keys[queue.channel, job.key]
            same.discard(job.number)
            if not same:
                del self.keys[queue.channel, job.key]

    def remove(self, number: int) -> JobRecord | None:
        """It has none any more."""
        job = self.jobs.pop(number, None)
        if job is not None:
            self.leave(job)
            same = self.by_id[job.id]
            same.remove(number)
            if not same:
                del self.by_id[job.id]
        return job

    def drop(self, number: int) -> JobRecord | None:
        """Nothing is known of it any more."""
        job = self.remove(number)
        if job is not None:
            queue = self.numbers[job.queue]
            queue.gone_bytes += job.size
            if number > queue.frontier:
                queue.voids.add(number)
        return job

    # ── what is remembered in files ──────────────────────────────────────────────────────────────

    def set_down(self, numbers: Sequence[int]) -> None:
        """Messages stand in a run from now on."""
        for number in numbers:
            job = self.remove(number)
            if job is not None and number > self.numbers[job.queue].frontier:
                self.numbers[job.queue].voids.add(number)
        if numbers:
            self._renew_timers()

    def count_run(self, counts: Counts, by: int, *, forgotten: bool) -> None:
        """They are counted with those in memory."""
        for number, state, count, size in counts.states:
            queue = self.numbers[number]
            queue.tally[state] += by * count
            queue.dead_bytes += by * size
            if forgotten:
                queue.gone_bytes += size

    def count_lost(self, counts: Counts) -> None:
        """They are gone."""
        for number, _, _, size in counts.states:
            self.numbers[number].gone_bytes += size

    # ── outcomes ─────────────────────────────────────────────────────────────────────────────────

    def add_outcome(self, sender: str, row: Outcome) -> None:
        """One more row."""
        self.outcomes.setdefault(sender, []).append(row)
        self.outcome_numbers[sender] = max(self.outcome_numbers[sender], row.number)
        self.rows_in_memory += 1
        self.row_bytes += row.size

    def forget_outcomes(self, sender: str, upto: int) -> None:
        """The sender has all rows up to a number."""
        self._keep_outcomes(sender, upto)
        self.outcome_numbers[sender] = max(self.outcome_numbers[sender], upto)
        self.told[sender] = max(self.told[sender], upto)
        for number, run in list(self.outcome_runs.items()):
            if run.last.get(sender, upto + 1) <= upto:
                del run.last[sender]
                if not run.last:
                    del self.outcome_runs[number]

    def _keep_outcomes(self, sender: str, after: int) -> None:
        rows = self.outcomes.get(sender, [])
        kept = [row for row in rows if row.number > after]
        self.rows_in_memory -= len(rows) - len(kept)
        self.row_bytes -= sum(row.size for row in rows if row.number <= after)
        if kept:
            self.outcomes[sender] = kept
        else:
            self.outcomes.pop(sender, None)

    def use_outcomes(self, run: OutcomeRun) -> None:
        """A file of rows belongs to what is known."""
        self.outcome_runs[run.number] = run
        for sender, last in run.last.items():
            self.outcome_numbers[sender] = max(self.outcome_numbers[sender], last)

    def set_down_outcomes(self, run: OutcomeRun) -> None:
        """All rows stand in files from now on."""
        self.outcomes, self.rows_in_memory, self.row_bytes = {}, 0, 0
        if run.last:
            self.use_outcomes(run)

    # ── how a message begins ─────────────────────────────────────────────────────────────────────

    def entry_state(self, channel: str, key: str | None, due: float, now: float) -> State:
        """The state in which a message begins, or comes back."""
        if key is not None and self.busy(channel, key):
            return State.BLOCKED
        return State.DELAYED if due > now else State.READY

    def busy(self, channel: str, key: str) -> bool:
        """Whether a message of this key is ready, delayed or leased."""
        return any(self.jobs[number].state in HOLDING for number in self.keys.get((channel, key), ()))

    # ── plain messages ───────────────────────────────────────────────────────────────────────────

    def advance(self, queue: Queue, frontier: int) -> None:
        """Up to there nothing is simply ready any more."""
        queue.frontier = max(queue.frontier, frontier)
        if queue.voids:
            queue.voids.keep_above(frontier)

    def unlease(self, token: bytes, numbers: set[int]) -> None:
        """These are not leased with others any more."""
        lease = self.leases.get(token)
        if lease is not None:
            before = len(lease.live)
            lease.live -= numbers
            self.numbers[lease.queue].leased -= before - len(lease.live)
            if not lease.live:
                del self.leases[token]

    def leases_of(self, queue: Queue) -> list[Lease]:
        """Those of one queue."""
        return [lease for lease in self.leases.values() if lease.queue == queue.number]

    def stands(self, queue: Queue, number: int) -> bool:
        """Whether a message is simply ready, or leased with others."""
        if number in self.jobs:
            return False
        if number > queue.frontier and number not in queue.voids:
            return True
        return any(number in lease.live for lease in self.leases_of(queue))
