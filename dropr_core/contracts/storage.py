"""The contract of a storage: a durable outbox (a log per lane) and a durable inbox (a work queue).

Owns what a storage must do and the values that go in and out. A storage knows lanes, channels and
opaque envelopes; it must not know addresses, keys, transports or what a body means.

Rules for every method:
* What is said to be durable is on stable storage when the method returns; everything else survives
  the death of any process at once and a power cut within the flush interval.
* All or nothing: an exception (always a `StoreError`) means that nothing was changed.
* Many threads and many processes use one store at once. After a fork in the child: `Closed`.
* The cost of a call does not grow with the backlog.
* Times are node time (`Context.clock.now()`), in seconds.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import attrs

from dropr_core.message import Outcome, State
from dropr_core.names import START, Head, Lane, MessageId, SourceLane, StoreId

# ── values of the outbox ─────────────────────────────────────────────────────────────────────────


class Outgoing(NamedTuple):
    """One message on its way into the outbox, with one delivery for each peer."""

    id: MessageId
    channel: str
    priority: int
    peers: tuple[str, ...]
    envelope: bytes
    receipt: bool = False
    expires_in: float | None = None
    delayed: bool = False
    """Whether the message has a delay, so that its age must travel with it."""
    fingerprint: bytes | None = None
    """Set when the caller chose the id: equal fingerprint = the same message, other = Conflict."""


class Placed(NamedTuple):
    """Where a message stands in its lanes."""

    id: MessageId
    sequences: tuple[int, ...]
    """One for each peer of the message, in the order given; 0 where it had ended already."""
    existed: bool
    """True: this id was sent before with the same content; nothing was stored anew."""


class Entry(NamedTuple):
    """One delivery as it stands in a lane."""

    sequence: int
    id: MessageId
    envelope: bytes
    age: float = 0.0
    """Seconds since `send`; filled in only where delay or expiry need it."""
    possible_duplicate: bool = False


class Batch(NamedTuple):
    """What follows ``after`` in a lane. Missing sequence numbers are voids: they ended otherwise."""

    lane: Lane
    after: Head
    entries: list[Entry]

    @property
    def upto(self) -> Head:
        """The position of the last entry."""
        last = self.entries[-1]
        return Head(last.sequence, last.id)


@attrs.frozen
class LaneStats:
    """One lane of the outbox that has something unsent."""

    lane: Lane
    head: Head
    """The last position that the peer is known to have committed."""
    last: int
    """The last sequence number given."""
    depth: int
    bytes: int
    oldest: float
    """Seconds that the first unsent delivery has waited."""


@attrs.frozen
class Rejection:
    """The peer refused one delivery for good."""

    sequence: int
    code: str
    reason: str


@attrs.frozen
class Delivery:
    """One delivery as `status`, `list` and `show` see it."""

    id: MessageId
    peer: str
    channel: str
    priority: int
    state: State
    sequence: int
    age: float
    """Seconds since `send` (or, once ended, since it ended)."""
    size: int
    reason: str = ""
    result: bytes | None = None
    result_type: str = ""
    receipt: bool = False
    possible_duplicate: bool = False


@attrs.frozen
class PeerState:
    """What the outbox keeps about a peer."""

    held: bool = False
    reason: str = ""
    waiting: int = 0
    """Deliveries queued."""
    bytes: int = 0
    awaiting: int = 0
    """Deliveries accepted by the peer whose receipt has not come home."""
    log: StoreId | None = None
    """The outcome log that ``cursor`` counts in."""
    cursor: int = 0


@attrs.frozen
class Selection:
    """Which messages `scan`, `wipe`, `redrive`, `kick` … mean. Empty fields do not restrict."""

    ids: tuple[MessageId, ...] = ()
    states: frozenset[State] = frozenset()
    channel: str | None = None
    peer: str | None = None
    """Outbox: the receiver. Inbox: the sender."""
    older_than: float | None = None
    """Seconds since it entered its present state (outbox: since send, or since it ended)."""


class Outbox(ABC):
    """A log for each lane: appended by `send`, read by the daemon, settled by the peers' answers."""

    @property
    @abstractmethod
    def store_id(self) -> StoreId:
        """The id under which peers know this half now; changes with `renumber`."""

    @abstractmethod
    def append(self, messages: Sequence[Outgoing]) -> list[Placed]:
        """Store all messages or none, durably; give each delivery the next number of its lane.

        Calls of many threads share one flush. Raises Conflict, QueueFull, StoreError.
        """

    @abstractmethod
    def lanes(self, peer: str | None = None) -> list[LaneStats]:
        """Every lane with queued deliveries (of one peer)."""

    @abstractmethod
    def take(self, lane: Lane, max_count: int, max_bytes: int, *, offer: bool = True) -> Batch | None:
        """What follows the lane's head: at least one entry, then up to both limits; None if empty.

        With ``offer``, the entries are marked as under way: until `settle`, `rewind` or `unoffer`
        they cannot be cancelled. The mark is not durable.
        """

    @abstractmethod
    def unoffer(self, lane: Lane) -> None:
        """It is certain that nothing after the head reached the peer."""

    @abstractmethod
    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection] = ()) -> None:
        """The peer has committed up to ``head``: those deliveries are accepted (rejected ones failed).

        May be repeated; a head behind the present one changes nothing. Ends every mark of `take`.
        """

    @abstractmethod
    def locate(self, lane: Lane, sequence: int) -> MessageId | None:
        """The id at a position: the lane's head and everything kept are known; else None."""

    @abstractmethod
    def rewind(self, lane: Lane, head: Head) -> int:
        """The peer lost what followed ``head``: kept and not ended deliveries after it are queued
        again, flagged ``possible_duplicate``, durably. Returns how many. ``head`` becomes the head.
        """

    @abstractmethod
    def renumber(self) -> StoreId:
        """This half was rolled back or cloned: take a new store id and number all queued deliveries
        of every lane anew from 1, flagged ``possible_duplicate``; accepted ones wait for their
        receipt outside of the log. Durable. Returns the new id.
        """

    @abstractmethod
    def set_aside(self, lane: Lane, sequence: int, reason: str) -> None:
        """Give one delivery up as dead; the lane goes on without it."""

    @abstractmethod
    def cancel(self, message_id: MessageId, peers: Sequence[str] | None = None) -> tuple[int, int]:
        """Cancel queued deliveries that are not under way. Returns (cancelled, too late). Durable."""

    @abstractmethod
    def receipts(self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int) -> list[MessageId]:
        """Record outcomes that came home and the cursor ``upto`` of the peer's log; durable.

        Unknown messages are ignored. Returns the ids that ended by it.
        """

    @abstractmethod
    def status(self, message_id: MessageId) -> list[Delivery]:
        """All that is known of a message's deliveries; empty if unknown or forgotten."""

    @abstractmethod
    def peers(self) -> Mapping[str, PeerState]:
        """Every peer that a delivery was ever sent to, or that is held."""

    @abstractmethod
    def hold(self, peer: str, reason: str) -> None:
        """Stop shipping to the peer until `release`; its deliveries show as held. Durable."""

    @abstractmethod
    def release(self, peer: str) -> None:
        """End `hold`."""

    @abstractmethod
    def redrive(self, selection: Selection) -> int:
        """Send ended (dead, failed, expired) deliveries again, at the end of their lanes. Durable."""

    @abstractmethod
    def sweep(self, life: float) -> tuple[list[MessageId], float | None]:
        """End what is due: expired deliveries, and as dead those queued or awaiting a receipt for more
        than ``life`` seconds; forget ended records past their retention.

        Bounded work a call. Returns the ids that ended and the node time of the next thing due.
        """

    @abstractmethod
    def wipe(self, selection: Selection) -> int:
        """Forget ended deliveries (never live ones). Returns how many."""

    @abstractmethod
    def scan(self, selection: Selection, after: tuple[int, int] = (0, 0), limit: int = 100) -> list[
        tuple[tuple[int, int], Delivery]
    ]:
        """A page of deliveries and the cursor of each, in a stable order."""

    @abstractmethod
    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

    @abstractmethod
    def counts(self) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """(peer, channel) → state → number, and ``sent`` ever; kept, not counted."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; safe twice."""


# ── values of the inbox ──────────────────────────────────────────────────────────────────────────


class Arrival(NamedTuple):
    """One lane's part of a push as it reaches the inbox."""

    source: SourceLane
    after: Head
    upto: Head
    entries: list["Job"]


class Job(NamedTuple):
    """One message on its way into the inbox."""

    id: MessageId
    envelope: bytes
    sequence: int = 0
    key: str | None = None
    receipt: bool = False
    due_in: float | None = None
    """Seconds until it may be leased; None or not above 0: now."""
    expires_in: float | None = None
    """Seconds until it expires unleased."""
    possible_duplicate: bool = False


class Accepted(NamedTuple):
    """The inbox's word on one Arrival: its head after the call, and whether the arrival was taken."""

    head: Head
    taken: bool


class Claim(NamedTuple):
    """A leased message. ``token`` proves the lease."""

    token: bytes
    number: int
    id: MessageId
    channel: str
    priority: int
    sender: str
    envelope: bytes
    attempt: int
    """1 on the first lease; counted when the lease is given."""
    possible_duplicate: bool
    arrived: float
    """Node time at which it entered this queue."""


class Ack(NamedTuple):
    """Done, with an optional result for the receipt."""

    claim: Claim
    result: bytes | None = None
    content_type: str = ""
    keep: float = 0.0
    """Seconds for which the done message stays readable (the channel's retention)."""


class Release(NamedTuple):
    """Back to the queue after ``delay`` seconds."""

    claim: Claim
    delay: float = 0.0
    reason: str = ""
    counted: bool = True
    """False: the attempt does not count (drain, abandoned iterator)."""


class Bury(NamedTuple):
    """Into the dead-letter list; a sender that asked learns that it failed."""

    claim: Claim
    reason: str = ""


Settlement = Ack | Release | Bury


@attrs.frozen
class JobInfo:
    """One message of the inbox as `list` and `show` see it."""

    number: int
    id: MessageId
    sender: str
    channel: str
    priority: int
    state: State
    age: float
    """Seconds since it arrived (once done or buried: since then)."""
    size: int
    attempts: int
    reason: str = ""
    """The last error, one line each attempt, newest last."""
    consumer: str = ""
    due_in: float | None = None
    possible_duplicate: bool = False


class Inbox(ABC):
    """A work queue for each channel: filled by the endpoint, emptied by consumers."""

    @property
    @abstractmethod
    def store_id(self) -> StoreId:
        """Names this half and its outcome logs."""

    @abstractmethod
    def heads(self, sender: str, store: StoreId | None = None) -> dict[SourceLane, Head]:
        """Every head known for a sender (and one of its store ids)."""

    @abstractmethod
    def accept(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """The log-matching rule, all arrivals in one durable transaction.

        An arrival is taken only if its ``after`` equals the head kept for its source (START where
        none is kept); then its jobs are queued and ``upto`` becomes the head. Else nothing of it is
        stored, and the answer names the head kept. Raises QueueFull when there is no room.
        """

    @abstractmethod
    def put(self, channel: str, priority: int, sender: str, jobs: Sequence[Job]) -> None:
        """Queue jobs that come from this node itself; durable."""

    @abstractmethod
    def register(self, label: str = "") -> str:
        """A new consumer, alive as long as this process (and not yet retired). Returns its id."""

    @abstractmethod
    def retire(self, consumer: str) -> None:
        """The consumer is gone: its leases end, their attempts not counted. Safe twice."""

    @abstractmethod
    def claim(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:
        """Lease up to ``limit`` messages, by priority, then by arrival. Moves due delayed ones first.

        Counts the attempt. Never gives two messages of one ordering key at once.
        """

    @abstractmethod
    def settle(self, changes: Sequence[Settlement]) -> list[bool]:
        """Apply each change whose lease still holds (True); the others change nothing (False)."""

    @abstractmethod
    def holds(self, claim: Claim) -> bool:
        """Whether the lease still holds."""

    @abstractmethod
    def reap(self, attempts: Mapping[str, int]) -> tuple[list[str], bool]:
        """End the leases of consumers whose process died. A message that has used up its channel's
        attempts (``attempts``, default 10) is buried, the others are ready again.

        Returns the channels that have ready messages by it, and whether leases of other living
        consumers remain (so that somebody must look again).
        """

    @abstractmethod
    def next_due(self, channels: Sequence[str]) -> float | None:
        """Node time at which the next delayed message of these channels becomes ready."""

    @abstractmethod
    def outcomes(self, sender: str, log: StoreId | None, after: int, limit: int) -> tuple[StoreId, list[Outcome]]:
        """The outcome log of a sender after number ``after`` (all of it, if ``log`` is not ours).

        What is returned is on stable storage. Rows up to ``after`` of our own log are forgotten:
        the sender says with it that it has them durably.
        """

    @abstractmethod
    def sweep(self) -> float | None:
        """End expired messages, forget done and buried ones past their time. Bounded work a call.

        Returns the node time of the next thing due.
        """

    @abstractmethod
    def flush(self) -> None:
        """Everything settled so far is on stable storage when this returns."""

    @abstractmethod
    def status(self, message_id: MessageId) -> JobInfo | None:
        """What is known of a message."""

    @abstractmethod
    def scan(self, selection: Selection, after: int = 0, limit: int = 100) -> list[JobInfo]:
        """A page of messages in order of arrival; the last one's ``number`` is the next cursor."""

    @abstractmethod
    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

    @abstractmethod
    def kick(self, selection: Selection) -> int:
        """Make buried and delayed messages ready, with fresh attempts. Durable. Returns how many."""

    @abstractmethod
    def bury(self, message_id: MessageId, reason: str) -> bool:
        """Bury a message that is not leased. Durable."""

    @abstractmethod
    def wipe(self, selection: Selection) -> int:
        """Remove done and buried messages (never live ones). Returns how many."""

    @abstractmethod
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Channel → state → number, and ``processed`` ever, ``bytes``; kept, not counted."""

    @abstractmethod
    def oldest(self) -> Mapping[str, float]:
        """Channel → seconds that its first ready message has waited."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; safe twice."""


class Storage(ABC):
    """Both halves of one node's durable queue."""

    abilities: ClassVar[frozenset[str]] = frozenset()
    """Of: ``durable`` (survives the process), ``processes`` (several at once), ``ordering_key``."""

    outbox: Outbox
    inbox: Inbox

    @abstractmethod
    def close(self) -> None:
        """Close both halves; safe twice."""


__all__ = [
    "START", "Accepted", "Ack", "Arrival", "Batch", "Bury", "Claim", "Delivery", "Entry", "Inbox", "Job",
    "JobInfo", "LaneStats", "Outbox", "Outgoing", "PeerState", "Placed", "Rejection", "Release",
    "Selection", "Settlement", "Storage",
]  # fmt: skip
