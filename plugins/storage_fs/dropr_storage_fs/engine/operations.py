"""Operations of a journal: what every operation is, and those that both halves have.

Owns their shape: each is a tagged record, in a journal an array that begins with its name (docs/formats/fs.md). Must
not know the operations of one half.
"""

from typing import Protocol, TypeVar

import msgspec

from dropr_core.model.message import State
from dropr_core.model.names import StoreId
from dropr_storage_fs.engine.run import Counts, Run
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files.segment import End

S_contra = TypeVar("S_contra", bound=HalfState, contravariant=True)


class Operation(Protocol[S_contra]):
    """One change of a half's state."""

    def apply(self, state: S_contra, /) -> None:
        """Do it."""


class Record(msgspec.Struct, array_like=True, gc=False):
    """The base of all operations: in a journal an array, its name first."""


class Ready(Record, tag="ready"):
    """The snapshot is complete."""

    def apply(self, state: HalfState) -> None:
        """Note it."""
        state.complete = True


class Lost(Record, tag="lost"):
    """A generation was given up after a disk error."""

    generation: int

    def apply(self, state: HalfState) -> None:
        """Note it."""
        state.lost.append(self.generation)


class Meta(Record, tag="meta"):
    """The identity of a half, and the last number that was given."""

    store: bytes
    number: int

    def apply(self, state: HalfState) -> None:
        """Take it over."""
        state.store, state.number = StoreId(self.store), max(state.number, self.number)


class LogEnd(Record, tag="end"):
    """Up to there a log was flushed when this was written, and all that it says stands above."""

    log: int
    segment: int
    written: int
    last: int
    count: int
    size: int

    @classmethod
    def of(cls, log: int, end: End) -> "LogEnd":
        """For an end."""
        return cls(log, *end)

    def apply(self, state: HalfState) -> None:
        """Note it."""
        state.note_end(self.log, End(self.segment, self.written, self.last, self.count, self.size))


class UseRun(Record, tag="run"):
    """A file of what is remembered; only in a snapshot. ``newest`` and ``processed``: as version 2 of a journal has
    them, of files of version 1.
    """

    number: int
    count: int
    newest: float
    processed: list[tuple[int, int]]
    """(lane, how many of its deliveries, all processed)."""
    gone: list[int]
    until: float = 0.0
    past: float = 0.0
    counts: Counts | None = None

    def apply(self, state: HalfState) -> None:
        """Take it over."""
        counts, until = self.counts, self.until
        if counts is None:
            counts = Counts([(lane, State.PROCESSED, count, 0) for lane, count in self.processed])
            until = state.remembered_until(self.newest)
        run = Run(self.number, self.count, until, self.past, gone=set(self.gone))
        run.tally.change(counts, 1)
        state.use_run(run)

    @classmethod
    def of(cls, run: Run) -> "UseRun":
        """For a run."""
        return cls(run.number, run.count, 0.0, [], sorted(run.gone), run.until, run.past, run.tally.counts())


class DropRun(Record, tag="unrun"):
    """All of a run is forgotten."""

    number: int

    def apply(self, state: HalfState) -> None:
        """Forget it."""
        state.drop_run(self.number)


class PassRun(Record, tag="past"):
    """What of a run was remembered until a moment is forgotten."""

    number: int
    moment: float
    counts: Counts

    def apply(self, state: HalfState) -> None:
        """Forget it."""
        state.pass_run(self.number, self.moment, self.counts)


class Erase(Record, tag="erased"):
    """Some records of a run are forgotten, or (``forgotten`` is false) are in memory again."""

    number: int
    keys: list[int]
    counts: Counts
    forgotten: bool

    def apply(self, state: HalfState) -> None:
        """Note it."""
        state.erase(self.number, self.keys, self.counts, forgotten=self.forgotten)


Common = Ready | Lost | Meta | LogEnd | UseRun | DropRun | PassRun | Erase
"""Those that both halves have."""
