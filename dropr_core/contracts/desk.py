"""What the host gives to a gateway: the verbs over this node's outbox and inbox.

Owns `Desk`, and `Held`, a leased message in its hands. Everything is awaited in one event loop and never blocks it. The
host's side is in gateway/; a dialect imports all of it from `gateway`.

Errors, all of `dropr_core.errors`: UsageError (a bad name, TooBig, Conflict: nothing was done), QueueFull (over a
limit, or the disk is full: nothing was stored, and the same call may succeed later), other StoreErrors, Closed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, Self, TypeAlias

import attrs

from dropr_core.contracts.parcels import Counts, Fate, Parcel, Placed, Seen, Upload
from dropr_core.model.message import State

if TYPE_CHECKING:
    import asyncio  # who only wants the names loads no event loop


@attrs.frozen
class Change:
    """How a lease shall end; made by `Held.acked`, `released`, `buried`."""

    held: "Held"
    kind: Literal["ack", "release", "bury"]
    result: bytes | None = attrs.field(default=None, repr=False)
    result_type: str = ""
    delay: float | None = 0.0
    rank: int | None = None
    counted: bool = True
    reason: str = ""


class Held(Protocol):
    """A leased message in the hands of a desk. Facts first, then how it is settled.

    When a settling returns the death of any process changes nothing (a power cut within 20 ms may bring the message
    back); False where the lease had ended before: nothing was changed then.
    """

    @property
    def id(self) -> str:
        """The id as text."""
        ...

    @property
    def number(self) -> int:
        """The job number; see `Placed.number`."""
        ...

    @property
    def handle(self) -> str:
        """Finds this lease again with `Desk.by_handle`, for dialects whose connections do not live as long."""
        ...

    @property
    def channel(self) -> str:
        """Where it was waiting."""
        ...

    @property
    def sender(self) -> str:
        """The peer that brought it, or this node."""
        ...

    @property
    def rank(self) -> int:
        """Priority of 32 bits, 0 first."""
        ...

    @property
    def attempt(self) -> int:
        """1 at the first try."""
        ...

    @property
    def age(self) -> float:
        """Seconds since it entered the queue."""
        ...

    @property
    def created_at(self) -> float:
        """When it was sent, by its sender's wall clock, in seconds since the epoch: for people."""
        ...

    @property
    def deadline(self) -> float | None:
        """When the lease ends by itself, on the event loop's clock; None: with the desk."""
        ...

    @property
    def body(self) -> bytes:
        """As it was put."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the body."""
        ...

    def open(self) -> BinaryIO:
        """The body as a file to read in a thread, to be closed by the caller. Raises StoreCorrupt if it is damaged or
        gone: a large one goes when its message is settled, but for those who have it open.
        """
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """As they were put."""
        ...

    @property
    def content_type(self) -> str:
        """As it was put."""
        ...

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be said about it."""
        ...

    async def ack(self, result: bytes | None = None, result_type: str = "") -> bool:
        """Done. A result goes home with the receipt."""
        ...

    async def release(
        self, delay: float | None = 0.0, *, rank: int | None = None, counted: bool = True, reason: str = ""
    ) -> bool:
        """Back to the queue after ``delay`` seconds (None: as the channel's backoff says, buried after its last
        attempt).
        """
        ...

    async def bury(self, reason: str = "", *, rank: int | None = None) -> bool:
        """Into the dead letters; `Desk.kick` brings it back."""
        ...

    def touch(self, hold: float | None = None) -> bool:
        """Begin the time of the lease anew (``hold`` seconds, or those it had); False if it has ended."""
        ...

    def acked(self, result: bytes | None = None, result_type: str = "") -> Change:
        """As `ack`, for `Desk.settle`."""
        ...

    def released(
        self, delay: float | None = 0.0, *, rank: int | None = None, counted: bool = True, reason: str = ""
    ) -> Change:
        """As `release`, for `Desk.settle`."""
        ...

    def buried(self, reason: str = "", *, rank: int | None = None) -> Change:
        """As `bury`, for `Desk.settle`."""
        ...


Told: TypeAlias = Callable[[Any], None]
"""Is called in the event loop, never before the call that got it has returned: with what the method of the same name
would return, or with the exception that it would raise. It must not raise any.
"""


class Watch(Protocol):
    """News in one channel, in the only right order: `prepare`, look, and if there is nothing, `wait`."""

    async def prepare(self) -> bool:
        """From now on news is noticed. False: the channel is paused, and nothing may be taken now."""
        ...

    async def wait(self) -> bool:
        """Until there was news since `prepare`, which may be of anything; False: look again for another reason."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Desk(Protocol):
    """The verbs. Each connection has its own: one consumer, whose leases end with it."""

    node: str
    stopping: "asyncio.Event"

    async def put(self, *parcels: Parcel) -> list[Placed]:
        """Store all or none. Durable when it returns; connections that put meanwhile share the commit."""
        ...

    def put_soon(self, parcels: Sequence[Parcel], done: Told) -> bool:
        """`put`, told by a call: for a dialect whose commands are so short that a task for each would cost more than
        they do. False: it cannot begin at once (no room in memory, large bodies, both halves of the store are meant);
        nothing was done, and `put` waits for it. Raises UsageError and Closed at once.
        """
        ...

    async def publish(self, *parcels: Parcel) -> list[Placed]:
        """`put` into topics (``channel``), or to the node where the topic's channel leads: each of a topic's
        subscriptions gets a copy, here and on other nodes. Raises UsageError for one that is not among `topics`.
        """
        ...

    async def topics(self, *names: str) -> frozenset[str]:
        """Those of the names that can be published on: topics of the configuration, with a subscription, or whose
        channel leads elsewhere. `put` into them publishes, too.
        """
        ...

    async def subscribe(self, topic: str, name: str, at: str | None = None) -> str:
        """From now on get a copy of each message of a topic, durably, whoever is connected; safe again. Returns the
        channel to `reserve` them from. ``at``: the node that publishes; None: this one, or where the topic's channel
        leads. Another node is asked by a message.
        """
        ...

    async def unsubscribe(self, topic: str, name: str, at: str | None = None) -> int:
        """End it, and remove the copies that nobody has leased. Returns how many; 0 also if there was none."""
        ...

    def upload(self) -> "AbstractAsyncContextManager[Upload]":
        """A large body on its way in, for `Parcel.large`; it is gone at the end of the block."""
        ...

    async def reserve(
        self, channels: Iterable[str], *, limit: int = 1, wait: float | None = 0.0, hold: float | None = None
    ) -> "list[Held]":
        """Lease what is ready, by rank, then by age; wait up to ``wait`` seconds for the first (None: for ever).

        ``hold``: after so many seconds the lease ends by itself, the attempt counted. Cancelling it is safe: what
        was claimed meanwhile goes back. Empty when the time is over, the caller has hung up, or the gateway drains.
        """
        ...

    def reserve_soon(self, channels: Iterable[str], limit: int, done: Told) -> None:
        """`reserve` of what is ready, told by a call. What came when the desk has closed goes back."""
        ...

    async def reserve_number(self, number: int, *, hold: float | None = None) -> "Held | None":
        """Lease this one if it waits (ready, delayed or buried)."""
        ...

    async def settle(self, *changes: Change) -> list[bool]:
        """All in one commit; False where a lease had ended."""
        ...

    def settle_soon(self, changes: Sequence[Change], done: Told) -> None:
        """`settle`, told by a call."""
        ...

    def held(self, number: int) -> "Held | None":
        """What this desk holds under that number."""
        ...

    async def by_handle(self, handle: str) -> "Held | None":
        """The lease of a `Held.handle`, also of another desk of this process, and after a restart as long as nobody has
        leased the message since; None if it is over or the text is none of ours.
        """
        ...

    async def find(self, number: int) -> Seen | None:
        """A message of the inbox by its number. Costs a look-up."""
        ...

    async def find_id(self, message_id: str) -> Seen | None:
        """The same by its id."""
        ...

    async def peek(self, channel: str, state: State = State.READY) -> Seen | None:
        """The next one in that state (READY, DELAYED, BURIED)."""
        ...

    async def browse(self, channel: str, after: int = 0, limit: int = 100) -> list[Seen]:
        """A page of what lives in a channel (but for the buried), by number: those above ``after``. Large bodies are
        left out.

        With `watch` and `reserve_number` for dialects that choose among what waits, by its headers.
        """
        ...

    def watch(self, channel: str) -> "Watch":
        """To be told of news in a channel."""
        ...

    async def delete(self, number: int) -> bool:
        """Remove a message that nobody has leased, or that this desk has. False if there is none."""
        ...

    async def kick(self, channel: str, bound: int) -> int:
        """Make up to ``bound`` buried messages ready; delayed ones if none is buried. Returns how many."""
        ...

    async def kick_number(self, number: int) -> bool:
        """The same with one."""
        ...

    async def purge(self, channel: str) -> int:
        """Remove everything that nobody has leased. Returns how many."""
        ...

    async def pause(self, channel: str, seconds: float | None = None) -> None:
        """Consumers of the channel get nothing for so long (None: until `resume`); sending goes on."""
        ...

    async def resume(self, channel: str) -> None:
        """End `pause`."""
        ...

    async def channels(self) -> list[str]:
        """Those of the configuration, and those that hold messages."""
        ...

    async def counts(self) -> Mapping[str, Counts]:
        """Every channel of `channels`."""
        ...

    async def count(self, channel: str) -> Counts:
        """One channel; zeros for one that does not exist."""
        ...

    async def status(self, message_id: str) -> Fate | None:
        """What became of a message that was put here; None if unknown or forgotten."""
        ...

    async def wait_receipt(self, message_id: str, wait: float | None = None) -> Fate | None:
        """Wait until it has ended; as `status` after ``wait`` seconds."""
        ...

    def connection(self, peer: str) -> "AbstractAsyncContextManager[Desk]":
        """A desk of its own for a connection inside a web application, such as a WebSocket."""
        ...


__all__ = ["Change", "Desk", "Held", "Told", "Watch"]
