"""Receiving in an event loop.

Owns the loop that carries out a plan without blocking, and the message as asyncio code sees it. What is done when is
decided in receive_plan.py, exactly as for the blocking loop; whatever touches the store or the disk runs in a thread.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, BinaryIO, Self

from dropr_core.api.async_bridge import Endings, readable, to_the_end
from dropr_core.api.consumer import Consumer
from dropr_core.api.receive_plan import Claim, End, Give, ReceivePlan, Settle
from dropr_core.api.received import Received
from dropr_core.api.send_options import Duration
from dropr_core.model.message import Message
from dropr_core.system.loading import unforked
from dropr_core.transactions.recognise import is_async


class AsyncReceived:
    """A leased message; `ack`, `release` and `bury` are awaited. Facts are those of `Received`."""

    __slots__ = ("_received",)

    def __init__(self, received: Received) -> None:
        self._received = received

    def __repr__(self) -> str:
        return repr(self._received)

    def blocking(self) -> Received:
        """The message beneath; its methods block."""
        return self._received

    @property
    def id(self) -> str:
        """The message's id as text."""
        return self._received.id

    @property
    def channel(self) -> str:
        """The channel it came on."""
        return self._received.channel

    @property
    def sender(self) -> str:
        """The peer that sent it, as this node calls it."""
        return self._received.sender

    @property
    def claimed_sender(self) -> str | None:
        """Another name that the envelope says, which nobody has proven; None where it says what was proven."""
        return self._received.claimed_sender

    @property
    def priority(self) -> int:
        """0 (first) to 9 (last)."""
        return self._received.priority

    @property
    def headers(self) -> Mapping[str, str]:
        """The sender's headers."""
        return self._received.headers

    @property
    def message(self) -> Message:
        """The facts that the sender fixed; read when first asked for."""
        return self._received.message

    @property
    def body(self) -> bytes:
        """As `Received.body`. A large one is read from the disk, which holds up the loop: better `open` in a thread."""
        return self._received.body

    @property
    def value(self) -> Any:
        """As `Received.value`; what was said about `body` goes for it too."""
        return self._received.value

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return self._received.size

    @property
    def large(self) -> bool:
        """Whether the body is a file of its own, better taken with `open`."""
        return self._received.large

    def open(self) -> BinaryIO:
        """As `Received.open`."""
        return self._received.open()

    @property
    def attempt(self) -> int:
        """1 at the first try."""
        return self._received.attempt

    @property
    def possible_duplicate(self) -> bool:
        """Whether it may have been given out before (a store was rolled back, wiped or cloned)."""
        return self._received.possible_duplicate

    @property
    def age(self) -> float:
        """Seconds since it entered this node's queue."""
        return self._received.age

    @property
    def lease_holds(self) -> bool:
        """Whether the message is still ours to settle; asks the store."""
        return self._received.lease_holds

    @property
    def settled(self) -> bool:
        """Whether it was acknowledged, released or buried."""
        return self._received.settled

    async def ack(self, result: Any = None, *, connection: Any = None) -> None:
        """As `Received.ack`. ``connection``: one for asyncio is awaited, a blocking one is used here and now."""
        if connection is None:
            await to_the_end(self._received.ack, result)
        elif is_async(connection):
            await self._received.aack(result, connection)
        else:
            self._received.ack(result, connection=connection)

    @asynccontextmanager
    async def transaction(self, database: Any) -> AsyncGenerator[Any, None]:
        """As `Received.transaction`, with ``async with`` and what a library for asyncio has of the database."""
        with unforked:
            from dropr_core.transactions.beginning import begin_async

        received = self._received
        async with begin_async(database) as connection:
            await received.aack(None, connection)
            yield connection
        assert received.pending is not None
        received.pending.committed = True

    async def release(self, delay: Duration | None = None, reason: str = "") -> None:
        """As `Received.release`."""
        await to_the_end(self._received.release, delay, reason)

    async def bury(self, reason: str = "") -> None:
        """As `Received.bury`."""
        await to_the_end(self._received.bury, reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return await to_the_end(self._received.__exit__, kind, error, trace)


async def receive(
    connect: Callable[[], Consumer],
    plan: ReceivePlan[Received],
    endings: Endings,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[list[Received], None]:
    """Carry out a plan with a consumer of its own; yields what goes to the loop body.

    The twin of `consumer.receive`. A cancellation is never lost: whatever was claimed goes back, then it is raised.
    ``endings``: of the node, which closes after them.
    """
    consumer: Consumer | None = None

    def begin() -> None:
        nonlocal consumer  # kept even if the cancellation comes while it registers
        consumer = connect()

    try:
        await to_the_end(begin)
        assert consumer is not None
        while not isinstance(step := plan.next(clock()), End):
            if isinstance(step, Give):
                given = step.messages
                yield given
                while plan.goes_on(clock()) and (given := consumer.pass_on(given)):
                    plan.followed(given)
                    yield given
            elif isinstance(step, Settle):
                await to_the_end(consumer.settle, step)
            elif isinstance(step, Claim):
                plan.claimed(await to_the_end(consumer.look, step))
            else:
                await readable(consumer.fileno(), await to_the_end(consumer.patience, step.seconds))
        await to_the_end(consumer.settle_now)
    finally:
        if consumer is not None:
            await endings.run(consumer.end, plan.abandon())


async def receive_each(
    connect: Callable[[], Consumer], plan: ReceivePlan[Received], endings: Endings
) -> AsyncGenerator[AsyncReceived, None]:
    """`receive` of a plan that gives one message at a time."""
    async with aclosing(receive(connect, plan, endings)) as given:
        async for (received,) in given:
            yield AsyncReceived(received)


async def receive_batches(
    connect: Callable[[], Consumer], plan: ReceivePlan[Received], endings: Endings
) -> AsyncGenerator[list[AsyncReceived], None]:
    """`receive` of a plan that gives batches."""
    async with aclosing(receive(connect, plan, endings)) as given:
        async for batch in given:
            yield [AsyncReceived(received) for received in batch]
