"""Operations of a journal: what every operation is, and those that both halves have.

Owns their shape: each is a tagged record, in a journal an array that begins with its name (docs/formats/fs.md). Must
not know the operations of one half.
"""

from typing import Protocol, TypeVar

import msgspec

from dropr_core.model.names import StoreId
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


Common = Ready | Lost | Meta | LogEnd
"""Those that both halves have."""
