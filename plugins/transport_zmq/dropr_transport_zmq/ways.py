"""What a listener knows of one caller: its requests under way, and which callers may begin with the full window.

Owns the records of the answering side. Runs in the engine's thread. Must not know sockets.
"""

from collections import OrderedDict
from concurrent.futures import Future

import attrs
import zmq

from dropr_core.contracts.transport import Caller
from dropr_core.system.request_room import Place
from dropr_transport_zmq.frames import FIRST_WINDOW, OPENING, WINDOW, Kind, pack
from dropr_transport_zmq.stream import Queue, Stream

REQUESTS = 4
"""Long requests that a peer usually has under way at once (pushes, pieces of bodies)."""
QUIET = 5.0
"""Seconds without a long request after which a caller's full window may go to another one."""
UNREAD = 60.0
"""Seconds for which an answer counts whose caller never says that it has it."""


@attrs.define(eq=False)
class Call:
    """One request of one caller, admitted."""

    way: "Way"
    stream: Stream
    moved: float
    waits: bool = False
    """Whether the host has it and has not answered yet."""
    place: Place | None = None
    """Of a long request, until its answer is there."""
    answer: "Future[bytes] | None" = None
    """Kept for as long as the caller has not taken it: the host counts it until then."""


class Way:
    """What goes back to one caller."""

    def __init__(self, identity: bytes, caller: Caller, fd: int) -> None:
        self.identity, self.caller, self.fd = identity, caller, fd
        self.calls: dict[int, Call] = {}
        self.queue = Queue()
        self.unread: dict[int, tuple[Future[bytes], float]] = {}
        """Long answers that were handed to ZeroMQ and may not be read yet, and since when."""
        self.says_taken = False
        """Whether it says what it has read; callers before 0.2 do not."""
        self.stuck: float | None = None
        """Since when its connection takes nothing."""

    @property
    def quiet(self) -> bool:
        """Whether nothing is to be remembered of it."""
        return not self.calls and not len(self.queue) and not self.unread

    def asks(self) -> None:
        """A request begins. A caller that says nothing else shows by this that it has read what it waited for."""
        if self.unread and not self.says_taken:
            self.unread.clear()

    def forget_unread(self, now: float) -> float | None:
        """Count what was not taken for very long no more; when to look again."""
        for number, (_, since) in list(self.unread.items()):
            if since + UNREAD <= now:
                del self.unread[number]
        return min((since + UNREAD for _, since in self.unread.values()), default=None)


class Openings:
    """The callers whose requests may begin with the full window: a few, so that what they send unasked has room."""

    def __init__(self, room: int) -> None:
        """``room``: bytes of long requests that the listener holds at once."""
        self._most = room // 2 // (REQUESTS * WINDOW)
        self._given: OrderedDict[bytes, float] = OrderedDict()

    def window(self, identity: bytes) -> int:
        """What a request of this caller may begin with."""
        return WINDOW if identity in self._given else FIRST_WINDOW

    def use(self, identity: bytes, now: float) -> tuple[Stream | None, tuple[bytes, bytes, bytes] | None]:
        """It has a long request: the word that it may have the full window, and the one that takes it from another."""
        if identity in self._given:
            self._given[identity] = now
            self._given.move_to_end(identity)
            return None, None
        other = None
        if len(self._given) >= self._most:
            quiet = next(iter(self._given), None)
            if quiet is None or now - self._given[quiet] < QUIET:
                return None, None
            del self._given[quiet]
            other = quiet, pack(Kind.GRANT, OPENING, FIRST_WINDOW), b""
        self._given[identity] = now
        word = Stream(OPENING)
        word.say(Kind.GRANT, number=WINDOW)
        return word, other


def way_of(identity: bytes, frame: "zmq.Frame", place: str) -> Way:
    """The way back to whoever a message came from; ``place``: where it came in, if ZeroMQ knows no address."""
    address, user = _property(frame, "Peer-Address"), _property(frame, "User-Id")
    return Way(identity, Caller(address or place, user or None), _connection(frame))


def _property(frame: "zmq.Frame", name: str) -> str:
    """What ZeroMQ knows about the connection on which a message came; empty if it does not."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""


def _connection(frame: "zmq.Frame") -> int:
    """The descriptor of the connection on which a message came; -1 if there is none."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1


__all__ = ["REQUESTS", "UNREAD", "Call", "Openings", "Way", "way_of"]
