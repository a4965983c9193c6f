"""What became of messages that were put here, and who waits to hear of it.

Owns the answers: of messages for peers from the outbox, of those of this node's own inbox from its outcome log, which
this process reads as a peer would. Must not know connections.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from dropr_core.api.runtime import Runtime
from dropr_core.contracts.parcels import Fate
from dropr_core.errors import WriteFailed
from dropr_core.gateway.looking import LIVE
from dropr_core.model import topics
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, StoreId
from dropr_core.model.states import ENDED, of_message
from dropr_core.system.notifier import LOOK_AGAIN, Subscription

REMEMBERED = 10_000
"""Outcomes of local messages that are kept for who asks later."""


class Receipts:
    """For the event loop; the store is read in a thread, one look at a time."""

    def __init__(
        self,
        runtime: Runtime,
        loop: asyncio.AbstractEventLoop,
        read: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._runtime, self._loop, self._read = runtime, loop, read
        self._waiting: dict[MessageId, set[asyncio.Future[Fate | None]]] = {}
        self._local: OrderedDict[MessageId, Fate] = OrderedDict()
        self._log: StoreId | None = None
        self._cursor = 0
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def status(self, identity: MessageId) -> Fate | None:
        """What is known of a message now."""
        found: dict[MessageId, Fate | None] = await self._read(lambda: self._look([identity]))
        return found[identity]

    async def wait(self, identity: MessageId, patience: float | None) -> Fate | None:
        """Wait until it has ended, at most ``patience`` seconds; what is known then."""
        future: asyncio.Future[Fate | None] = self._loop.create_future()
        self._waiting.setdefault(identity, set()).add(future)
        self._news.set()
        if self._task is None:
            self._task = self._loop.create_task(self._watch())
        timer = None if patience is None else self._loop.call_later(patience, _in_vain, future)
        try:
            fate = await future
        finally:
            if timer is not None:
                timer.cancel()
            waiting = self._waiting.get(identity)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[identity]
        return await self.status(identity) if fate is None else fate

    async def _watch(self) -> None:
        """Look for those who wait, whenever something ended; sleep while nobody waits."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                identities = list(self._waiting)
                try:
                    found = await self._read(partial(self._look, identities, listen=True))
                    self._hear()
                except Exception as error:
                    for futures in self._waiting.values():
                        for future in futures:
                            if not future.done():
                                future.set_exception(error)
                    break
                for identity, fate in found.items():
                    for future in self._waiting.get(identity, ()):
                        if not future.done() and (fate is None or fate.ended):
                            future.set_result(fate)
                if set(self._waiting) <= set(identities):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_AGAIN):
                            await self._news.wait()
                    self._news.clear()

    def _hear(self) -> None:
        """Watch the subscription that the first look has made."""
        subscription = self._subscription
        if subscription is None:
            return

        def readable() -> None:
            subscription.drain()
            self._news.set()

        self._loop.add_reader(subscription.fileno(), readable)

    # ── in a thread ──────────────────────────────────────────────────────────────────────────────

    def _look(self, identities: Iterable[MessageId], *, listen: bool = False) -> dict[MessageId, Fate | None]:
        runtime = self._runtime
        if listen:
            if self._subscription is None:
                with contextlib.suppress(WriteFailed):
                    self._subscription = runtime.notifier.subscribe(topics.RECEIPTS, topics.outcomes(runtime.name))
            if self._subscription is not None:
                self._subscription.prepare()
        found = {identity: self._sent(identity) for identity in identities}
        if any(fate is None for fate in found.values()):
            self._read_outcomes()
            for identity, fate in found.items():
                if fate is None:
                    found[identity] = self._local.get(identity) or self._here(identity)
        return found

    def _sent(self, identity: MessageId) -> Fate | None:
        found = self._runtime.storage.outbox.status(identity)
        if not found:
            return None
        receipt = any(one.receipt for one in found)
        through = ENDED if receipt else ENDED | {State.ACCEPTED}
        with_result = next((one for one in found if one.result is not None), None)
        return Fate(
            state=of_message([one.state for one in found], receipt=receipt),
            ended=all(one.state in through for one in found),
            reason="; ".join(f"{one.peer}: {one.reason}" for one in found if one.reason),
            result=None if with_result is None else with_result.result,
            result_type="" if with_result is None else with_result.result_type,
        )

    def _read_outcomes(self) -> None:
        inbox, name = self._runtime.storage.inbox, self._runtime.name
        while True:
            log, rows = inbox.outcomes(name, self._log, self._cursor, 1000)
            self._log = log
            for row in rows:
                self._cursor = max(self._cursor, row.number)
                self._local[row.id] = Fate(
                    state=row.state, ended=True, reason=row.reason, result=row.result, result_type=row.content_type
                )
                self._local.move_to_end(row.id)
            while len(self._local) > REMEMBERED:
                self._local.popitem(last=False)
            if len(rows) < 1000:
                return

    def _here(self, identity: MessageId) -> Fate | None:
        here = self._runtime.storage.inbox.status(identity)
        if here is None:
            return None
        return Fate(state=here.state, ended=here.state not in LIVE or here.state is State.BURIED, reason=here.reason)

    def close(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._loop.remove_reader(subscription.fileno())
            subscription.close()


def _in_vain(future: "asyncio.Future[Fate | None]") -> None:
    if not future.done():
        future.set_result(None)
