"""One request on its way, seen from one side: what goes out, what has come in, what may be sent now.

Owns the flow control of a request and its answer, and the queue that lets many share a connection.
Pure: must not know sockets, clocks or threads.
"""

from collections import deque
from collections.abc import Callable, Sequence

from dropr_transport_zmq.frames import CHUNK, FIRST_WINDOW, LEAST, WINDOW, Kind, pack

_NOTHING = memoryview(b"")


class Malformed(Exception):
    """The other side broke the rules of the flow."""


class Stream:
    """Both directions of one request."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.waits = False
        """Whether it stands in a `Queue`."""
        # out
        self._body = _NOTHING
        self._first: Kind | None = None
        self._sent = 0
        self._allowed = 0
        self._word: tuple[Kind, bytes, int] | None = None
        self._window = FIRST_WINDOW
        # in
        self.total = -1
        self.have = 0
        self._parts: list[bytes] = []
        self._granted = FIRST_WINDOW
        self._owes_grant = False

    # ── out ──────────────────────────────────────────────────────────────────────────────────────

    def send(self, kind: Kind, body: bytes) -> None:
        """Have ``body`` sent; its first message is of ``kind``."""
        self._body, self._first, self._sent, self._allowed = memoryview(body), kind, 0, self._window

    def begin_with(self, window: int) -> None:
        """How many bytes of a body may be sent before the other side has granted more; of one that is not begun."""
        self._window = max(FIRST_WINDOW, min(window, WINDOW))
        if self._first is not None:
            self._allowed = self._window

    def say(self, kind: Kind, payload: bytes = b"", number: int = 0) -> None:
        """Have one last word sent, instead of everything else."""
        self._body, self._first, self._owes_grant = _NOTHING, None, False
        self._word = (kind, payload, number)

    def welcome(self) -> None:
        """Tell the other side that its answer may begin with the full window."""
        self._granted, self._owes_grant = WINDOW, True

    def drop(self) -> None:
        """Nothing is to be sent or kept any more."""
        self._body, self._first, self._word, self._owes_grant = _NOTHING, None, None, False
        self._sent = 0
        self._parts = []

    def allow(self, upto: int) -> None:
        """The other side takes more; before the body is known: it may begin with so much."""
        if not self._body:
            self.begin_with(upto)
        self._allowed = max(self._allowed, min(upto, len(self._body)))

    @property
    def untouched(self) -> bool:
        """Whether nothing of the body has been handed over yet."""
        return self._first is not None

    @property
    def all_sent(self) -> bool:
        """Whether all of the body has been handed over."""
        return self._first is None and self._sent >= len(self._body)

    def next(self) -> tuple[bytes, bytes | memoryview] | None:
        """The message to send now, or None. It stays the next one until `done_next`."""
        if self._word is not None:
            return pack(self._word[0], self.number, self._word[2]), self._word[1]
        if self._owes_grant and self._first is None:
            return pack(Kind.GRANT, self.number, self._granted), b""
        size = len(self._body)
        if self._first is not None:
            return pack(self._first, self.number, size), self._body[: min(CHUNK, size)]
        if self._sent < min(size, self._allowed):
            end = min(size, self._allowed, self._sent + CHUNK)
            return pack(Kind.MORE, self.number, self._sent), self._body[self._sent : end]
        return None

    def done_next(self) -> None:
        """What `next` gave was sent."""
        if self._word is not None:
            self._word = None
        elif self._owes_grant and self._first is None:
            self._owes_grant = False
        elif self._first is not None:
            self._first, self._sent = None, min(CHUNK, len(self._body))
        else:
            self._sent = min(len(self._body), self._allowed, self._sent + CHUNK)
        if self.all_sent:
            self._body, self._sent = _NOTHING, 0  # a request that waits for its answer holds no megabytes

    # ── in ───────────────────────────────────────────────────────────────────────────────────────

    def begin(self, total: int) -> None:
        """Something of ``total`` bytes begins to come."""
        if self.total >= 0:
            raise Malformed("it began twice")
        self.total = total

    def take(self, offset: int, data: bytes) -> None:
        """A piece has come. Raises Malformed. The full window is taken in any case: it may have been said for all
        requests of the connection.
        """
        if self.total < 0 or offset != self.have or self.have + len(data) > min(self.total, max(self._granted, WINDOW)):
            raise Malformed(f"{len(data)} bytes at {offset} do not follow {self.have} of {self.total}")
        if len(data) < LEAST and self.have + len(data) < self.total:
            raise Malformed(f"a piece of {len(data)} bytes that is not the last")
        self._parts.append(data)
        self.have += len(data)

    def grant(self) -> None:
        """Let the other side send on: twice as much in each round, up to the full window.

        Said after each piece, also where it grants nothing new: it shows that something moves.
        """
        upto = min(self.total, self.have + min(WINDOW, FIRST_WINDOW + self.have))
        self._granted, self._owes_grant = max(self._granted, upto), True

    def show_movement(self) -> None:
        """Say once more what was granted: the other side waits, and shall see that this one is there."""
        self._owes_grant = True

    @property
    def whole(self) -> bool:
        """Whether all has come."""
        return self.have == self.total

    def collect(self) -> bytes:
        """All that has come; it is given away."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Queue:
    """Streams that have something to send over one connection, in turns."""

    def __init__(self) -> None:
        self._streams: deque[Stream] = deque()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Stream) -> None:
        """This stream has something to send."""
        if not stream.waits:
            stream.waits = True
            self._streams.append(stream)

    def run(self, send: Callable[[Sequence[bytes | memoryview]], bool], sent: Callable[[Stream], None]) -> bool:
        """Send what can be sent; False when ``send`` takes no more for now."""
        streams = self._streams
        while streams:
            stream = streams[0]
            message = stream.next()
            if message is not None:
                if not send(message):
                    return False
                stream.done_next()
                sent(stream)
            if not streams or streams[0] is not stream:
                return True  # somebody cleared the queue meanwhile
            streams.popleft()
            if stream.next() is None:
                stream.waits = False
            else:
                streams.append(stream)
        return True

    def clear(self) -> None:
        """Forget all."""
        for stream in self._streams:
            stream.waits = False
        self._streams.clear()
