"""From a queue or a topic to one subscription: a pump each.

Owns when messages are fetched (as the subscription's credit allows), and how a subscription with a selector finds those
that it wants. What the bytes look like is the session's, what a queue is the desk's.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from dropr_core.contracts.gateway import Desk, Held
from dropr_core.model.message import State
from dropr_gateway_stomp.events import Subscribe
from dropr_gateway_stomp.frames import ProtocolError
from dropr_gateway_stomp.mapping import message_headers, selectable
from dropr_gateway_stomp.session import Session
from dropr_gateway_stomp.topics import Published, Topics

_AT_ONCE = 100
"""Messages that are fetched in one call."""
_WINDOW = 1000
"""Messages that a selector wants and that are known to live; with so many nothing further is looked at."""
_AGAIN = 10.0
"""Seconds after which a subscription with a selector looks at a whole queue again, if there was news in it."""
Wanted = Callable[[dict[str, str]], bool]


class Owner(Protocol):
    """What a pump needs of its connection."""

    session: "Session[Held | Published]"

    async def write(self, data: bytes) -> None:
        """To the client."""
        ...


class Pump(ABC):
    """One subscription's supply."""

    def __init__(self, owner: Owner, asked: Subscribe) -> None:
        self._owner, self._asked = owner, asked
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin; what goes wrong ends the group."""
        self._task = group.create_task(self._run())

    def more(self) -> None:
        """Something was settled: there may be credit."""
        self._more.set()

    def stop(self) -> None:
        """Fetch nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """The same, and wait for it."""
        self.stop()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([self._task])

    async def _credit(self) -> int:
        """Wait until something may be delivered."""
        while True:
            self._more.clear()
            credit = self._owner.session.credit(self._asked.id)
            if credit:
                return min(credit, _AT_ONCE)
            await self._more.wait()

    @abstractmethod
    async def _run(self) -> None: ...


class QueuePump(Pump):
    """All messages of a channel, in the order in which the inbox gives them."""

    def __init__(self, owner: Owner, asked: Subscribe, desk: Desk, channel: str, wall: Callable[[], float]) -> None:
        super().__init__(owner, asked)
        self._desk, self._channel, self._wall = desk, channel, wall

    async def _run(self) -> None:
        while True:
            limit = await self._credit()
            held = await self._fetch(limit)
            if held:
                await self._deliver(held)
            elif self._desk.stopping.is_set():
                return

    async def _fetch(self, limit: int) -> list[Held]:
        return await self._desk.reserve([self._channel], limit=limit, wait=None)

    async def _deliver(self, held: Sequence[Held]) -> None:
        session, asked, now = self._owner.session, self._asked, self._wall()
        # Nothing is awaited until the session knows of all: whoever cancels this finds them there.
        frames = [
            session.deliver(
                asked.id, one, one.id,
                message_headers(asked.destination, one.headers, one.content_type,
                                rank=one.rank, attempt=one.attempt, arrived=now - one.age), one.body,
            )
            for one in held
        ]  # fmt: skip
        if asked.ack != "auto":
            await self._owner.write(b"".join(frames))
            return
        try:
            await self._owner.write(b"".join(frames))
        except BaseException:
            await asyncio.shield(self._desk.settle(*(one.released(counted=False) for one in held)))
            raise
        # With ack:auto it counts as consumed once it is written: asked for so by the client.
        await asyncio.shield(self._desk.settle(*(one.acked() for one in held)))


class SelectingPump(QueuePump):
    """Those messages of a channel that a selector wants. Nothing else of the queue is ever touched: it looks, and
    leases by number what it wants. So a message that nobody here wants stays where it is, in its order, with no attempt
    counted, for whoever wants it. What a selector says of a message does not change: each is looked at once.
    """

    def __init__(
        self, owner: Owner, asked: Subscribe, desk: Desk, channel: str, wall: Callable[[], float], wanted: Wanted
    ) -> None:
        super().__init__(owner, asked, desk, channel, wall)
        self._wanted = wanted
        self._looked = 0  # up to this number all that lives was looked at
        self._found: dict[int, tuple[int, int]] = {}  # number → order, of what is wanted and still lives
        self._again = 0.0  # when to look at all of them once more: some may have been kicked back from the dead letters

    async def _run(self) -> None:
        async with self._desk.watch(self._channel) as self._watch:
            await super()._run()

    async def _fetch(self, limit: int) -> list[Held]:
        loop = asyncio.get_running_loop()
        while not self._desk.stopping.is_set():
            if await self._watch.prepare():
                await self._look()
                full = len(self._found) >= _WINDOW
                if taken := await self._take(limit):
                    return taken
                if full and len(self._found) < _WINDOW:
                    continue  # some were gone: there is room to look further
            if await self._watch.wait() and loop.time() >= self._again:
                self._looked, self._again = 0, loop.time() + _AGAIN
        return []

    async def _look(self) -> None:
        while len(self._found) < _WINDOW and (page := await self._desk.browse(self._channel, self._looked)):
            for seen in page:
                facts = selectable(seen.headers, message_id=seen.id, rank=seen.rank, arrived=self._wall() - seen.age)
                if self._wanted(facts):
                    self._found[seen.number] = (seen.rank, seen.number)
            self._looked = page[-1].number

    async def _take(self, limit: int) -> list[Held]:
        taken: list[Held] = []
        for number in sorted(self._found, key=self._found.__getitem__):
            if self._desk.held(number) is not None:
                continue
            seen = await self._desk.find(number)
            if seen is None:
                del self._found[number]  # it was consumed, or is over
            elif seen.state is State.READY or (seen.state is State.DELAYED and (seen.due_in or 0.0) <= 0):
                held = await self._desk.reserve_number(number)
                if held is not None:
                    taken.append(held)
            if len(taken) >= limit:
                break
        return taken


class DurablePump(QueuePump):
    """A durable subscription to a topic: a queue of its own, in which nothing is for anybody else. So what its selector
    does not want is done with.
    """

    def __init__(
        self, owner: Owner, asked: Subscribe, desk: Desk, channel: str, wall: Callable[[], float], wanted: Wanted | None
    ) -> None:
        super().__init__(owner, asked, desk, channel, wall)
        self._wanted = wanted

    async def _fetch(self, limit: int) -> list[Held]:
        while True:
            held = await super()._fetch(limit)
            mine, others = list[Held](), list[Held]()
            for one in held:
                (mine if self._wanted is None or self._wanted(self._facts(one)) else others).append(one)
            if others:
                try:
                    await self._desk.settle(*(one.acked() for one in others))
                except BaseException:
                    await asyncio.shield(self._desk.settle(*(one.released(counted=False) for one in mine)))
                    raise
            if mine or not held:
                return mine

    def _facts(self, one: Held) -> dict[str, str]:
        return selectable(one.headers, message_id=one.id, rank=one.rank, arrived=self._wall() - one.age)


class TopicPump(Pump):
    """What is published from now on."""

    def __init__(
        self, owner: Owner, asked: Subscribe, wanted: Wanted | None, topics: Topics, topic: str, most: int
    ) -> None:
        super().__init__(owner, asked)
        self._wanted, self._topics, self._topic = wanted, topics, topic
        self._listener = topics.listen(topic, most, self._more)  # before the receipt of SUBSCRIBE is written

    async def _run(self) -> None:
        try:
            while True:
                self._more.clear()
                if self._listener.behind:
                    raise ProtocolError(
                        f"the subscription {self._asked.id[:80]!r} to {self._asked.destination} fell behind (option "
                        "'max_behind'): read or acknowledge faster"
                    )
                taken = self._listener.take(min(_AT_ONCE, self._owner.session.credit(self._asked.id)))
                if not taken:
                    await self._more.wait()
                    continue
                frames = [self._frame(one) for one in taken if self._wanted is None or self._wanted(self._facts(one))]
                await self._owner.write(b"".join(frames))
        finally:
            self._topics.leave(self._topic, self._listener)

    def _facts(self, one: Published) -> dict[str, str]:
        return selectable(one.headers, message_id=one.id, rank=one.rank, arrived=one.at)

    def _frame(self, one: Published) -> bytes:
        headers = message_headers(self._asked.destination, one.headers, one.content_type,
                                  rank=one.rank, attempt=1, arrived=one.at)  # fmt: skip
        return self._owner.session.deliver(self._asked.id, one, one.id, headers, one.body)
