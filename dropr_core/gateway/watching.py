"""Waiting for news in a channel without taking anything.

Owns `ChannelWatch`: for dialects that choose among what waits, instead of taking what comes first. Lives in the event
loop. Must not know what is waited for.
"""

import asyncio
from types import TracebackType
from typing import Self

from dropr_core.gateway.hub import Hub


class ChannelWatch:
    """See `Watch` of the contract."""

    def __init__(self, hub: Hub, channel: str) -> None:
        self._hub, self._channel = hub, channel
        self._news = asyncio.Event()
        self._patience = 0.0

    async def prepare(self) -> bool:
        """See the contract."""
        self._news.clear()
        hub, channels = self._hub, (self._channel,)
        new, self._patience, unpaused = await hub.change(
            lambda: (*hub.claimer.listen(channels), hub.runtime.pauses.unpaused(channels))
        )
        for channel, subscription in new:
            hub.waiting.watch(channel, subscription.fileno(), subscription.drain)
        return bool(unpaused)

    async def wait(self) -> bool:
        """See the contract."""
        if self._hub.stopping.is_set():
            return False
        refused = self._hub.claimer.refused_for(self._channel)
        if refused is not None and refused > 0:  # a moment that is over was of an earlier look
            self._patience = min(self._patience, refused)
        try:
            async with asyncio.timeout(self._patience):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def __aenter__(self) -> Self:
        self._hub.waiting.tell(self._channel, self._news)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.waiting.tell_no_more(self._channel, self._news)
