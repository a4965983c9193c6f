"""The five minutes in which a FIFO queue takes a deduplication id once.

Owns `Window`: what was sent in that time, and what is being sent now. It is in memory; what a restart forgets is found
again through the deduplication of the node itself, for which a span of time becomes part of its text. Must not know
protocols.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import attrs

from dropr_core.contracts.gateway import Desk
from dropr_core.model.names import format_id, id_of_key

SECONDS = 300.0
_SPAN = 60.0
"""After a restart the window may be shorter by this: then a message is rather taken twice than lost."""
MOST = 200_000
"""Ids that are remembered. Of more in five minutes the oldest are left to the node's own deduplication."""


@attrs.frozen
class Known:
    """A message that was sent."""

    id: str
    number: int


Key = tuple[str, str]
"""The channel, and the id (with its group, where each group has ids of its own)."""


class Window:
    """What was sent in the last five minutes."""

    def __init__(self, now: Callable[[], float]) -> None:
        """``now``: node time, which goes on over restarts."""
        self._now = now
        self._started = now()
        self._sent: OrderedDict[Key, tuple[float, asyncio.Future[Known]]] = OrderedDict()

    def begin(self, key: Key) -> "tuple[asyncio.Future[Known], bool]":
        """The message of that id, which may be still on its way; True: it is the caller's to send, and to `settle`."""
        self._forget()
        found = self._sent.get(key)
        if found is not None:
            return found[1], False
        future: asyncio.Future[Known] = asyncio.get_running_loop().create_future()
        self._sent[key] = (self._now() + SECONDS, future)
        return future, True

    def settle(self, key: Key, known: Known | None, error: BaseException | None = None) -> None:
        """It is stored; or it is not (None): then the id is free again."""
        found = self._sent.get(key)
        if found is None or found[1].done():
            return
        if known is not None:
            found[1].set_result(known)
            return
        del self._sent[key]
        if error is not None:
            found[1].set_exception(error)
            found[1].exception()  # most often nobody else waits for it
        else:
            found[1].cancel()

    def note(self, key: Key, known: Known, age: float) -> None:
        """A message is about to be deleted that was sent ``age`` seconds ago: perhaps before we were started."""
        if age < SECONDS and key not in self._sent:
            future: asyncio.Future[Known] = asyncio.get_running_loop().create_future()
            future.set_result(known)
            self._sent[key] = (self._now() + SECONDS - age, future)

    def text(self, key: Key) -> str:
        """What makes the node take it once in this span of time."""
        return _text(key, int(self._now() // _SPAN))

    def same_span(self, desk: Desk, key: Key) -> Known:
        """The message that the node knows by `text` now."""
        return Known(format_id(id_of_key(desk.node, key[0], self.text(key))), 0)

    @property
    def young(self) -> bool:
        """Whether a message of the last five minutes may have been sent before this process was started."""
        return self._now() - self._started < SECONDS

    async def before_restart(self, desk: Desk, key: Key) -> Known | None:
        """The message of that id sent before this process was started, if the node still knows it."""
        now = self._now()
        span = int(now // _SPAN)
        newest = min(span, int(self._started // _SPAN))  # what was sent since then is in memory
        for past in range(newest, span - int(SECONDS // _SPAN), -1):
            name = format_id(id_of_key(desk.node, key[0], _text(key, past)))
            seen = await desk.find_id(name)
            if seen is not None and seen.age < SECONDS:
                return Known(name, seen.number)
            if seen is None and await desk.status(name) is not None:
                return Known(name, 0)
        return None

    def _forget(self) -> None:
        now = self._now()
        while self._sent:
            key, (until, future) = next(iter(self._sent.items()))
            if not (until <= now or len(self._sent) > MOST) or not future.done():
                return
            del self._sent[key]


def _text(key: Key, span: int) -> str:
    return f"sqs\n{span}\n{key[1]}"
