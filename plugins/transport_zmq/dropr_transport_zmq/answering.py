"""The answering side: messages of callers in, the host's answerer, messages out.

Owns the requests under way at one listener, their limits, and what is told to whom. Whatever comes in may
come from a stranger. Runs in the engine's thread. Must not know how the socket was opened (`door.py`).
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import monotonic

import zmq

from dropr_core.contracts.transport import Answerer
from dropr_core.errors import Closed, Refused
from dropr_core.system.request_room import RequestRoom
from dropr_transport_zmq.engine import Deadline, Engine, receive, send_now
from dropr_transport_zmq.frames import CHUNK, FIRST_WINDOW, VERSION, Head, Kind, OtherVersion, refusal, unpack
from dropr_transport_zmq.lines import Judged
from dropr_transport_zmq.options import Options
from dropr_transport_zmq.stream import Malformed, Stream
from dropr_transport_zmq.ways import UNREAD, Call, Openings, Way, way_of

_EVERY = 256
_TRY_AGAIN = 0.02
"""Seconds until a caller whose queue was full is tried again; only then does anything tick."""
_WORDS = 1000
"""Most messages that wait for one caller who reads nothing."""


class Answering:
    """All requests at one listener."""

    def __init__(self, engine: Engine, socket: "zmq.Socket[bytes]", place: str, answerer: Answerer,
                 options: Options, judged: Judged, log: logging.Logger) -> None:  # fmt: skip
        self._engine, self._socket, self._place = engine, socket, place
        self._answerer, self._options, self._log = answerer, options, log
        self._judged = judged
        self._ways: dict[bytes, Way] = {}
        self._blocked: deque[Way] = deque()
        self._count = 0
        self._room, self._openings = RequestRoom(options.max_held, engine.later), Openings(options.max_held)
        self._deadline = Deadline(engine, self._look)
        self._open = True
        self.closing = False
        self.on_idle: Callable[[], None] | None = None
        self.ignored = 0
        """Messages that were no messages of this protocol, or belonged to no request."""
        engine.watch(socket, self.read)

    @property
    def busy(self) -> bool:
        """Whether any request is under way."""
        return self._count > 0

    # ── what comes in ────────────────────────────────────────────────────────────────────────────

    def read(self, _events: int = 0) -> None:
        """Read what is there."""
        for _ in range(_EVERY):
            parts = receive(self._socket, 3) if self._open else None
            if parts is None:
                return
            try:
                self._message(parts)
            except Exception:  # nobody's message may stop the door
                self._log.exception("a message at %s met a defect", self._place)

    def _message(self, parts: "list[zmq.Frame]") -> None:
        identity = parts[0].bytes
        if len(parts) != 3:
            self.ignored += 1
            return
        try:
            head = unpack(parts[1].buffer)
        except OtherVersion:
            head = None
            if len(parts[1]) >= 10:  # whatever follows, a request's number stands here in every version
                word = refusal("version", f"this node speaks version {VERSION} of dropr over ZeroMQ")
                number = int.from_bytes(parts[1].bytes[2:10], "big")
                self._tell(self._way(identity, parts[1]), number, Kind.REFUSED, word)
                return
        if head is None:
            self.ignored += 1
            return
        way = self._way(identity, parts[1])
        call = way.calls.get(head.request)
        if call is None:
            if head.kind == Kind.ASK:
                self._begin(way, head, parts[2].bytes)
            elif head.kind == Kind.TAKEN:
                way.says_taken = True
                way.unread.pop(head.request, None)
                self._forget_if_quiet(way)
            else:  # the rest of a request that was refused or given up
                self.ignored += 1
                self._forget_if_quiet(way)
            return
        call.moved = monotonic()
        try:
            self._go_on(call, head, parts[2].bytes)
        except Malformed as error:
            self._refuse(call, "bad_frame", str(error))

    def _way(self, identity: bytes, frame: "zmq.Frame") -> Way:
        way = self._ways.get(identity)
        if way is None:
            way = self._ways[identity] = way_of(identity, frame, self._place)
        return way

    def _begin(self, way: Way, head: Head, payload: bytes) -> None:
        way.asks()
        if self.closing:
            self._tell(way, head.request, Kind.CLOSING)
            return
        if self._count >= self._options.max_requests or len(way.calls) >= self._options.max_waiting:
            self._tell(way, head.request, Kind.REFUSED, refusal("busy", "too many requests at once; try again later"))
            return
        if not self._judged.heard_out(way.fd):  # not even told: a flood is thrown away for as little as possible
            self.ignored += 1
            self._forget_if_quiet(way)
            return
        refused = self._admit(way, head, payload)
        if refused is not None:
            self._judged.refused(way.fd)
            self._tell(way, head.request, *refused)
            return
        now = monotonic()
        call = Call(way, Stream(head.request), now)
        try:
            self._find_place(call, head.number)
        except Refused as full:
            self._tell(way, head.request, Kind.REFUSED, refusal(full.code, full.reason))
            return
        way.calls[head.request] = call
        self._count += 1
        self._deadline.by(now + self._options.body_idle)
        try:
            call.stream.begin(head.number)
            self._take(call, 0, payload)
        except Malformed as error:
            self._refuse(call, "bad_frame", str(error))

    def _find_place(self, call: Call, size: int) -> None:
        """A long request is read on when there is room for it. Raises Refused."""
        if size <= CHUNK:
            return

        def granted() -> None:
            if call.place is not None:  # it has waited
                call.stream.grant()
                call.way.queue.add(call.stream)
                call.moved = monotonic()
                self._deadline.by(call.moved + self._options.body_idle)
                self._pump(call.way)

        def refused(full: Refused) -> None:
            self._refuse(call, full.code, full.reason)

        identity = call.way.identity
        call.place = self._room.place(identity, size, granted, refused, unasked=self._openings.window(identity))

    def _admit(self, way: Way, head: Head, payload: bytes) -> tuple[Kind, bytes] | None:
        """Judge a request by its first piece: the word that refuses it, or None.

        Its first piece is all that is needed for that, so nothing of a request is kept, and it takes no place, before
        it was admitted (docs/transports/zmq.md, "Admission").
        """
        size = min(self._answerer.head_size, head.number)
        if len(payload) > head.number:
            return Kind.REFUSED, refusal("bad_frame", f"its first piece has {len(payload)} bytes, it {head.number}")
        if len(payload) < size:
            return Kind.REFUSED, refusal("bad_frame", f"its first piece has {len(payload)} bytes; {size} are needed")
        try:
            length = self._answerer.admit(payload[:size], way.caller)
        except Refused as refused:
            return Kind.REFUSED, refusal(refused.code, refused.reason)
        except Exception:
            return self._defect(way)
        if length != head.number:
            text = f"the request says {length} bytes and has {head.number}"
            return Kind.REFUSED, refusal("bad_frame", text)
        if not self._judged.admit(way.fd):
            return Kind.REFUSED, refusal("busy", "too many connections at once; try again later")
        return None

    def _go_on(self, call: Call, head: Head, payload: bytes) -> None:
        if head.kind == Kind.MORE:
            if call.waits or call.stream.whole:
                raise Malformed("more bytes than the request has")
            self._take(call, head.number, payload)
        elif head.kind == Kind.GRANT:
            call.stream.allow(head.number)
            call.way.queue.add(call.stream)
            self._pump(call.way)
        elif head.kind == Kind.CANCEL:
            self._drop(call)
        else:
            raise Malformed(f"a message of kind {head.kind} within a request")

    def _take(self, call: Call, offset: int, payload: bytes) -> None:
        stream, place = call.stream, call.place
        stream.take(offset, payload)
        if place is not None:
            place.came(len(payload))
        if call.way.calls.get(stream.number) is not call:
            return  # it has lost its place by that
        if stream.whole:
            if place is not None:
                place.complete()
            self._answer(call)
        else:
            if place is None or place.reads:
                stream.grant()
            else:
                stream.show_movement()
            call.way.queue.add(stream)
            if stream.total > FIRST_WINDOW:  # else it would be a message for nothing
                self._open_window(call.way)
            self._pump(call.way)

    def _open_window(self, way: Way) -> None:
        """Let later requests of this caller begin with the full window, if it may be one of the few."""
        told, quiet = self._openings.use(way.identity, monotonic())
        if told is not None:
            way.queue.add(told)
        if quiet is not None:
            try:
                self._socket.send_multipart(quiet, zmq.NOBLOCK)
            except zmq.ZMQError:
                pass  # it has left, or reads nothing; what it sends unasked is counted anyway

    def _answer(self, call: Call) -> None:
        call.waits = True
        try:
            future = self._answerer.answer(call.stream.collect(), call.way.caller)
        except Refused as refused:
            self._refuse(call, refused.code, refused.reason)
            return
        except Exception:
            self._broken(call)
            return

        def ready(answer: "Future[bytes]") -> None:
            try:
                self._engine.post(lambda: self._answered(call, answer))
            except Closed:
                pass  # the transport closed meanwhile; its callers know

        if future.done():
            self._answered(call, future)
        else:
            future.add_done_callback(ready)

    def _answered(self, call: Call, answer: "Future[bytes]") -> None:
        if call.way.calls.get(call.stream.number) is not call:
            return  # it was given up
        if call.place is not None:
            call.place.leave()  # while its answer is read, who knows how slowly, the request is gone
        call.waits, call.moved = False, monotonic()
        error = Closed("cancelled") if answer.cancelled() else answer.exception()
        if error is None:
            call.answer = answer
            call.stream.send(Kind.ANSWER, answer.result())
            call.way.queue.add(call.stream)
            self._deadline.by(call.moved + self._options.body_idle)
            self._pump(call.way)
        elif isinstance(error, Refused):
            self._refuse(call, error.code, error.reason)
        else:
            self._log.error("a request of %s met an internal error: %s: %s",
                            call.way.caller.address, type(error).__name__, error)  # fmt: skip
            self._last_word(call, Kind.FAILED, b"internal error of the peer")

    # ── what goes out ────────────────────────────────────────────────────────────────────────────

    def _refuse(self, call: Call, code: str, text: str) -> None:
        self._last_word(call, Kind.REFUSED, refusal(code, text))

    def _broken(self, call: Call) -> None:
        self._last_word(call, *self._defect(call.way))

    def _defect(self, way: Way) -> tuple[Kind, bytes]:
        """In an exception handler: write it down, and what to tell the caller, who learns no details."""
        self._log.exception("a request of %s met an internal error", way.caller.address)
        return Kind.FAILED, b"internal error of the peer"

    def _last_word(self, call: Call, kind: Kind, payload: bytes) -> None:
        if self._remove(call):
            self._tell(call.way, call.stream.number, kind, payload)

    def _tell(self, way: Way, request: int, kind: Kind, payload: bytes = b"") -> None:
        if len(way.queue) < _WORDS:
            word = Stream(request)
            word.say(kind, payload)
            way.queue.add(word)
        self._pump(way)

    def _pump(self, way: Way) -> None:
        if not self._open:
            return

        def send(parts: Sequence[bytes | memoryview]) -> bool:
            try:
                send_now(self._socket, [way.identity, *parts])
            except zmq.Again:
                return False
            return True

        def sent(stream: Stream) -> None:
            way.stuck = None
            call = way.calls.get(stream.number)
            if call is not None and call.stream is stream:
                call.moved = monotonic()
                if not call.waits and stream.whole and stream.all_sent:
                    if call.answer is not None and len(call.answer.result()) > CHUNK:
                        way.unread[stream.number] = call.answer, call.moved
                        self._deadline.by(call.moved + UNREAD)
                    self._remove(call)

        try:
            if not way.queue.run(send, sent):
                self._wait_for_room(way)
                return
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                self._log.error("%s: %s", self._place, error)
            self._give_up(way)  # the caller is gone
        self._forget_if_quiet(way)

    def _wait_for_room(self, way: Way) -> None:
        now = monotonic()
        way.stuck = way.stuck or now
        if now - way.stuck > self._options.body_idle:  # it is there and reads nothing: nobody ticks for it for ever
            self._give_up(way)
            self._forget_if_quiet(way)
        elif way not in self._blocked:
            self._blocked.append(way)
            if len(self._blocked) == 1:
                self._engine.after(_TRY_AGAIN, self._unblock)

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, deque()
        for way in blocked:
            self._pump(way)

    # ── how requests end ─────────────────────────────────────────────────────────────────────────

    def _remove(self, call: Call) -> bool:
        if call.way.calls.get(call.stream.number) is not call:
            return False
        del call.way.calls[call.stream.number]
        call.stream.drop()
        if call.place is not None:
            call.place.leave()
        self._count -= 1
        if not self._count and self.on_idle is not None:
            self.on_idle()
        return True

    def _give_up(self, way: Way) -> None:
        for call in list(way.calls.values()):
            self._remove(call)
        way.queue.clear()
        way.unread.clear()

    def _drop(self, call: Call) -> None:
        self._remove(call)
        self._forget_if_quiet(call.way)

    def _forget_if_quiet(self, way: Way) -> None:
        if way.quiet:
            self._ways.pop(way.identity, None)

    def _look(self, now: float) -> float | None:
        """End the calls whose caller has stalled. The host's answer may take as long as it takes."""
        again: float | None = None
        for way in list(self._ways.values()):
            lapse = way.forget_unread(now)
            again = lapse if again is None or (lapse is not None and lapse < again) else again
            self._forget_if_quiet(way)
            for call in list(way.calls.values()):
                due = call.moved + self._options.body_idle
                if call.waits or (call.place is not None and not call.place.reads):
                    continue
                if due <= now:
                    self._last_word(call, Kind.FAILED, b"nothing came or went for too long; the request was given up")
                elif again is None or due < again:
                    again = due
        return again

    def close(self) -> None:
        """Forget everything. The socket belongs to the door."""
        self._open = False
        self._engine.unwatch(self._socket)
        self._ways.clear()
        self._blocked.clear()
        self._count = 0
