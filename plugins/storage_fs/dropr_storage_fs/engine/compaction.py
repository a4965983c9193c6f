"""Segments go when nothing in them is needed, and a few needed messages do not keep a large one.

Owns removing segments, and copying old messages that are still needed to the end of their log. The copies are on
stable storage before anything points at them, and an old file goes only after that is on stable storage, too. Must
not know why a message is needed.
"""

import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.engine.operations import Operation, Record
from dropr_storage_fs.engine.remembered import Remembered
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files import layout
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.segment import Place

S = TypeVar("S", bound=HalfState)
O = TypeVar("O", bound=Record)  # noqa: E741 -- an operation
SHARE = 4
"""A segment is given up when less than one part in so many of it is needed."""
MOST = 8 << 20
"""Bytes that one call copies at most of each log."""


class Needed(NamedTuple):
    """One message that is needed in a log that is behind it."""

    sequence: int
    at: Place
    size: int
    """Of its envelope."""


class Pinned(NamedTuple):
    """One message that keeps a segment."""

    number: int
    sequence: int
    at: Place


class SegmentUse(ABC, Generic[S, O]):
    """What one half needs of its logs: for what is in memory, and for what it remembers in files."""

    def __init__(self, remembered: Remembered[S, O]) -> None:
        self.remembered = remembered

    @abstractmethod
    def lowest(self, state: S, number: int) -> int:
        """The lowest sequence of a log that is still to be read in order."""

    @abstractmethod
    def needed_segments(self, state: S, number: int) -> set[int]:
        """Segments in which something stands that is needed though it lies before that."""

    @staticmethod
    def segments_of_runs(state: S, number: int) -> set[int]:
        """Those in which bodies of what is remembered in files stand."""
        return {segment for run in state.runs.values() for log, segment in run.tally.bodies if log == number}

    @abstractmethod
    def stragglers(self, state: S) -> Iterable[tuple[int, int, Sequence[Needed]]]:
        """(log, passed, messages in memory) for each log of which nothing up to ``passed`` is needed but these
        messages, and those in files, so that they can be moved.
        """

    @abstractmethod
    def moved(self, number: int, sequence: int, to: Place) -> Operation[S]:
        """The operation that says where a message in memory stands now."""

    @abstractmethod
    def needed(self, op: O) -> Needed:
        """Where the message of a record in a file stands."""


class Compaction(Generic[S, O]):
    """Frees the room of what is done with, in one half."""

    def __init__(self, engine: Engine[S], use: SegmentUse[S, O]) -> None:
        self._engine, self._use = engine, use
        self._single: dict[int, int] = {}
        """Log → its only segment: nobody looks into its directory until it has another."""

    def run(self) -> None:
        """Remove segments of which nothing is needed any more, once that stands on stable storage."""
        idle = self._engine.read(self._idle)
        self._move(self._engine.read(self._pinned))
        if not idle:
            return
        self._engine.check_off({number for number, _ in idle})

        def job(commit: Commit[S]) -> None:
            for number, segment in self._idle(commit.state):
                if (number, segment) in idle:
                    commit.log(number).segments.remove(segment)

        self._engine.write(job)

    def _idle(self, state: S) -> set[tuple[int, int]]:
        """(log, segment) of which nothing is needed."""
        out: set[tuple[int, int]] = set()
        for number in state.logs():
            last = self._engine.end(number).segment
            if self._single.get(number) == last:
                continue
            names = self._engine.log(number).segments.names()
            if len(names) < 2:
                self._single[number] = last
                continue
            lowest = self._use.lowest(state, number)
            if names[1] > lowest:
                continue
            needed = self._use.needed_segments(state, number)
            for segment, following in itertools.pairwise(names):
                if following <= lowest and segment not in needed:
                    out.add((number, segment))
        return out

    def _pinned(self, state: S) -> list[Pinned]:
        out: list[Pinned] = []
        in_files = self._in_files(state)
        for number, passed, kept in self._use.stragglers(state):
            if not kept and number not in in_files:
                continue
            needed = in_files.get(number, Counter())
            for one in kept:
                needed[one.at.segment] += one.size + layout.RECORD_SIZE
            found = pinned(self._engine.log(number), passed, needed)
            if found is not None:
                mine = [one for one in kept if one.at.segment == found]
                mine += [self._use.needed(one.op) for one in self._use.remembered.in_segment(state, number, found)]
                out += [Pinned(number, one.sequence, one.at) for one in sorted(mine)]
        return out

    @staticmethod
    def _in_files(state: S) -> dict[int, Counter[int]]:
        """Log → segment → bytes of what is needed there for records in files."""
        out: dict[int, Counter[int]] = {}
        for run in state.runs.values():
            for (log, segment), amount in run.tally.bodies.items():
                out.setdefault(log, Counter())[segment] += amount.size + amount.count * layout.RECORD_SIZE
        return out

    def _move(self, rows: list[Pinned]) -> None:
        """Copy these messages to the end of their logs, and note where they stand now. Durable."""
        if not rows:
            return

        def copy(commit: Commit[S]) -> list[tuple[Pinned, Place]]:
            out: list[tuple[Pinned, Place]] = []
            for number in {row.number for row in rows}:
                reader = commit.log(number).reader
                found = [(row, reader.record_at(row.at)) for row in rows if row.number == number]
                out += commit.copy(number, [(row, record) for row, record in found if record is not None])
            return out

        copies = self._engine.write_durable(copy, reserve=True)

        def note(commit: Commit[S]) -> None:
            for row, place in copies:
                past = self._use.remembered
                found = past.at(commit.state, past.key(row.number, row.sequence))
                if found is not None and self._use.needed(found.op).at == row.at:
                    past.recall(commit, found)
                commit.do(self._use.moved(row.number, row.sequence, place))

        self._engine.write_durable(note, reserve=True)


def pinned(log: Log, passed: int, needed: Mapping[int, int]) -> int | None:
    """The first segment that is behind ``passed`` and mostly unneeded; ``needed``: segment → bytes."""
    names = log.segments.names()
    closed = [name for name, following in itertools.pairwise(names) if following <= passed + 1]
    for segment in closed:
        size = needed.get(segment, 0)
        if 0 < size < min(MOST, log.segments.size(segment) // SHARE):
            return segment
    return None
