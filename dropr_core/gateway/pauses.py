"""Channels whose consumers rest.

Owns which they are and until when, in this process. Must not know who waits for messages.
"""

import asyncio
import math
from collections.abc import Callable


class Pauses:
    """For the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, over: Callable[[str], None]) -> None:
        """``over`` is called with a channel when its pause has ended."""
        self._loop, self._over = loop, over
        self._until: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def pause(self, channel: str, seconds: float | None) -> None:
        """Begin a pause, or begin it anew."""
        self._stop_clock(channel)
        if seconds is None:
            self._until[channel] = math.inf
        elif seconds > 0:
            self._until[channel] = self._loop.time() + seconds
            self._timers[channel] = self._loop.call_later(seconds, self.resume, channel)
        else:
            self.resume(channel)

    def resume(self, channel: str) -> None:
        """End it."""
        self._stop_clock(channel)
        if self._until.pop(channel, None) is not None:
            self._over(channel)

    def open(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Those that do not rest."""
        return tuple(name for name in channels if name not in self._until) if self._until else channels

    def rests(self) -> dict[str, float]:
        """Channel → seconds that are left."""
        now = self._loop.time()
        return {channel: max(0.0, until - now) for channel, until in self._until.items()}

    def _stop_clock(self, channel: str) -> None:
        timer = self._timers.pop(channel, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Forget everything."""
        for channel in list(self._timers):
            self._stop_clock(channel)
        self._until.clear()
