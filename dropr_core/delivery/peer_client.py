"""One node's talk with one peer: sealing requests, verifying answers, keeping the session.

Owns keys in use, session token and counter. Must not know what is asked or why. An answer that
does not verify is no answer: the caller gets Unanswered, as if nothing had come back.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import msgspec

from dropr_core.contracts.transport import Connection, Tail
from dropr_core.errors import BadFrame, DroprError, Refused, TransportError, Unanswered
from dropr_core.model.limits import MAX_ANSWER
from dropr_core.protocol import greeting
from dropr_core.protocol import messages as wire
from dropr_core.protocol.access import UNSIGNED_KEY
from dropr_core.protocol.frames import ANSWER, OK, REQUEST, FrameHeader, open_body, read_head, request_id, seal, verify
from dropr_core.protocol.rests import NEW_SESSION, OLD_SESSION

_T = TypeVar("_T")


class PeerClient:
    """Asks one peer. Used by one thread; answers are posted back to it."""

    def __init__(
        self,
        node: str,
        peer: str,
        keys: Sequence[bytes],
        connect: Callable[[], Connection],
        post: Callable[[Callable[[], None]], None],
        idle: float,
        note: Callable[[object], None] = lambda _result: None,
    ) -> None:
        """``note``: told of each answer or error, before whoever asked is."""
        self._node, self._peer = node, peer
        self._keys = list(keys) or [UNSIGNED_KEY]
        self._connect = connect
        self._connection: Connection | None = None
        self._post = post
        self._idle = idle
        self._note = note
        self._counter = 0
        self.session = b""
        self.under_way = 0

    def ask(
        self,
        verb: str,
        value: msgspec.Struct,
        shape: type[_T],
        done: Callable[[_T | Exception], None],
        *,
        wait: float = 0.0,
        tail: Tail | None = None,
    ) -> None:
        """Ask, and later call ``done`` in the owner's thread with the answer or what went wrong.

        ``wait``: seconds that the peer may keep the request on top of the idle time-out. ``tail``: follows
        the value, which vouches for it.
        What goes wrong is a TransportError or Refused.
        """
        self._counter += 1
        header = FrameHeader(
            sender=self._node,
            receiver=self._peer,
            request=request_id(),
            verb=verb,
            digest=b"",
            session=self.session,
            counter=self._counter,
        )
        key = self._keys[0]
        frame, mac = seal(REQUEST, header, wire.encode(value), key, 0 if tail is None else tail.size)

        def finish(future: "Future[bytes]") -> None:
            self.under_way -= 1
            try:
                result: _T | Exception = self._read(future.result(), header, mac, key, shape)
            except DroprError as error:
                result = self._classify(error, header.session)
            except Exception as error:
                result = Unanswered(f"the transport broke its contract: {type(error).__name__}: {error}")
            self._note(result)
            done(result)

        self.under_way += 1
        try:
            if self._connection is None:
                self._connection = self._connect()
            if tail is None:
                future = self._connection.ask(frame, idle=self._idle + wait)
            else:
                future = self._connection.ask_long(frame, tail, idle=self._idle + wait)
        except Exception as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda ready: self._post(lambda: finish(ready)))

    def _read(self, data: bytes, asked: FrameHeader, mac: bytes, key: bytes, shape: type[_T]) -> _T:
        try:
            head = read_head(data, MAX_ANSWER)
            header = head.header
            fits = (
                head.kind == ANSWER
                and header.sender == asked.receiver
                and header.receiver == asked.sender
                and header.request == asked.request
                and header.verb == asked.verb
                and header.proof == mac
            )
            if not fits or verify(head, [key]) is None:
                raise Unanswered("the answer does not verify: it is not this peer's answer to this request")
            body, _tail = open_body(head, data)
            if header.status != OK:
                text = bytes(body[:500]).decode("utf-8", "replace")
                raise Refused(header.status, text, signed=True)
            value = wire.decode(body, shape)
        except BadFrame as error:
            raise Unanswered(f"unreadable answer: {error}") from None
        if isinstance(value, wire.Welcome):
            greeting.check(self._node, self._peer, value)
        return value

    def _classify(self, error: DroprError, session: bytes) -> Exception:
        if isinstance(error, Refused):
            if error.signed and error.code == NEW_SESSION and session != self.session:
                # Asked before the last hello was answered: no reason for another one.
                return Refused(OLD_SESSION, error.reason, signed=True)
            if error.code in {"bad_signature", "unauthorized", "unknown_peer"} and len(self._keys) > 1:
                # During a rotation the peer may know only the other one of the two keys.
                self._keys.append(self._keys.pop(0))
            return error
        return error if isinstance(error, TransportError) else Unanswered(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Give up what is under way; safe twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception:  # a plug-in's bug harms its own peer only: the others must be closed as well
                logging.getLogger("dropr.daemon").exception("%s: the transport raised in close", self._peer)
