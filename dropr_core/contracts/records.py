"""The values that go into a storage and come out of it.

Owns their shapes; what they mean is said with the methods of `storage.py`. Must not know anything else.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Literal, NamedTuple, overload

import attrs

from dropr_core.model.message import State
from dropr_core.model.names import Head, Lane, MessageId, SourceLane, StoreId

# ── values of the outbox ─────────────────────────────────────────────────────────────────────────


class NewMessage(NamedTuple):
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


class AppendResult(NamedTuple):
    """Where a message stands in its lanes."""

    id: MessageId
    sequences: tuple[int, ...]
    """One for each peer of the message, in the order given; 0 where it had ended already."""
    existed: bool
    """True: this id was sent before with the same content; nothing was stored anew."""


class AppendRun(Sequence[AppendResult]):
    """New messages that stand one behind the other in one lane; each is made when it is looked at."""

    __slots__ = ("first", "ids")

    def __init__(self, ids: Sequence[MessageId], first: int) -> None:
        self.ids, self.first = ids, first

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> AppendResult: ...

    @overload
    def __getitem__(self, at: slice) -> list[AppendResult]: ...

    def __getitem__(self, at: Any) -> AppendResult | list[AppendResult]:
        if isinstance(at, slice):
            return [self[one] for one in range(len(self))[at]]
        return AppendResult(self.ids[at], (self.first + range(len(self))[at],), False)


class Entry(NamedTuple):
    """One delivery as it stands in a lane."""

    sequence: int
    id: MessageId
    envelope: bytes
    age: float = 0.0
    """Seconds since `send`; filled in only where delay or expiry need it."""
    possible_duplicate: bool = False


class PlainEntries(Sequence[Entry]):
    """Entries of which there is nothing to say but these three; each is made when it is looked at.

    For storages that read many at once. Nobody may change the lists afterwards.
    """

    __slots__ = ("envelopes", "ids", "sequences")

    def __init__(self, sequences: Sequence[int], ids: Sequence[bytes], envelopes: list[bytes]) -> None:
        self.sequences, self.ids, self.envelopes = sequences, ids, envelopes

    def __len__(self) -> int:
        return len(self.envelopes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> Entry: ...

    @overload
    def __getitem__(self, at: slice) -> "PlainEntries": ...

    def __getitem__(self, at: Any) -> "Entry | PlainEntries":
        sequence, identity, envelope = self.sequences[at], self.ids[at], self.envelopes[at]
        if isinstance(at, slice):
            return PlainEntries(sequence, identity, envelope)
        return Entry(sequence, MessageId(identity), envelope)

    def __iter__(self) -> Iterator[Entry]:
        columns = zip(self.sequences, self.ids, self.envelopes, repeat(0.0), repeat(False))
        return map(tuple.__new__, repeat(Entry), columns)


class Batch(NamedTuple):
    """What follows ``after`` in a lane. Missing sequence numbers are voids: they ended otherwise."""

    lane: Lane
    after: Head
    entries: Sequence[Entry]

    @property
    def upto(self) -> Head:
        """The position of the last entry."""
        last = self.entries[-1]
        return Head(last.sequence, last.id)

    @property
    def envelopes(self) -> list[bytes]:
        """Those of all entries, in order; not to be changed."""
        entries = self.entries
        return entries.envelopes if isinstance(entries, PlainEntries) else [entry.envelope for entry in entries]

    @property
    def size(self) -> int:
        """Bytes of all envelopes."""
        return sum(map(len, self.envelopes))


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


# ── values of the inbox ──────────────────────────────────────────────────────────────────────────


class Arrival(NamedTuple):
    """One lane's part of a push as it reaches the inbox."""

    source: SourceLane
    after: Head
    upto: Head
    entries: Sequence["Job"]


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


class PlainJobs(Sequence[Job]):
    """Jobs of which there is nothing to say but their ids and envelopes, and whether they all want a receipt; each is
    made when it is looked at. What storages that write many at once are glad to get. Nobody may change the lists.
    """

    __slots__ = ("envelopes", "ids", "receipt")

    def __init__(self, ids: list[bytes], envelopes: list[bytes], *, receipt: bool = False) -> None:
        self.ids, self.envelopes, self.receipt = ids, envelopes, receipt

    def __len__(self) -> int:
        return len(self.envelopes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> Job: ...

    @overload
    def __getitem__(self, at: slice) -> "PlainJobs": ...

    def __getitem__(self, at: Any) -> "Job | PlainJobs":
        if isinstance(at, slice):
            return PlainJobs(self.ids[at], self.envelopes[at], receipt=self.receipt)
        return Job(MessageId(self.ids[at]), self.envelopes[at], receipt=self.receipt)

    def __iter__(self) -> Iterator[Job]:
        columns = zip(self.ids, self.envelopes, repeat(0), repeat(None), repeat(self.receipt), repeat(None),
                      repeat(None), repeat(False))  # fmt: skip
        return map(tuple.__new__, repeat(Job), columns)


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


# ── values of the check ──────────────────────────────────────────────────────────────────────────


@attrs.frozen
class Finding:
    """One thing that a check of the store found, for a person at three in the morning."""

    half: str
    """``outbox``, ``inbox``, ``bodies``; ``store`` for what concerns all of it."""
    severity: Literal["damage", "mistake", "note"]
    """``damage``: something stored cannot be read any more. ``mistake``: what is written down about messages
    contradicts the messages. ``note``: good to know, nothing has to be done; no reason to end with 1."""
    what: str
    """What it is about: ``message 0190…``, ``lane berlin:orders:5``, ``outbox.db``."""
    text: str
    """What is wrong with it and what that means, as a sentence without capital and full stop."""
    remedy: str = ""
    """What a repair does about it, as "counts anew"; empty: a repair can do nothing, ``text`` says who can."""
    repaired: bool = False
    """Whether this has been done now."""
