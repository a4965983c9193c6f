"""The wire protocol: what two nodes say to each other (docs/wire-protocol.md).

Owns the bodies of requests and answers and their encoding; `frames.py` owns the frame around
them. Must not know sockets, stores or time: every function is bytes in, values out, or back.
"""

from typing import Annotated, TypeVar

import msgspec

from dropr_core.errors import BadFrame
from dropr_core.model.limits import MAX_SECONDS, MAX_SEQUENCE
from dropr_core.model.names import LOWEST_PRIORITY

# Verbs. A request names one; its answer has the shape that stands beside it.
HELLO = "hello"  # Hello → Welcome
PUSH = "push"  # Push → Pushed
HEADS = "heads"  # AskHeads → HeadsAnswer
RECEIPTS = "receipts"  # AskReceipts → Outcomes      (long poll)
FETCH = "fetch"  # Fetch → Fetched             (long poll)
HAVE = "have"  # Have → Had                  (bodies in chunks)
CHUNK = "chunk"  # Chunk → Had
READ = "read"  # Read → Piece                (bodies for a node that fetches)
TRACE = "trace"  # AskTrace → Traced           (since 2026-11; an older node refuses it as unsupported)
JOIN = "join"  # Join → Joined               (signed with the key of an invitation)

Position = tuple[int, bytes]
"""(sequence, message id), as it stands there: `batches.py` checks it, so that one impossible lane stops no other."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
Room = Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQUENCE)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]
"""Neither NaN nor an infinity passes."""
Identity = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Store = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
Log = Annotated[bytes, msgspec.Meta(max_length=8)]
"""A store id, or nothing where none is known."""
CheckedPosition = tuple[Count, Identity]
Short = Annotated[bytes, msgspec.Meta(max_length=64)]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Who I am, before anything else. `greeting.py` says why its beginning never changes."""

    version: int
    """The oldest version that I speak."""
    node: Short
    """The sender's node id, 16 random bytes made once."""
    newest: Count = 0
    """The newest one; less than the oldest: I speak no other (dropr 0.1 does not say it)."""


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """Who answers, the session for what follows, and what it takes at once."""

    version: int
    """The one in which we go on: the newest that both speak."""
    node: Short
    session: Short
    inbox: Store
    """Store id of the inbox; names its outcome logs."""
    batch_bytes: Room
    batch_count: Room
    max_body: Count


Url = Annotated[str, msgspec.Meta(max_length=500)]


class Join(msgspec.Struct, frozen=True, array_like=True):
    """Make me, whom you invited, your peer."""

    nonce: Identity
    """Random; with the key of the invitation it makes the key of the pair."""
    urls: Annotated[list[Url], msgspec.Meta(max_length=16)]
    """Where I can be reached; nothing: nowhere, I fetch."""


class Joined(msgspec.Struct, frozen=True, array_like=True):
    """You are my peer; the configuration says so."""

    url: Url
    """Where I shall reach you; empty: I wait for you to fetch."""


class LanePart(msgspec.Struct, frozen=True, array_like=True):
    """One lane's share of a push: envelopes in order, between two positions.

    Sequence numbers between ``after`` and ``upto`` that have no envelope are voids: deliveries that
    were cancelled, expired or given up. They need no bytes of their own.
    """

    channel: str
    priority: int
    after: Position
    upto: Position
    envelopes: list[bytes]
    notes: list[tuple[int, float, bool]] = []
    """(index, age in seconds, possible duplicate) where there is something to say."""

    @property
    def large(self) -> bool:
        """Whether it is a lane of messages with large bodies."""
        return self.priority > LOWEST_PRIORITY


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """How much of a receiver's outcome log its sender has on stable storage."""

    log: Log
    after: Count


class OutcomeRow(msgspec.Struct, frozen=True, array_like=True):
    """One receipt."""

    number: int
    id: bytes
    state: str
    reason: str = ""
    result: bytes | None = None
    content_type: str = ""


class Outcomes(msgspec.Struct, frozen=True, array_like=True):
    """A page of an outcome log."""

    log: Log
    upto: Count
    rows: list[OutcomeRow]


class Push(msgspec.Struct, frozen=True, array_like=True):
    """Deliveries of any number of lanes."""

    store: Store
    lanes: list[LanePart]
    receipts: Cursor | None = None


class PushResult(msgspec.Struct, frozen=True, array_like=True):
    """The receiver's word on one lane of a push, in the order asked."""

    taken: bool
    head: CheckedPosition
    rejected: list[tuple[int, str, str]] = []
    """(index of the envelope, code, reason): taken out for good; the lane went on without them."""
    later: Seconds | None = None
    """Seconds to wait: nothing is wrong with the push, there is no room now."""
    reason: str = ""
    missing: bool = False
    """The body of a message of this lane is not here: bring it first."""


class Pushed(msgspec.Struct, frozen=True, array_like=True):
    """Verdicts, and receipts that were waiting."""

    verdicts: list[PushResult]
    receipts: Outcomes | None = None


class AskHeads(msgspec.Struct, frozen=True, array_like=True):
    """How far are you in these lanes? A small probe that changes nothing."""

    store: Store
    lanes: list[tuple[str, int]]


class HeadsAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Heads in the order asked; (0, zeros) for a lane never heard of."""

    heads: list[CheckedPosition]


class AskReceipts(msgspec.Struct, frozen=True, array_like=True):
    """What is new after the cursor? Waits up to ``wait`` seconds for something."""

    cursor: Cursor
    wait: Seconds


class Fetch(msgspec.Struct, frozen=True, array_like=True):
    """A node that cannot be reached asks for its mail, and brings receipts."""

    heads: list[tuple[Store, str, int, Count, Identity]]
    """(store id, channel, priority, sequence, message id) for every lane of this sender."""
    outcomes: Outcomes | None
    wait: Seconds
    without: list[tuple[str, int]] = []
    """(channel, priority) of lanes of which nothing is wanted now: a body of theirs is on its way."""
    partial: bool = False
    """The heads are not all that there are: nothing is concluded of a lane that is not among them."""
    rejected: list[tuple[Identity, str, str]] = []
    """(message id, code, reason) of messages that were taken out for good since the last request that was answered."""


class Fetched(msgspec.Struct, frozen=True, array_like=True):
    """Its mail, and how many of its receipts are kept."""

    store: Store
    lanes: list[LanePart]
    cursor: Cursor
    unknown: list[tuple[str, int]] = []
    """(channel, priority) of lanes whose heads must be among those of the next fetch."""


class Have(msgspec.Struct, frozen=True, array_like=True):
    """How much do you have of the body of this message?"""

    id: Identity
    channel: str
    size: Count
    digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    """Of the whole body (chunk_digest.py)."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a body: the tail of the frame."""

    body: Have
    offset: Count
    """A multiple of `leaves.LEAF`."""
    leaves: bytes
    """SHA-256 of each leaf of the piece."""


class Read(msgspec.Struct, frozen=True, array_like=True):
    """A node that fetches asks for a piece of a body."""

    body: Have
    offset: Count
    count: Count


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a body for a node that fetches; shorter than asked only at the end."""

    data: memoryview


class Had(msgspec.Struct, frozen=True, array_like=True):
    """How many bytes of the body are here; all of them only if they are complete and on stable storage."""

    offset: Count


class AskTrace(msgspec.Struct, frozen=True, array_like=True):
    """What became of this message, which went from one of us to the other?"""

    id: Identity


class TracedDelivery(msgspec.Struct, frozen=True, array_like=True):
    """A delivery to the asker, as its sender has it."""

    channel: str
    priority: Count
    state: str
    sequence: Count
    age: Seconds
    """Since it was sent; once nothing more is done with it by itself, since then."""
    reason: str = ""
    receipt: bool = False
    possible_duplicate: bool = False


class TracedJob(msgspec.Struct, frozen=True, array_like=True):
    """A message of the asker, as its receiver has it in its queue."""

    channel: str
    priority: Count
    state: str
    age: Seconds
    """Since it arrived; once it is done or buried, since then."""
    attempts: Count
    errors: str = ""
    """One line for each attempt that failed, the newest last."""
    consumer: str = ""
    """Who has it, while it is leased."""
    due_in: Seconds | None = None
    possible_duplicate: bool = False


class Traced(msgspec.Struct, frozen=True, array_like=True):
    """Both lists are empty where nothing is known of the message, or not between this pair of nodes."""

    deliveries: list[TracedDelivery]
    jobs: list[TracedJob]


_encoder = msgspec.msgpack.Encoder()
_T = TypeVar("_T")


def encode(value: msgspec.Struct) -> bytes:
    """The bytes of a request's or answer's body."""
    return _encoder.encode(value)


def decode(data: bytes | memoryview, shape: type[_T]) -> _T:
    """Read a body of the given shape; raises BadFrame naming what does not fit."""
    try:
        return msgspec.msgpack.decode(data, type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadFrame(f"{shape.__name__}: {error}") from None
