"""The operations of the inbox's journal that are about outcome logs.

Owns their shape on disk: an array that begins with the name (docs/formats/fs.md). Must not know when they are
written.
"""

from dropr_core.model.message import Outcome, State
from dropr_core.model.names import MessageId
from dropr_storage_fs.engine.operations import Record
from dropr_storage_fs.inbox.rows import OutcomeRun
from dropr_storage_fs.inbox.state import InboxState


class AddOutcome(Record, tag="outcome"):
    """A row in the outcome log of a sender."""

    sender: str
    number: int
    id: bytes
    state: State
    reason: str
    result: bytes | None
    content_type: str

    @classmethod
    def of(cls, sender: str, row: Outcome) -> "AddOutcome":
        """For a row."""
        return cls(sender, row.number, row.id, row.state, row.reason, row.result, row.content_type)

    def row(self) -> Outcome:
        """What it adds."""
        return Outcome(self.number, MessageId(self.id), self.state, self.reason, self.result, self.content_type)

    def apply(self, state: InboxState) -> None:
        """Add it."""
        state.add_outcome(self.sender, self.row())


class Told(Record, tag="told"):
    """A sender has all rows up to a number."""

    sender: str
    upto: int

    def apply(self, state: InboxState) -> None:
        """Forget them."""
        state.forget_outcomes(self.sender, self.upto)


class UseOutcomes(Record, tag="outcomes"):
    """A file of rows of outcome logs; only in a snapshot."""

    number: int
    count: int
    senders: list[str]
    last: dict[str, int]

    def apply(self, state: InboxState) -> None:
        """Take it over."""
        state.use_outcomes(OutcomeRun(self.number, self.count, self.senders, self.last))
