"""What the engine asks of a half: its state, its operations, and what its logs can tell.

Owns the contract between the engine and each half; `outbox.recovery` and `inbox.recovery` fulfil it. Must not know
either.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from dropr_core.model.names import make_store_id
from dropr_storage_fs.engine.operations import Operation
from dropr_storage_fs.engine.state import NO_STORE, HalfState
from dropr_storage_fs.files.layout import Frame
from dropr_storage_fs.files.layout import Record as LogRecord

S = TypeVar("S", bound=HalfState)


class HalfModel(ABC, Generic[S]):
    """The meaning of one half."""

    operations: Sequence[type]
    """The kinds of operations that its journal may hold."""

    @abstractmethod
    def make_state(self) -> S:
        """An empty state."""

    @abstractmethod
    def decode(self, payload: bytes) -> Sequence[Operation[S]]:
        """The operations of a commit. Raises msgspec.ValidationError."""

    @abstractmethod
    def decode_label(self, data: bytes) -> tuple[int, Operation[S]]:
        """The number and the operation that `label` wrote down beside a log. Raises msgspec.DecodeError."""

    @abstractmethod
    def label(self, state: S, number: int) -> Sequence[object]:
        """The operation that makes a log, as values."""

    @abstractmethod
    def snapshot(self, state: S) -> list[Operation[S]]:
        """Operations that make this state from nothing."""

    @abstractmethod
    def recovered(
        self, state: S, number: int, frame: Frame, records: Sequence[LogRecord], segment: int
    ) -> list[Operation[S]]:
        """What a frame of a log tells that its journal may have lost."""

    @abstractmethod
    def forget_beyond(self, state: S, last: Mapping[int, int]) -> None:
        """Forget what the journal says of records that a log never got: those beyond its ``last`` sequence."""

    # ── what is merely remembered may go out of memory; a half that keeps all of it there leaves these as they are ──

    def wants_generation(self, state: S) -> bool:  # noqa: ARG002
        """Whether a new generation should begin though the journal is not long, so that `set_down` is called."""
        return False

    def set_down(self, state: S, number: int) -> None:
        """Put down what is merely remembered, durably, before a snapshot is made for generation ``number``. Raises
        OSError; then nothing has changed.
        """

    def journal_version(self, state: S) -> int:  # noqa: ARG002
        """The version of a journal that begins with this state."""
        return 1

    def tidy(self, state: S) -> None:
        """Remove what was put down and no state knows any more. Never raises."""

    def settle_identity(self, state: S) -> None:
        """A new store gets its identity."""
        if state.store == NO_STORE:
            state.store = make_store_id()
