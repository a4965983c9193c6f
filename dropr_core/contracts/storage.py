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
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from dropr_core.contracts.records import (
    Accepted,
    Ack,
    AppendResult,
    Arrival,
    Batch,
    Bury,
    Claim,
    Delivery,
    Entry,
    Finding,
    Job,
    JobInfo,
    LaneStats,
    NewMessage,
    PeerState,
    Rejection,
    Release,
    Selection,
    Settlement,
)
from dropr_core.model.message import Outcome
from dropr_core.model.names import START, Head, Lane, MessageId, SourceLane, StoreId


class Outbox(ABC):
    """A log for each lane: appended by `send`, read by the daemon, settled by the peers' answers."""

    @property
    @abstractmethod
    def store_id(self) -> StoreId:
        """The id under which peers know this half now; changes with `renumber`."""

    @abstractmethod
    def append(self, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:
        """Store all messages or none, durably; give each delivery the next number of its lane.

        Calls of many threads share one flush. Raises Conflict, QueueFull, StoreError.
        """

    @abstractmethod
    def lanes(self, peer: str | None = None) -> list[LaneStats]:
        """Every lane with queued deliveries (of one peer)."""

    @abstractmethod
    def take(self, lane: Lane, max_count: int, max_bytes: int, *, mark_in_flight: bool = True) -> Batch | None:
        """What follows the lane's head: at least one entry, then up to both limits; None if empty.

        With ``mark_in_flight``, the entries are marked as under way: until `settle`, `rewind` or `clear_in_flight`
        they cannot be cancelled. The mark is not durable.
        """

    @abstractmethod
    def clear_in_flight(self, lane: Lane) -> None:
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
    def dead_letter(self, lane: Lane, sequence: int, reason: str) -> None:
        """Give one delivery up as dead; the lane goes on without it."""

    @abstractmethod
    def cancel(self, message_id: MessageId, peers: Sequence[str] | None = None) -> tuple[int, int]:
        """Cancel queued deliveries that are not under way. Returns (cancelled, too late). Durable."""

    @abstractmethod
    def receipts(self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int) -> list[MessageId]:
        """Record outcomes that came home and the cursor ``upto`` of the peer's log; durable.

        Ignored are unknown messages, and outcomes that were recorded before (their number is not above the cursor of
        this log): their delivery may have been sent again since. Returns the ids that ended by it, each once.
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
    def scan(
        self, selection: Selection, after: tuple[int, int] = (0, 0), limit: int = 100
    ) -> list[tuple[tuple[int, int], Delivery]]:
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


class Inbox(ABC):
    """A work queue for each channel: filled by the endpoint, emptied by consumers."""

    checked: ClassVar[bool] = False
    """Whether `claim` has compared every envelope that it gives with a checksum of the storage's own, and gives an
    empty one where it could not: then nobody looks at the envelope's once more."""

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
        none is kept); then its jobs are queued, with `names.priority_of` the source's priority, and
        ``upto`` becomes the head. Else nothing of it is
        stored, and the answer names the head kept. Raises QueueFull when there is no room.

        A job flagged ``possible_duplicate`` that stands here already (same id and envelope; live, or done
        and kept) is not queued once more. A buried or expired copy does not count: its sender was told
        that it failed, and sends it again on purpose.
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

    def acknowledge(self, claims: Sequence[Claim], keep: float = 0.0) -> list[bool]:
        """`settle` with an `Ack` for each, without results; for storages that can do it in one sweep."""
        return self.settle([Ack(claim, None, "", keep) for claim in claims])

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
        the sender says with it that it has them durably. A number that our log never reached tells
        that this half was restored from a backup: it takes a new store id, durably, and returns all.
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

    def check(self, *, repair: bool) -> Iterator[Finding]:  # noqa: ARG002
        """Look for what is damaged or contradicts itself in this store's own files; optional.

        Called only on a store that was opened with ``Context.checking`` (its halves are not used then, and may
        be anything but None). Without ``repair`` not a byte changes, and other processes may work meanwhile.
        With it the finding comes after its repair; raises Held, before anything was changed, if another process
        has the store open. What cannot be read is moved aside and never deleted. Memory is bounded, long work
        tells of itself through ``Context.log.info``.

        What every storage has in common (each message readable, each large body there) is checked by the
        host afterwards, with the methods above, on the store as it is then.
        """
        return iter(())

    @abstractmethod
    def close(self) -> None:
        """Close both halves; safe twice."""


__all__ = [
    "START",
    "Accepted",
    "Ack",
    "AppendResult",
    "Arrival",
    "Batch",
    "Bury",
    "Claim",
    "Delivery",
    "Entry",
    "Finding",
    "Inbox",
    "Job",
    "JobInfo",
    "LaneStats",
    "NewMessage",
    "Outbox",
    "PeerState",
    "Rejection",
    "Release",
    "Selection",
    "Settlement",
    "Storage",
]  # fmt: skip
