"""The values that go into a storage and come out of it.

Owns the shapes of the outbox's values and of those that both halves have, and the names of all; those of the inbox
stand in `inbox_records.py`. What they mean is said with the methods of `storage.py`. Must not know anything else.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, Literal, NamedTuple, overload

import attrs

from dropr_core.contracts.inbox_records import (
    Accepted,
    Ack,
    Arrival,
    Bury,
    Claim,
    Job,
    JobInfo,
    JobMove,
    PlainJobs,
    Put,
    Release,
    Settlement,
)
from dropr_core.model.message import State
from dropr_core.model.names import Head, Lane, MessageId, StoreId
from dropr_core.model.states import ENDED

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


_OWN = frozenset({0, 4})
"""Id and envelope, which differ in messages that are alike."""


class PlainMessages(Sequence[NewMessage]):
    """Messages for one lane that are alike in all but id and envelope, with nothing to be remembered about any of them
    (no life, no own id); each is made when it is looked at. What storages that write many at once are glad to get.
    Nobody may change the lists.
    """

    __slots__ = ("envelopes", "ids", "like")

    def __init__(self, like: NewMessage, ids: list[MessageId], envelopes: list[bytes]) -> None:
        """``like``: what they have in common; its id and envelope are nobody's."""
        self.like, self.ids, self.envelopes = like, ids, envelopes

    def __len__(self) -> int:
        return len(self.envelopes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> NewMessage: ...

    @overload
    def __getitem__(self, at: slice) -> "PlainMessages": ...

    def __getitem__(self, at: Any) -> "NewMessage | PlainMessages":
        if isinstance(at, slice):
            return PlainMessages(self.like, self.ids[at], self.envelopes[at])
        return self.like._replace(id=self.ids[at], envelope=self.envelopes[at])

    def __iter__(self) -> Iterator[NewMessage]:
        _, *before, _, receipt, expires_in, delayed, fingerprint = self.like
        columns = zip(self.ids, *map(repeat, before), self.envelopes, repeat(receipt), repeat(expires_in),
                      repeat(delayed), repeat(fingerprint))  # fmt: skip
        return map(tuple.__new__, repeat(NewMessage), columns)

    @classmethod
    def of(cls, messages: Sequence[NewMessage]) -> "PlainMessages | None":
        """The same messages in columns, if they are such; None: at least one is not. Compared in columns, for this is
        done for every message.
        """
        if isinstance(messages, cls):
            return messages
        count, like = len(messages), messages[0]
        if len(like.peers) != 1 or like.expires_in is not None or like.fingerprint is not None:
            return None
        for at, value in enumerate(like):
            if at not in _OWN and list(map(itemgetter(at), messages)).count(value) < count:
                return None
        return cls(like, list(map(itemgetter(0), messages)), list(map(itemgetter(4), messages)))


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

    __slots__ = ("_size", "envelopes", "ids", "sequences")

    def __init__(self, sequences: Sequence[int], ids: Sequence[bytes], envelopes: list[bytes]) -> None:
        self.sequences, self.ids, self.envelopes = sequences, ids, envelopes
        self._size: int | None = None

    @property
    def size(self) -> int:
        """Bytes of all envelopes; asked for often, summed up once."""
        if self._size is None:
            self._size = sum(map(len, self.envelopes))
        return self._size

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
        entries = self.entries
        if isinstance(entries, PlainEntries):
            return Head(entries.sequences[-1], MessageId(entries.ids[-1]))
        last = entries[-1]
        return Head(last.sequence, last.id)

    @property
    def envelopes(self) -> list[bytes]:
        """Those of all entries, in order; not to be changed."""
        entries = self.entries
        return entries.envelopes if isinstance(entries, PlainEntries) else [entry.envelope for entry in entries]

    @property
    def size(self) -> int:
        """Bytes of all envelopes."""
        entries = self.entries
        return entries.size if isinstance(entries, PlainEntries) else sum(map(len, self.envelopes))


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


class Standing(NamedTuple):
    """What an outbox has to ship, and to whom."""

    lanes: Sequence[LaneStats]
    """`Outbox.lanes`."""
    peers: "Mapping[str, PeerState]"
    """`Outbox.peers`."""
    store: StoreId | None = None
    """`Outbox.store_id`, if that could be told along with them."""


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
    """Seconds since `send` (or, once nothing more is done with it by itself, since then)."""
    size: int
    reason: str = ""
    result: bytes | None = None
    result_type: str = ""
    receipt: bool = False
    possible_duplicate: bool = False
    sent: float = 0.0
    """Node time of `send`, or of the redrive."""
    until: float | None = None
    """Node time at which `sweep` lets it expire or, once it has ended, forgets it; None: never."""

    @property
    def over(self) -> bool:
        """Whether nothing more is done with it by itself."""
        return self.state in ENDED or (self.state is State.ACCEPTED and not self.receipt)


class DeliveryMove(NamedTuple):
    """One state move in an outbox."""

    delivery: Delivery
    """As `scan` gave it; the move is made only if it stands so still."""
    to: State | None
    """CANCELLED, EXPIRED, DEAD: it ends. QUEUED: it is sent again. None: it is forgotten."""
    reason: str = ""


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
    """Seconds since it was sent or arrived, or since it ended (the ``age`` that is shown)."""
    live: bool = False
    """Outbox: only what is not over. What has ended is remembered for a month, and is not read for this."""

    def means(self, one: Delivery | JobInfo) -> bool:
        """Whether this delivery or message is one of those."""
        return (
            (not self.ids or one.id in self.ids)
            and (not self.states or one.state in self.states)
            and (self.channel is None or self.channel == one.channel)
            and (self.peer is None or self.peer == (one.peer if isinstance(one, Delivery) else one.sender))
            and (self.older_than is None or one.age >= self.older_than)
            and not (self.live and isinstance(one, Delivery) and one.over)
        )


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


__all__ = [
    "Accepted",
    "Ack",
    "AppendResult",
    "AppendRun",
    "Arrival",
    "Batch",
    "Bury",
    "Claim",
    "Delivery",
    "DeliveryMove",
    "Entry",
    "Finding",
    "Job",
    "JobInfo",
    "JobMove",
    "LaneStats",
    "NewMessage",
    "PeerState",
    "PlainEntries",
    "PlainJobs",
    "PlainMessages",
    "Put",
    "Rejection",
    "Release",
    "Selection",
    "Settlement",
]  # fmt: skip
