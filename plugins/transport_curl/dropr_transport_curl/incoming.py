"""A request's body as it comes in: what of it is still to come, its place, and how fast it is.

Owns reading from ASGI's ``receive``. Must not know who may ask, nor what is done with the request (asgi.py).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from dropr_core.errors import Refused
from dropr_core.system.request_room import Place
from dropr_transport_curl.filling import Gone

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Slow(Exception):
    """The caller sends too slowly."""


class Incoming:
    """A request's body as it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.more = True
        """Whether any of it may still come."""
        self._place: Place | None = None
        self.lost: Refused | None = None
        """Why a long request has no place any more."""

    def takes(self, place: Place) -> None:
        """A long request takes its place, or waits for it."""
        self._place = place

    def came(self, count: int) -> None:
        """So many bytes came."""
        if self._place is not None:
            self._place.came(count)

    def complete(self) -> None:
        """It is here as a whole."""
        if self._place is not None:
            self._place.complete()

    def leave(self) -> None:
        """It was answered or given up; safe twice."""
        if self._place is not None:
            self._place.leave()

    async def next(self) -> bytes:
        """The next bytes. Raises Gone."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        self.more = message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def pause(self, seconds: float) -> None:
        """Let the caller wait. Raises Gone, at once if the request is here as a whole; of the rest nothing is read."""
        if self.more:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self.next()
        except TimeoutError:
            pass


class Pace:
    """How fast a request comes in: ends ``limit`` when nothing came for a while, or too little."""

    def __init__(self, incoming: Incoming, limit: asyncio.Timeout, idle: float, min_rate: float, window: float) -> None:
        self._incoming = incoming
        self._limit, self._idle, self._min_rate, self._window = limit, idle, min_rate, window
        self._loop = asyncio.get_running_loop()
        self._since, self._came = self._loop.time(), 0
        self.slow = False

    def moved(self, count: int) -> None:
        """So many bytes came."""
        now = self._loop.time()
        self._came += count
        self._incoming.came(count)
        if now - self._since >= self._window:
            self.slow |= self._came < self._min_rate * (now - self._since)
            self._since, self._came = now, 0
        if self.slow or self._incoming.lost:
            set_end(self._limit, now)
        elif count:  # nothing is no progress
            set_end(self._limit, now + self._idle)


def set_end(limit: asyncio.Timeout, when: float) -> None:
    """Let a limit end then. One that is ending, or has been left, stays as it is: whoever tells it so may be another
    request, which that is no concern of.
    """
    with contextlib.suppress(RuntimeError):  # what `reschedule` raises then
        limit.reschedule(when)
