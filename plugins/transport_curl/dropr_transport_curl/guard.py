"""uvicorn's HTTP protocol with the limits that it lacks.

Owns the limits on a request's head (time and size) and on answers that nobody reads, the way by which long bodies are
read straight into a buffer (filling.py), and the word that a connection's caller was admitted. Must not know what is
served, nor who is admitted.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dropr_core.system import tally
from dropr_core.system.whole_answers import WholeAnswers
from dropr_transport_curl.accepting import Visit
from dropr_transport_curl.asgi import ABORT, ADMITTED, REFUSED, UNSENT, WHOLE
from dropr_transport_curl.filling import EXTENSION, Filler

HEAD_SECONDS = 30.0
HEAD_BYTES = 16 << 10
Begin = Callable[[dict[str, Any], bytearray], bool]


class GuardedProtocol(HttpToolsProtocol):
    """One connection. A caller that dawdles over its headers, or sends endless ones, is cut off."""

    def __init__(self, visit: Visit, log: logging.Logger, begin: Begin, **kwargs: Any) -> None:
        """``log``: for what uvicorn says of each request; `quiet` makes one. ``begin``: given a request that came in
        one piece, before its task has its turn; whether it has taken it.
        """
        super().__init__(**kwargs)
        self._visit = visit
        self._begin = begin
        self._in_one_piece = False
        """So far the request at hand came in the same piece as its head, and nobody was called with it."""
        self.access_log = False
        self.logger = log
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From now on it is cut off through its transport. The time for its first head runs since it was accepted."""
        self._visit.transport = WholeAnswers(cast("asyncio.Transport", transport), self.loop)
        super().connection_made(self._visit.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._visit.left()
        self._stop_waiting()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head that does not end."""
        super().data_received(data)
        self._in_one_piece = False
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.abort()
            elif self._head_timer is None:
                self._wait_for_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete: the application has its own limits for the rest."""
        self._in_head = False
        self._stop_waiting()
        names = [name for name, _ in self.headers]
        extensions: dict[str, Any] = {
            ADMITTED: self._visit.admit, REFUSED: self._visit.refused,
            UNSENT: self.transport.get_write_buffer_size, ABORT: self.transport.abort,
        }  # fmt: skip
        if names.count(b"content-length") == 1 and b"transfer-encoding" not in names:
            extensions[EXTENSION] = self.fill
            self._in_one_piece = not self.expect_100_continue
        cast("dict[str, Any]", self.scope)["extensions"] = extensions
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is here; most often before the application is called, which then need not watch the clock."""
        scope = cast("dict[str, Any]", self.scope)
        scope["extensions"][WHOLE] = True
        super().on_message_complete()
        cycle = self.cycle
        if (
            self._in_one_piece and self._visit.admitted and not self.pipeline and cycle.scope is self.scope
            and self._begin(scope, cycle.body)
        ):  # fmt: skip
            cycle.body = bytearray()
        self._in_one_piece = False

    async def fill(self, view: memoryview, moved: Callable[[int], None]) -> None:
        """The ASGI extension: fill ``view`` with all that follows of the request's body. Raises Gone.

        ``moved`` is called with the bytes that came. The body must be exactly that long, as its head says.
        """
        cycle = self.cycle
        here, cycle.body = cycle.body, bytearray()
        cycle.message_event.clear()
        view[: len(here)] = here
        moved(len(here))
        if len(here) < len(view):
            filler = Filler(self, view[len(here) :], moved)
            self.transport.set_protocol(filler)
            self.flow.resume_reading()
            try:
                await filler.done
            finally:
                filler.give_up()
            # The parser has not seen these bytes, and waits for them: the next request gets another one.
            self.parser = httptools.HttpRequestParser(self)
        cycle.more_body = False

    def timeout_keep_alive_handler(self) -> None:
        """Hang up after idle time; but while a slow caller still reads its answer, look again later."""
        unread = self.transport.get_write_buffer_size()
        if unread and not self.transport.is_closing():
            if self._unread and unread >= self._unread:
                self.transport.abort()  # it took nothing since the last look
                return
            self._unread = unread
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            return
        super().timeout_keep_alive_handler()

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def quiet(log: logging.Logger, place: str) -> logging.Logger:
    """A log for one listener in which strangers cannot write a line with each request that is no HTTP."""
    return tally.quiet(log, place, "; whoever sends this speaks no HTTP, or https where http is meant")
