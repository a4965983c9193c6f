"""The asking side of one connection: a DEALER socket, its life, and the requests that go through it.

Owns the judgement between "nothing arrived" and "unknown": what was never handed to ZeroMQ over a
finished handshake is certain. Runs in the engine's thread. Must not know what a request means.
"""

import itertools
import logging
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic

import attrs

from dropr_core.errors import Closed, DroprError, Refused, Unanswered, Unreachable
from dropr_transport_zmq.dealer import Dealer
from dropr_transport_zmq.engine import Deadline
from dropr_transport_zmq.frames import (
    CHUNK,
    FIRST_WINDOW,
    OPENING,
    Head,
    Kind,
    OtherVersion,
    printable,
    read_refusal,
    unpack,
)  # fmt: skip
from dropr_transport_zmq.options import Options
from dropr_transport_zmq.stream import Malformed, Queue, Stream

_EVERY = 256
"""Messages that are read in one turn, so that one busy peer does not starve the others."""


@attrs.define(eq=False)
class Ask:
    """One request under way."""

    stream: Stream
    idle: float
    future: "Future[bytes]"
    moved: float
    handed: bool = False
    """Whether any of it was given to ZeroMQ, and may have arrived."""


class Asking:
    """All requests of one connection."""

    def __init__(self, dealer: Dealer, options: Options, log: logging.Logger) -> None:
        self._dealer, self._options, self._log = dealer, options, log
        self._url = dealer.url
        self._asked: dict[int, Ask] = {}
        self._numbers = itertools.count(1)
        self._queue = Queue()
        self._deadline = Deadline(dealer.engine, self._look)
        self._window = FIRST_WINDOW
        """What a request may begin with on this connection, as far as the listener has said."""
        self._large_answers = False
        """Whether an answer on this connection was larger than its first window."""
        self.closed = False
        self.ignored = 0
        """Messages that belong to no request, or are none."""
        dealer.on_ready, dealer.on_lost, dealer.on_failed = self._pump, self._lost, self._failed
        dealer.on_gone = self._gave_way
        dealer.on_readable, dealer.on_writable = self._read, self._pump

    def ask(self, request: bytes, idle: float, future: "Future[bytes]") -> None:
        """Take a request on."""
        if self.closed:
            future.set_exception(Closed(f"{self._url}: this connection is closed"))
            return
        stream = Stream(next(self._numbers))
        stream.begin_with(self._window)
        stream.send(Kind.ASK, request)
        if self._large_answers:
            stream.welcome()
        now = monotonic()
        self._asked[stream.number] = Ask(stream, idle, future, now)
        self._deadline.by(now + idle)
        self._queue.add(stream)
        if self._dealer.ready:
            self._pump()
        else:
            self._dealer.open()

    def close(self) -> None:
        """Give up everything; safe twice."""
        if not self.closed:
            self.closed = True
            self._dealer.park()
            self._end_all(lambda ask: self._unknown(ask, "the connection was closed before the answer came"))
            self._deadline.stop()

    # ── what goes out ────────────────────────────────────────────────────────────────────────────

    def _pump(self) -> None:
        if self._dealer.ready:
            self._dealer.want_room(not self._queue.run(self._dealer.send, self._sent))

    def _sent(self, stream: Stream) -> None:
        ask = self._asked.get(stream.number)
        if ask is not None:
            ask.handed, ask.moved = True, monotonic()

    # ── what comes in ────────────────────────────────────────────────────────────────────────────

    def _read(self) -> None:
        for _ in range(_EVERY):
            parts = self._dealer.receive(2)
            if parts is None:
                break
            try:
                head = unpack(parts[0].buffer) if len(parts) == 2 else None
            except OtherVersion:
                head = None
            ask = self._asked.get(head.request) if head is not None else None
            if head is not None and head.request == OPENING and head.kind == Kind.GRANT:
                self._window = head.number
                continue
            if head is None or ask is None:
                self.ignored += 1
                continue
            ask.moved = monotonic()
            try:
                self._understand(ask, head, parts[1].bytes)
            except Malformed as error:
                self._give_up(ask, f"the answer is malformed: {error}")
        if len(self._queue):
            self._pump()

    def _understand(self, ask: Ask, head: Head, payload: bytes) -> None:
        kind, stream = head.kind, ask.stream
        if kind == Kind.GRANT:
            stream.allow(head.number)
            self._queue.add(stream)
        elif kind in (Kind.ANSWER, Kind.MORE):
            if kind == Kind.ANSWER:
                if head.number > self._options.max_answer:
                    self._give_up(ask, f"the answer has {head.number} bytes, more than the option 'max_answer' allows")
                    return
                stream.begin(head.number)
                self._large_answers = self._large_answers or head.number > FIRST_WINDOW
            stream.take(0 if kind == Kind.ANSWER else head.number, payload)
            if stream.whole:
                self._end(ask, stream.collect())
                if stream.total > CHUNK:
                    word = Stream(stream.number)
                    word.say(Kind.TAKEN)
                    self._queue.add(word)
            else:
                stream.grant()
                self._queue.add(stream)
        elif kind == Kind.REFUSED:
            self._end(ask, Refused(*read_refusal(payload)))
        elif kind == Kind.FAILED:
            self._end(ask, Unanswered(f"{self._url}: {printable(payload, 300) or 'internal error of the peer'}"))
        elif kind == Kind.CLOSING:
            self._end(ask, Unreachable(f"{self._url}: the peer is closing and took nothing"))
        else:
            raise Malformed(f"a message of kind {kind}")

    # ── how requests end ─────────────────────────────────────────────────────────────────────────

    def _end(self, ask: Ask, result: bytes | DroprError) -> None:
        if self._asked.pop(ask.stream.number, None) is None:
            return
        ask.stream.drop()
        if isinstance(result, bytes):
            ask.future.set_result(result)
        else:
            ask.future.set_exception(result)

    def _give_up(self, ask: Ask, reason: str) -> None:
        """End a request, and tell the peer that nobody waits for it any more."""
        handed = ask.handed
        self._end(ask, self._unknown(ask, reason))
        if handed and self._dealer.ready:
            ask.stream.say(Kind.CANCEL)
            self._queue.add(ask.stream)
            self._pump()

    def _unknown(self, ask: Ask, reason: str) -> DroprError:
        text = f"{self._url}: {reason}"
        return Unanswered(text) if ask.handed else Unreachable(f"{text}; nothing of the request was sent")

    def _end_all(self, result: Callable[[Ask], DroprError]) -> None:
        for ask in list(self._asked.values()):
            self._end(ask, result(ask))

    def _look(self, now: float) -> float | None:
        again = None
        for ask in list(self._asked.values()):
            due = ask.moved + ask.idle
            if due <= now:
                if ask.handed:
                    what = f"nothing came or went for {ask.idle:g} s; the peer hangs, or the way to it is cut"
                elif self._dealer.ready:
                    what = f"the queue to the peer did not move for {ask.idle:g} s"
                else:
                    what = f"no connection within {ask.idle:g} s"
                self._give_up(ask, what)
            elif again is None or due < again:
                again = due
        return again

    # ── what the socket tells ────────────────────────────────────────────────────────────────────

    def _forget_windows(self) -> None:
        """The next connection may lead to a listener that allows less."""
        self._window, self._large_answers = FIRST_WINDOW, False
        for ask in self._asked.values():
            ask.stream.begin_with(FIRST_WINDOW)

    def _lost(self, reason: str) -> None:
        """A connection that stood is gone: what was handed over is unknown, the rest waits for the next one."""
        for ask in list(self._asked.values()):
            if ask.handed:
                self._end(ask, self._unknown(ask, reason))
        self._forget_windows()
        self._queue.clear()
        for ask in self._asked.values():
            self._queue.add(ask.stream)

    def _failed(self, error: DroprError) -> None:
        """There is no connection, and ZeroMQ's attempt to make one has failed."""
        self._queue.clear()
        self._forget_windows()
        self._end_all(lambda ask: self._unknown(ask, "the connection was lost") if ask.handed else error)
        self._dealer.park()

    def _gave_way(self) -> None:
        """The socket was put away: begin anew, if there is a reason to."""
        self._forget_windows()
        if self._asked:
            self._dealer.open()
