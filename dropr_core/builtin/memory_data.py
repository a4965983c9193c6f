"""What the two halves of the storage ``memory`` keep: plain records in dicts.

Owns the shape of the data, no behaviour. Must not know the contract's methods.
"""

from collections import Counter

import attrs

from dropr_core.contracts.storage import Job, NewMessage
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, Head, Lane, MessageId, SourceLane, StoreId, make_store_id
from dropr_core.model.states import ENDED, SETTLED


@attrs.define(eq=False)
class DeliveryRecord:
    """One delivery."""

    serial: tuple[int, int]
    message: NewMessage
    lane: Lane
    sequence: int
    sent: float
    """Node time of `send`, or of the redrive."""
    rank: int = 0
    """Its place in the lane among all that ever stood there; numbers may begin anew, this does not."""
    state: State = State.QUEUED
    changed: float = 0.0
    """Node time at which it entered its present state."""
    offered: bool = False
    possible_duplicate: bool = False
    reason: str = ""
    result: bytes | None = None
    result_type: str = ""

    @property
    def size(self) -> int:
        """Bytes of the envelope."""
        return len(self.message.envelope)

    @property
    def awaiting(self) -> bool:
        """Whether its receipt has not come home."""
        return self.state is State.ACCEPTED and self.message.receipt

    @property
    def over(self) -> bool:
        """Whether nothing more is done by itself."""
        return self.state in ENDED or (self.state is State.ACCEPTED and not self.message.receipt)

    def expires(self) -> float | None:
        """Node time at which it expires, if it may."""
        return None if self.message.expires_in is None else self.sent + self.message.expires_in


@attrs.define(eq=False)
class LaneLog:
    """One lane. ``items``: what is kept, by sequence."""

    head: Head = START
    last: int = 0
    ever: int = 0
    items: dict[int, DeliveryRecord] = attrs.field(factory=dict)


@attrs.define(eq=False)
class PeerRecord:
    """What is kept about one peer."""

    held: bool = False
    reason: str = ""
    log: StoreId | None = None
    cursor: int = 0


@attrs.define(eq=False)
class OutboxData:
    """All that an outbox keeps."""

    store_id: StoreId = attrs.field(factory=make_store_id)
    serial: int = 0
    logs: dict[Lane, LaneLog] = attrs.field(factory=dict)
    items: dict[tuple[int, int], DeliveryRecord] = attrs.field(factory=dict)
    by_id: dict[MessageId, list[DeliveryRecord]] = attrs.field(factory=dict)
    own: dict[MessageId, tuple[NewMessage, float]] = attrs.field(factory=dict)
    """Ids that callers chose, with the node time of their `send`."""
    peers: dict[str, PeerRecord] = attrs.field(factory=dict)
    sent: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    staged: dict[str, int] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Task:
    """One message."""

    number: int
    job: Job
    channel: str
    priority: int
    sender: str
    arrived: float
    due: float
    """Node time before which it is not leased."""
    expires: float | None
    rank: int
    state: State = State.BLOCKED
    changed: float = 0.0
    keep: float = 0.0
    """Seconds for which it is kept once it has ended."""
    attempts: int = 0
    reasons: list[str] = attrs.field(factory=list)
    token: bytes = b""
    consumer: str = ""

    @property
    def order(self) -> tuple[int, int, int]:
        """By which it is given out."""
        return self.priority, self.rank, self.number

    @property
    def live(self) -> bool:
        """Whether something is still to be done with it."""
        return self.state not in SETTLED


@attrs.define(eq=False)
class InboxData:
    """All that an inbox keeps."""

    store_id: StoreId = attrs.field(factory=make_store_id)
    number: int = 0
    items: dict[int, Task] = attrs.field(factory=dict)
    by_id: dict[MessageId, list[Task]] = attrs.field(factory=dict)
    heads: dict[SourceLane, Head] = attrs.field(factory=dict)
    consumers: set[str] = attrs.field(factory=set)
    """Those that live."""
    outcomes: dict[str, list[Outcome]] = attrs.field(factory=dict)
    outcome_numbers: Counter[str] = attrs.field(factory=Counter)
    processed: Counter[str] = attrs.field(factory=Counter)


__all__ = ["DeliveryRecord", "InboxData", "LaneLog", "OutboxData", "PeerRecord", "Task"]
