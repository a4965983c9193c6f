"""The subscriptions of one connection: how each begins, is fed, and ends.

Owns which kind of pump serves a SUBSCRIBE, and what becomes of what was delivered and not settled. The tasks of pumps
belong to the connection. Must not know sockets.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from dropr_core.contracts.gateway import Change, Desk
from dropr_core.errors import DroprError
from dropr_gateway_stomp import durable, events
from dropr_gateway_stomp.deliveries import DurablePump, Owner, Pump, QueuePump, SelectingPump, TopicPump
from dropr_gateway_stomp.frames import ProtocolError
from dropr_gateway_stomp.mapping import TEMPORARY, parse_destination
from dropr_gateway_stomp.selectors import BadSelector, compile_selector
from dropr_gateway_stomp.storing import Storing
from dropr_gateway_stomp.topics import Published, Ticket, Topics


class Subscribing:
    """Of one connection."""

    def __init__(
        self, owner: Owner, desk: Desk, storing: Storing, topics: Topics, wall: Callable[[], float], max_behind: int
    ) -> None:
        """``owner``: the connection, as its pumps see it."""
        self._owner, self._desk, self._storing, self._topics = owner, desk, storing, topics
        self._wall, self._max_behind = wall, max_behind
        self._pumps: dict[str, Pump] = {}
        self.client_id = ""
        """As CONNECT said it: part of the names of durable subscriptions."""

    def more(self) -> None:
        """Something was settled: there is room for more."""
        for pump in self._pumps.values():
            pump.more()

    def stop(self) -> None:
        """Nothing new is delivered."""
        for pump in self._pumps.values():
            pump.stop()

    async def subscribe(
        self, asked: events.Subscribe, receipt: str | None, group: asyncio.TaskGroup, *, stopping: bool
    ) -> None:
        """Begin one, in this group of tasks. Raises ProtocolError."""
        try:
            wanted = compile_selector(asked.selector) if asked.selector.strip() else None
        except BadSelector as error:
            raise ProtocolError(str(error), receipt) from None
        target = parse_destination(asked.destination)
        pump: Pump
        if target.kind == "topic":
            if durable.wanted(asked.headers):
                name = self._durable_name(asked.headers, receipt)
                with told(receipt):
                    channel = await self._desk.subscribe(target.name, name)
                pump = DurablePump(self._owner, asked, self._desk, channel, self._wall, wanted)
            else:
                pump = TopicPump(self._owner, asked, wanted, self._topics, target.name, self._max_behind)
        else:
            if target.name.startswith(TEMPORARY):
                raise ProtocolError("a temporary queue is read by the connection that made it", receipt)
            channel = self._storing.own_temporary(target) if target.kind == "temp-queue" else target.name
            if wanted is None:
                pump = QueuePump(self._owner, asked, self._desk, channel, self._wall)
            else:
                pump = SelectingPump(self._owner, asked, self._desk, channel, self._wall, wanted)
        self._pumps[asked.id] = pump
        pump.start(group)
        if stopping:
            pump.stop()

    def _durable_name(self, headers: Mapping[str, str], receipt: str | None) -> str:
        with told(receipt):
            return durable.subscription_name(headers, self.client_id)

    async def unsubscribe(self, asked: events.Unsubscribe[Ticket], receipt: str | None) -> None:
        """End one; a durable one for good. Raises ProtocolError."""
        if asked.id in self._pumps:
            await self._pumps.pop(asked.id).close()
        over = asked.destination.startswith("/topic/") and durable.wanted(asked.headers)
        if over:  # for good, with all that it has not read
            changes = [one.acked() for one in asked.unsettled if not isinstance(one, Published) and not one.settled]
        else:
            changes = give_back(asked.unsettled)
        if changes:
            await self._desk.settle(*changes)
        if over:
            with told(receipt):
                name = self._durable_name(asked.headers, receipt)
                await self._desk.unsubscribe(parse_destination(asked.destination).name, name)


@contextlib.contextmanager
def told(receipt: str | None) -> Iterator[None]:
    """What is wrong with a frame is told with the receipt that it asked for."""
    try:
        yield
    except DroprError as error:
        raise ProtocolError(str(error), receipt) from None
    except ProtocolError as error:
        error.receipt = error.receipt or receipt
        raise


def give_back(tickets: Sequence[Ticket]) -> list[Change]:
    """What was delivered and never settled goes back at once. The attempt counts for the oldest, on which the client
    was at work; to those behind it nothing has happened. One that ends so again and again gets the channel's backoff,
    and is buried in the end.
    """
    held = [one for one in tickets if not isinstance(one, Published) and not one.settled]
    changes = [one.released(counted=False) for one in held[1:]]
    for one in held[:1]:
        delay = 0.0 if one.attempt == 1 else None
        changes.append(one.released(delay, reason="the connection of its consumer ended before it was acknowledged"))
    return changes
