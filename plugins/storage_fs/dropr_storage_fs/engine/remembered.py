"""What one half remembers in files, and not in memory: messages to which nothing more happens by itself.

Owns looking them up (by message, by key, in order, by time) and setting them down: when a new generation of the
journal begins, they go into a new run, together with older runs that are not much larger. Used inside a job. Must not
know when a generation begins, nor what a record means.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar, cast

from dropr_core.system.clock import Clock
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.operations import DropRun, Erase, Operation, PassRun, Record
from dropr_storage_fs.engine.run import Row, Run, Tally
from dropr_storage_fs.engine.run_files import RunFiles
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files.layout import encode
from dropr_storage_fs.files.sorted_run import Entry, SortedRun, Stored

S = TypeVar("S", bound=HalfState)
O = TypeVar("O", bound=Record)  # noqa: E741 -- an operation

SET_DOWN_AT, SET_DOWN_BYTES = 4096, 4 << 20
"""So many records in memory that may go, or so many bytes of results, ask for a run."""
RUN_LEAST, RUN_MOST, RUN_BYTES = 1024, 100_000, 64 << 20
"""A run is not made for fewer records, and takes no older ones in beyond so many, or so many bytes."""
LAST = 1 << 64
"""Beyond every key."""


class Found(NamedTuple, Generic[O]):
    """A record, and the run that it stands in."""

    run: int
    key: int
    until: float
    op: O


class Fresh(NamedTuple, Generic[O]):
    """A record that goes out of memory. ``key``: None for one that is found by its id alone."""

    key: int | None
    id: bytes
    until: float
    op: O
    weight: int = 0
    """Bytes of its result, which it takes in memory."""
    payload: bytes | None = None
    """The record as a file has it already."""


class Remembered(ABC, Generic[S, O]):
    """The runs of one half. An operation of the journal is what makes a record again in memory."""

    def __init__(self, files: RunFiles, clock: Clock) -> None:
        self.files, self._clock = files, clock

    # ── what a half says of its records ──────────────────────────────────────────────────────────

    @abstractmethod
    def decode(self, payload: bytes) -> O:
        """A record."""

    @abstractmethod
    def identify(self, op: O) -> tuple[int | None, bytes]:
        """Key and id of a record."""

    @abstractmethod
    def key(self, log: int, sequence: int) -> int:
        """The key of what stands in a log."""

    @abstractmethod
    def row(self, op: O) -> Row:
        """What is counted of a record with a key."""

    @abstractmethod
    def until(self, op: O) -> float:
        """Node time until which a record is remembered of which its file does not say it."""

    @abstractmethod
    def fresh(self, state: S) -> list[Fresh[O]]:
        """What may go out of memory, with a key first."""

    @abstractmethod
    def release(self, state: S, fresh: Iterable[Fresh[O]]) -> None:
        """It stands in a run from now on."""

    # ── looking up ───────────────────────────────────────────────────────────────────────────────

    def _found(self, run: Run, stored: Stored) -> Found[O] | None:
        """A record with a key that is still remembered."""
        op = self.decode(stored.payload)
        key, _ = self.identify(op)
        until = self.until(op) if stored.until is None else stored.until
        if key is None or key in run.gone or until <= max(run.past, self._clock.now()):
            return None
        return Found(run.number, key, until, op)

    def of_message(self, state: S, identity: bytes) -> list[Found[O]]:
        """All records of a message that have a key."""
        out: list[Found[O]] = []
        for run, file in self.files.all(state.runs):
            out += [one for stored in file.find(identity) if (one := self._found(run, stored)) is not None]
        return sorted(out, key=lambda one: one.key)

    def keyless(self, state: S, identity: bytes) -> Iterator[tuple[float, O]]:
        """(until when it is remembered, record) of those of a message that have none."""
        now = self._clock.now()
        for _, file in self.files.all(state.runs):
            for stored in file.find(identity):
                op = self.decode(stored.payload)
                until = self.until(op) if stored.until is None else stored.until
                if self.identify(op)[0] is None and until > now:
                    yield until, op

    def at(self, state: S, key: int) -> Found[O] | None:
        """The record with a key."""
        return next(self.between(state, key, key + 1), None)

    def between(self, state: S, key: int, before: int = LAST) -> Iterator[Found[O]]:
        """All records from a key on, in order."""
        sources = [self._of_run(run, file, key, before) for run, file in self.files.all(state.runs)]
        return sources[0] if len(sources) == 1 else heapq.merge(*sources, key=lambda found: found.key)

    def _of_run(self, run: Run, file: SortedRun, key: int, before: int) -> Iterator[Found[O]]:
        for _, stored in file.after(key - 1, before):
            found = self._found(run, stored)
            if found is not None:
                yield found

    def in_segment(self, state: S, log: int, segment: int) -> Iterator[Found[O]]:
        """Records whose bodies are kept in one segment of a log."""
        for run, file in self.files.all(state.runs):
            if (log, segment) in run.tally.bodies:
                for found in self._of_run(run, file, 0, LAST):
                    row = self.row(found.op)
                    if (row.log, row.segment) == (log, segment):
                        yield found

    # ── changes ──────────────────────────────────────────────────────────────────────────────────

    def recall(self, commit: Commit[S], found: Found[O]) -> None:
        """A record is in memory again: something happens to it."""
        commit.do(Erase(found.run, [found.key], Tally([self.row(found.op)]).counts(), False))
        commit.do(cast("Operation[S]", found.op))

    def forget(self, commit: Commit[S], found: Iterable[Found[O]]) -> int:
        """Nothing is known of these any more. Returns how many."""
        rows: dict[int, dict[int, Row]] = {}
        for one in found:
            rows.setdefault(one.run, {})[one.key] = self.row(one.op)
        for run, mine in rows.items():
            commit.do(Erase(run, list(mine), Tally(mine.values()).counts(), True))
        return sum(map(len, rows.values()))

    def sweep(self, commit: Commit[S], limit: int) -> float | None:
        """Forget what is past its time. Returns when there is something to forget next."""
        dues: list[float] = []
        now = self._clock.now()
        for run in list(commit.state.runs.values()):
            if run.until <= now:
                commit.do(DropRun(run.number))
                continue
            file = self.files.run(run.number)
            due, limit = self._pass(commit, run, file, now, limit) if file is not None else (run.until, limit)
            dues.append(due)
        return min(dues, default=None)

    def _pass(self, commit: Commit[S], run: Run, file: SortedRun, now: float, limit: int) -> tuple[float, int]:
        tally, moment, due = Tally(), run.past, run.until
        for until, at in file.times(run.past):
            if until > now or (limit <= 0 and until > moment):  # what ends together is forgotten together
                due = until
                break
            moment, limit = until, limit - 1
            stored = file.at(at)
            op = None if stored is None else self.decode(stored.payload)
            if op is not None and self.identify(op)[0] not in run.gone:
                tally.add(self.row(op))
        if moment > run.past:
            commit.do(PassRun(run.number, moment, tally.counts()))
        return due, limit

    # ── setting down ─────────────────────────────────────────────────────────────────────────────

    def set_down(self, state: S, number: int) -> None:
        """Make a run of what may go out of memory, if that is much. Raises OSError; then nothing has changed."""
        now = self._clock.now()
        for past in [run.number for run in state.runs.values() if run.until <= now]:
            state.drop_run(past)
        fresh = self.fresh(state)
        again = [one for one in state.runs if state.runs[one].full_of_holes() or not self.files.sound(one)]
        if not again and not is_enough(len(fresh), sum(one.weight for one in fresh)):
            return
        absorbed = choose(self.files, {one: run.count for one, run in state.runs.items()}, again, len(fresh))
        run = Run(number, 0, 0.0)
        before = Tally(self.row(one.op) for one in fresh if one.key is not None)
        run.tally.change(before.counts(), 1)
        self.files.write(number, self._entries(run, fresh, [state.runs[one] for one in absorbed]))
        for one in absorbed:
            if not self.files.sound(one):
                self.files.set_aside(one)
            before.change(state.runs[one].tally.counts(), 1)
            state.drop_run(one, forgotten=False)
        self.release(state, fresh)
        state.use_run(run)
        before.change(run.tally.counts(), -1)
        state.count_lost(before.counts())
        state.holes = False

    def _entries(self, run: Run, fresh: list[Fresh[O]], absorbed: list[Run]) -> Iterator[Entry]:
        """The records of a new run, which are counted in it on the way; those of older runs in its tally, too."""
        sources: list[Iterable[Fresh[O]]] = [fresh, *(self._rest_of(one, run.tally) for one in absorbed)]
        merged = heapq.merge(*sources, key=_order) if absorbed else fresh
        count, last = 0, run.until
        for key, identity, until, op, _, payload in merged:
            count += 1
            last = max(last, until)
            yield Entry(key, identity, until, encode(op) if payload is None else payload)
        run.count, run.until = count, last

    def _rest_of(self, run: Run, tally: Tally) -> Iterator[Fresh[O]]:
        """What of a run is still remembered."""
        file, now = self.files.run(run.number), self._clock.now()
        for stored in [] if file is None else file.everything():
            op = self.decode(stored.payload)
            key, identity = self.identify(op)
            until = self.until(op) if stored.until is None else stored.until
            if until > (now if key is None else run.past) and key not in run.gone:
                if key is not None:
                    tally.add(self.row(op))
                yield Fresh(key, identity, until, op, payload=None if stored.until is None else stored.payload)

    def tidy(self, runs: Container[int]) -> None:
        """Remove the files of runs that nobody knows any more."""
        self.files.tidy(runs)

    def close(self) -> None:
        """Close all files; safe twice."""
        self.files.close()


def _order(one: Fresh[O]) -> int:
    return LAST if one.key is None else one.key


def is_enough(count: int, size: int) -> bool:
    """Whether a run is made for so many records with so many bytes of results."""
    return count >= RUN_LEAST or size >= SET_DOWN_BYTES


def asks(count: int, size: int, live: int) -> bool:
    """Whether so much that may go out of memory asks for a run: a part of what stays there, which is written down again
    with it.
    """
    return size >= SET_DOWN_BYTES or (count >= SET_DOWN_AT and 4 * count >= live)


def choose(files: RunFiles, sizes: dict[int, int], again: Collection[int], count: int) -> list[int]:
    """Runs that go into a new one of ``count`` records: those that are written ``again``, and the newest ones up to
    the last that is no larger than all that is newer. So a record is written about as often as runs double.
    """
    out = list(again)
    count += sum(sizes[one] for one in again)
    room = RUN_BYTES - sum(files.path(one).stat().st_size for one in again if files.path(one).exists())
    passed: list[int] = []
    for number in sorted(set(sizes) - set(again), reverse=True):
        room -= files.path(number).stat().st_size
        if sizes[number] + count > RUN_MOST or room < 0:
            break
        passed.append(number)
        if sizes[number] <= count:
            out += passed
            passed = []
        count += sizes[number]
    return out
