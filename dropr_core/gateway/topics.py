"""What connections do with topics.

Owns that a gateway process copies as soon as there is something to copy. Who subscribes to what stands in
api/subscriptions.py, a subscription's messages are in a channel like all others. Must not know dialects.
"""

import asyncio
from collections.abc import Callable, Iterable

from dropr_core.api.runtime import Runtime
from dropr_core.api.sender import Sender
from dropr_core.api.subscriptions import Subscriptions, channel_of
from dropr_core.errors import UsageError


class Topics:
    """Of one process; lives in the event loop."""

    def __init__(self, runtime: Runtime, sender: Sender, copy: Callable[[], None]) -> None:
        """``copy``: called when there may be topics; safe again and again."""
        self._subscriptions = Subscriptions(runtime)
        self._sender, self._copy = sender, copy

    def known(self, names: Iterable[str]) -> frozenset[str]:
        """Those that can be published on. Costs a look at a file's date. Raises StoreError."""
        mine = self._subscriptions.topics()
        if mine:
            self._copy()
        return frozenset(name for name in names if name in mine or self._subscriptions.is_sent(name))

    def check(self, names: Iterable[str]) -> None:
        """Raises UsageError for a topic that nobody knows."""
        wanted = set(names)
        for name in sorted(wanted - self.known(wanted)):
            raise UsageError(f"no topic {name!r}: name it under `topics:`, or subscribe to it first")

    async def subscribe(self, topic: str, name: str, at: str | None) -> str:
        """See `Desk`."""
        channel = await asyncio.to_thread(self._subscriptions.join, self._sender, topic, name, at)
        self._copy()
        return channel

    async def unsubscribe(self, topic: str, name: str, at: str | None) -> tuple[str, int]:
        """The channel, and how many messages in it were ready and are gone."""
        gone = await asyncio.to_thread(self._subscriptions.leave, self._sender, topic, name, at)
        return channel_of(topic, name), gone


__all__ = ["Topics"]
