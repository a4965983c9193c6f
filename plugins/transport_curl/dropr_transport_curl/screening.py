"""The first request of a connection from a penalised address, judged before anything is spent on it.

Owns looking at the first bytes of a connection without taking them, finding in them what the host judges a request by,
and those that wait for their first bytes. Who is refused here gets no answer and costs no HTTP, no task and no
buffer; who is admitted is served as everybody else, by who reads the same bytes again. Must not know why an address is
penalised, nor how a connection is served.
"""

import asyncio
import re
import socket
from collections.abc import Callable

import attrs

from dropr_core.contracts.transport import Answerer, Caller
from dropr_core.errors import Refused
from dropr_core.system.connections import Connections, Place

HTTP_HEAD = 2048
"""Bytes of an HTTP head that is looked at here; that of a node has about 200."""
FIRST_LOOK_AGAIN, LAST_LOOK_AGAIN = 0.01, 1.0
"""Seconds until a request is looked at again of which too little was there, the first time and at most."""
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)


_NO_KEY = frozenset({"unknown_peer", "bad_signature", "bad_invitation", "bad_frame"})
"""Who is refused with one of these codes is a stranger; others might be a peer, and shall be told."""


class Unjudged(Exception):
    """It cannot be told here whether the request would be admitted."""


def beginning(data: bytes, head_size: int) -> bytes | None:
    """Of the first bytes of a connection, those by which its request is judged; None: there are too few as yet.

    Raises Unjudged for anything but a POST with a length, as nodes send it.
    """
    if not b"POST /".startswith(data[:6]):
        raise Unjudged
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) >= HTTP_HEAD:
            raise Unjudged
        return None
    length = _LENGTH.search(data, 0, end + 2)
    if length is None:
        raise Unjudged
    size = min(head_size, int(length[1]))
    found = data[end + 4 : end + 4 + size]
    return found if len(found) == size else None


@attrs.define(eq=False)
class _Waiting:
    """A connection whose first request is not there yet."""

    line: socket.socket
    address: tuple[str, int]
    place: Place | None = None
    timer: asyncio.TimerHandle | None = None
    pause: float = FIRST_LOOK_AGAIN
    listening: bool = False


class Screening:
    """All such connections of one listener. In the event loop's thread."""

    def __init__(self, answerer: Answerer, connections: Connections, loop: asyncio.AbstractEventLoop,
                 refused: Callable[[str], None], passes: Callable[[str], bool],
                 serve: Callable[[socket.socket, str], None]) -> None:  # fmt: skip
        """``refused`` is told an address; ``passes`` says whether one not judged may come in, ``serve`` lets in."""
        self._answerer, self._connections, self._loop = answerer, connections, loop
        self._refused, self._passes, self._serve = refused, passes, serve
        self._most = HTTP_HEAD + answerer.head_size
        self._waiting: set[_Waiting] = set()

    def enter(self, line: socket.socket, address: tuple[str, int]) -> None:
        """A connection that does not block. Whatever becomes of it is decided here."""
        self._look(_Waiting(line, address))

    def close(self) -> None:
        """Cut off who waits; safe twice."""
        for one in list(self._waiting):
            self._end(one)

    def _look(self, one: _Waiting) -> None:
        try:
            data = one.line.recv(self._most, socket.MSG_PEEK)
            if data:
                head = beginning(data, self._answerer.head_size)
                if head is not None:
                    self._answerer.admit(head, Caller(f"{one.address[0]}:{one.address[1]}"))
        except BlockingIOError:
            self._wait(one, listen=True)
        except OSError:  # it has left
            self._turn_away(one)
        except (Refused, Unjudged) as error:
            if (isinstance(error, Refused) and error.code in _NO_KEY) or not self._passes(one.address[0]):
                self._turn_away(one)
            else:
                self._let_in(one)
        except Exception:  # a defect of the host: it is told where the request is served
            self._let_in(one)
        else:
            if not data:
                self._turn_away(one)
            elif head is None:
                self._wait(one, listen=False)
            else:
                self._let_in(one)

    def _wait(self, one: _Waiting, *, listen: bool) -> None:
        """Until something comes, or, if some of it is there, for a while: the rest does not wake anybody up."""
        if one.place is None:
            one.place = self._connections.enter(one.address[0], self._loop.time(), lambda: self._turn_away(one))
            self._waiting.add(one)
        if listen:
            self._listen(one, listen=True)
        else:
            self._listen(one, listen=False)
            one.timer = self._loop.call_later(one.pause, self._look, one)
            one.pause = min(LAST_LOOK_AGAIN, 2 * one.pause)

    def _listen(self, one: _Waiting, *, listen: bool) -> None:
        if listen and not one.listening:
            self._loop.add_reader(one.line, self._look, one)
        elif one.listening and not listen:
            self._loop.remove_reader(one.line)
        one.listening = listen

    def _let_in(self, one: _Waiting) -> None:
        self._forget(one)
        self._serve(one.line, one.address[0])

    def _turn_away(self, one: _Waiting) -> None:
        self._refused(one.address[0])
        self._end(one)

    def _end(self, one: _Waiting) -> None:
        self._forget(one)
        one.line.close()

    def _forget(self, one: _Waiting) -> None:
        """Neither its bytes nor its place matter here any more."""
        if one.place is None:
            return
        self._listen(one, listen=False)
        if one.timer is not None:
            one.timer.cancel()
        self._connections.leave(one.place)
        self._waiting.discard(one)
