"""A connection's own verbs over the node.

Owns `NodeDesk`: what it holds, and that it ends with its connection. Everything else is the hub's.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs

from dropr_core.contracts.desk import Change, Desk, Held, Watch
from dropr_core.contracts.parcels import Counts, Fate, Parcel, Placed, Seen, Upload
from dropr_core.errors import Closed, StoreError
from dropr_core.gateway.budget import Budget
from dropr_core.gateway.held import HeldMessage, read_handle
from dropr_core.gateway.hub import Hub
from dropr_core.gateway.watching import ChannelWatch
from dropr_core.model.message import State
from dropr_core.model.names import check_channel, parse_id
from dropr_core.system.log_fields import about


class NodeDesk:
    """See `Desk` of the contract."""

    def __init__(self, hub: Hub, peer: str, budget: Budget, *, large: bool = False) -> None:
        """``budget``: that of its gateway. ``large``: its dialect takes large bodies as files."""
        self._hub, self.peer, self._budget, self._large = hub, peer, budget, large
        self.node, self.stopping = hub.runtime.name, hub.stopping
        self._mine: dict[int, HeldMessage] = {}
        self._closed = self._hurried = False

    # ── for the hub ──────────────────────────────────────────────────────────────────────────────

    def takes(self, held: HeldMessage) -> None:
        """It was handed out to this desk."""
        self._mine[held.number] = held

    @property
    def closed(self) -> bool:
        """Whether its connection has ended: it can be given nothing more."""
        return self._closed

    def lost(self, held: HeldMessage) -> None:
        """It is settled, or its time is over."""
        if self._mine.get(held.number) is held:
            del self._mine[held.number]

    @property
    def busy(self) -> bool:
        """Whether it holds anything."""
        return bool(self._mine)

    def hurry(self) -> None:
        """Nobody listens any more, or will say anything new: what was asked is answered, and nothing waits."""
        self._hurried = True
        self._hub.waiting.hurry(self)

    async def close(self, *, counted: bool = True) -> None:
        """Its connection has ended: so do its leases, at once."""
        if self._closed:
            return
        self._closed = True
        self._hub.waiting.leave(self)
        reason = "its connection has ended" if counted else ""
        changes = [held.released(counted=counted, reason=reason) for held in self._mine.values() if not held.settled]
        if changes:
            try:
                await self._hub.settle(changes)
            except StoreError as error:
                self._hub.log.warning("%s left %d leases, which end later: %s", self.peer, len(changes), error,
                                      extra=about(caller=self.peer))  # fmt: skip
                self._hub.spawn(self._hub.insist(changes))

    def _check(self) -> None:
        if self._closed:
            raise Closed("the connection of this desk has ended")

    # ── the verbs ────────────────────────────────────────────────────────────────────────────────

    async def put(self, *parcels: Parcel) -> list[Placed]:
        """See the contract."""
        self._check()
        if not parcels:
            return []
        async with self._budget.spend(sum([len(parcel.body) for parcel in parcels])):
            return await self._hub.put(parcels, self)

    def put_soon(self, parcels: Sequence[Parcel], done: Callable[[Any], None]) -> bool:
        """See the contract."""
        self._check()
        budget, size = self._budget, sum([len(parcel.body) for parcel in parcels])
        if not budget.take(size):
            return False

        def stored(result: Any) -> None:
            budget.give(size)
            done(result)

        begun = False
        try:
            begun = self._hub.put_soon(parcels, stored, self)
        finally:
            if not begun:
                budget.give(size)
        return begun

    async def publish(self, *parcels: Parcel) -> list[Placed]:
        """See the contract."""
        self._check()
        self._hub.topics.check({parcel.channel for parcel in parcels})
        return await self.put(*parcels)

    async def topics(self, *names: str) -> frozenset[str]:
        """See the contract."""
        return self._hub.topics.known(names)

    async def subscribe(self, topic: str, name: str, at: str | None = None) -> str:
        """See the contract."""
        self._check()
        return await self._hub.topics.subscribe(topic, name, at)

    async def unsubscribe(self, topic: str, name: str, at: str | None = None) -> int:
        """See the contract."""
        self._check()
        channel, gone = await self._hub.topics.unsubscribe(topic, name, at)
        return gone + await self.purge(channel)  # what is delayed or buried

    def upload(self) -> AbstractAsyncContextManager[Upload]:
        """See the contract."""
        self._check()
        return self._hub.upload()

    async def reserve(
        self, channels: Iterable[str], *, limit: int = 1, wait: float | None = 0.0, hold: float | None = None
    ) -> list[Held]:
        """See the contract."""
        names = self._names(channels)
        if not names or limit < 1:
            return []
        patience = 0.0 if self._hurried else wait
        self._hub.comes(self)
        got = await self._hub.waiting.get(self, names, limit, patience, large=self._large)
        if hold is not None:
            for held in got:
                held.begin(hold)
        return list[Held](got)

    def reserve_soon(self, channels: Iterable[str], limit: int, done: Callable[[Any], None]) -> None:
        """See the contract."""
        self._hub.comes(self)
        self._hub.waiting.soon(self, self._names(channels), limit, done, large=self._large)

    def _names(self, channels: Iterable[str]) -> tuple[str, ...]:
        self._check()
        names = tuple(dict.fromkeys(channels))
        for name in names:
            if name not in self._hub.runtime.config.channels:
                check_channel(name)
        return names

    async def reserve_number(self, number: int, *, hold: float | None = None) -> Held | None:
        """See the contract."""
        self._check()
        hub = self._hub

        def claim() -> Any:
            found = hub.meddling.reserve_number(number)
            if found is None and hub.meddling.leased(number):  # perhaps by a process that died
                hub.claimer.reap()
                found = hub.meddling.reserve_number(number)
            return None if found is None else hub.claimer.ready(found, large=self._large)

        held = await hub.claim_for(self, claim)
        if held is not None and hold is not None:
            held.begin(hold)
        return held

    async def settle(self, *changes: Change) -> list[bool]:
        """See the contract."""
        return await self._hub.settle(changes)

    def settle_soon(self, changes: Sequence[Change], done: Callable[[Any], None]) -> None:
        """See the contract."""
        self._hub.settle_soon(changes, done)

    def held(self, number: int) -> Held | None:
        """See the contract."""
        held = self._mine.get(number)
        return None if held is None or held.settled else held

    async def by_handle(self, handle: str) -> Held | None:
        """See the contract."""
        said = read_handle(handle)
        if said is None:
            return None
        held = self._hub.held.get(said.number)
        if held is not None:
            return held if held.handle == handle and not held.settled else None
        seen = await self.find(said.number)
        if seen is None or parse_id(seen.id) != said.id:
            return None
        # One less: that process gave it back as it ended, and the attempt did not count.
        if seen.attempts not in (said.attempt, said.attempt - 1):
            return None
        return await self.reserve_number(said.number, hold=OLD_HANDLE)

    async def find(self, number: int) -> Seen | None:
        """See the contract."""
        return self._with_deadline(await self._hub.read(lambda: self._hub.looking.find(number, large=self._large)))

    async def find_id(self, message_id: str) -> Seen | None:
        """See the contract."""
        identity = parse_id(message_id)
        return self._with_deadline(await self._hub.read(lambda: self._hub.looking.find_id(identity, large=self._large)))

    async def peek(self, channel: str, state: State = State.READY) -> Seen | None:
        """See the contract."""
        return self._with_deadline(
            await self._hub.read(lambda: self._hub.looking.peek(channel, state, large=self._large))
        )

    async def browse(self, channel: str, after: int = 0, limit: int = 100) -> list[Seen]:
        """See the contract."""
        found: list[Seen] = await self._hub.read(lambda: self._hub.looking.browse(channel, after, limit))
        return found

    def watch(self, channel: str) -> Watch:
        """See the contract."""
        return ChannelWatch(self._hub, check_channel(channel))

    def _with_deadline(self, seen: Seen | None) -> Seen | None:
        held = None if seen is None else self._hub.held.get(seen.number)
        if seen is None or held is None or held.deadline is None:
            return seen
        return attrs.evolve(seen, ends_in=max(0.0, held.deadline - self._hub.loop.time()))

    async def delete(self, number: int) -> bool:
        """See the contract."""
        mine = self.held(number)
        if mine is not None:
            return await mine.ack()
        return bool(await self._hub.change(lambda: self._hub.meddling.delete(number)))

    async def kick(self, channel: str, bound: int) -> int:
        """See the contract."""
        return int(await self._hub.change(lambda: self._hub.meddling.kick(channel, bound)))

    async def kick_number(self, number: int) -> bool:
        """See the contract."""
        return bool(await self._hub.change(lambda: self._hub.meddling.kick_number(number)))

    async def purge(self, channel: str) -> int:
        """See the contract."""
        return int(await self._hub.change(lambda: self._hub.meddling.purge(channel)))

    async def pause(self, channel: str, seconds: float | None = None) -> None:
        """See the contract."""
        pauses = self._hub.runtime.pauses
        await self._hub.change(lambda: pauses.pause(check_channel(channel), seconds))

    async def resume(self, channel: str) -> None:
        """See the contract."""
        await self._hub.change(lambda: self._hub.runtime.pauses.unpause(channel))

    async def channels(self) -> list[str]:
        """See the contract."""
        return list(await self.counts())

    async def counts(self) -> Mapping[str, Counts]:
        """See the contract."""
        found: dict[str, Counts] = await self._hub.read(self._hub.looking.counts)
        return found

    async def count(self, channel: str) -> Counts:
        """See the contract."""
        return (await self.counts()).get(channel, Counts())

    async def status(self, message_id: str) -> Fate | None:
        """See the contract."""
        return await self._hub.receipts.status(parse_id(message_id))

    async def wait_receipt(self, message_id: str, wait: float | None = None) -> Fate | None:
        """See the contract."""
        return await self._hub.receipts.wait(parse_id(message_id), wait)

    def connection(self, peer: str) -> AbstractAsyncContextManager[Desk]:
        """See the contract."""
        return opened(NodeDesk(self._hub, peer, self._budget, large=self._large))


OLD_HANDLE = 30.0
"""Seconds for which a message is held that was found by the handle of a lease of a process before."""


@asynccontextmanager
async def opened(desk: NodeDesk) -> AsyncGenerator[NodeDesk, None]:
    """A desk that is closed at the end, whatever happens."""
    try:
        yield desk
    finally:
        await desk.close(counted=not desk.stopping.is_set())
