"""How many bytes of long requests a listener holds at once, over all its peers.

Owns that room: who waits for it, in which order, and when a place is given up. Transports use it for whatever a request
is to them. Pure: must not know requests, sockets, threads or an event loop. Used by one thread.

Each peer may have some megabytes on its way, and after an outage all of them come back in the same second. A request
that finds no room is not read: its bytes wait in the kernel and at the sender, who stalls for as long as others are
read and answered. Those who wait get their turn by sender, so that one with many requests is not before one with few.

So that slow lines hold up no fast ones, a place counts for `READING` seconds of reading at most, and then again from
the moment at which the request is here as a whole. What slow ones have sent until then counts in a room of their own,
as large as the other; where that is full, whoever of them has sent least is refused and comes again.
"""

import enum
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Self

from dropr_core.errors import Refused

ROOM = 128 << 20
"""Bytes of long requests that are read or being answered."""
READING = 5.0
"""Seconds of reading for which a place counts."""
PATIENCE = 10.0
"""Seconds that a request waits for a place; well below the idle time after which its sender gives up."""

Later = Callable[[float, Callable[[], None]], Callable[[], None]]
"""Call something in so many seconds; what it returns prevents that."""


class _State(enum.Enum):
    WAITING = "waiting"
    READING = "reading"
    SLOW = "slow"
    WHOLE = "whole"
    GONE = "gone"


class Place:
    """One request's place; left when the context is left."""

    def __init__(
        self, room: "RequestRoom", whose: Hashable, size: int, unasked: int,
        granted: Callable[[], None], refused: Callable[[Refused], None],
    ) -> None:  # fmt: skip
        self._room, self._whose = room, whose
        self.size, self.have = size, 0
        self.counted = min(size, unasked)
        self.granted, self.refused = granted, refused
        self.state = _State.WAITING
        self.stop: Callable[[], None] = _nothing

    @property
    def whose(self) -> Hashable:
        """Its sender."""
        return self._whose

    @property
    def reads(self) -> bool:
        """Whether the rest of the request may be read."""
        return self.state is not _State.WAITING

    def came(self, count: int) -> None:
        """So many bytes came. The place may be lost by that: `refused` was called then."""
        self._room._came(self, count)  # noqa: SLF001

    def complete(self) -> None:
        """The request is here as a whole: until it is answered its place counts."""
        self._room._complete(self)  # noqa: SLF001

    def leave(self) -> None:
        """The request was answered or given up; safe twice."""
        self._room._leave(self)  # noqa: SLF001

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.leave()


class RequestRoom:
    """The room of one listener."""

    def __init__(self, size: int, later: Later, *, reading: float = READING, patience: float = PATIENCE) -> None:
        self.size = self._free = size
        self._later, self._reading, self._patience = later, reading, patience
        self._waiting: OrderedDict[Hashable, deque[Place]] = OrderedDict()
        self._active = 0
        """Places that count in full."""
        self._slow: dict[Place, None] = {}
        self.slow = 0
        """Bytes here of requests that come in slowly."""

    @property
    def free(self) -> int:
        """Bytes that are free; below zero where requests have come whole, or unasked, beside others."""
        return self._free

    def place(
        self, whose: Hashable, size: int, granted: Callable[[], None], refused: Callable[[Refused], None],
        *, unasked: int = 0,
    ) -> Place:  # fmt: skip
        """A place for a request of so many bytes, of which ``unasked`` come whether it has one or not.

        ``granted`` is called when it may be read, at once or in its turn; ``refused`` when it loses its place, or gets
        none for long. A request that is larger than the whole room gets it alone. Raises Refused: what comes unasked
        has filled the room twice.
        """
        place = Place(self, whose, size, unasked, granted, refused)
        if self._free - place.counted < -self.size:
            raise _busy()
        self._free -= place.counted
        if not self._waiting and self._fits(place):
            self._grant(place)
        else:
            self._waiting.setdefault(whose, deque()).append(place)
            place.stop = self._later(self._patience, lambda: self._lose(place))
        return place

    # ── what places do ───────────────────────────────────────────────────────────────────────────

    def _came(self, place: Place, count: int) -> None:
        place.have += count
        if place.state is _State.WAITING and place.have > place.counted:
            self._free -= place.have - place.counted
            place.counted = place.have
            if self._free < -self.size:
                self._lose(place)
        elif place.state is _State.SLOW:
            self.slow += count
            self._thin_out()

    def _complete(self, place: Place) -> None:
        if place.state is _State.GONE:
            return
        self._end_turn(place)
        place.state = _State.WHOLE
        self._active += 1
        self._count(place, place.size)

    def _leave(self, place: Place) -> None:
        if place.state is _State.GONE:
            return
        self._end_turn(place)
        place.state = _State.GONE
        self._count(place, 0)

    def _thin_out(self) -> None:
        while self.slow > self.size:
            some = [one for one in self._slow if one.have]
            if len(some) == 1:
                return  # larger than the whole room, and alone
            self._lose(min(some, key=lambda one: one.have))

    def _lose(self, place: Place) -> None:
        self._leave(place)
        place.refused(_busy())

    # ── turns ────────────────────────────────────────────────────────────────────────────────────

    def _end_turn(self, place: Place) -> None:
        """It waits, or comes in slowly, no longer."""
        place.stop()
        place.stop = _nothing
        if place.state is _State.WAITING:
            theirs = self._waiting[place.whose]
            theirs.remove(place)
            if not theirs:
                del self._waiting[place.whose]
        elif place.state is _State.SLOW:
            del self._slow[place]
            self.slow -= place.have
        else:
            self._active -= 1

    def _count(self, place: Place, size: int) -> None:
        self._free -= size - place.counted
        place.counted = size
        self._go_on()

    def _fits(self, place: Place) -> bool:
        return place.size <= self._free + place.counted or not self._active

    def _grant(self, place: Place) -> None:
        place.state = _State.READING
        self._active += 1
        self._free -= place.size - place.counted
        place.counted = place.size
        place.stop = self._later(self._reading, lambda: self._lapse(place))
        place.granted()

    def _lapse(self, place: Place) -> None:
        self._end_turn(place)
        place.state = _State.SLOW
        self._slow[place] = None
        self.slow += place.have
        self._count(place, 0)
        self._thin_out()

    def _go_on(self) -> None:
        while self._waiting:
            whose, theirs = next(iter(self._waiting.items()))
            place = theirs[0]
            if not self._fits(place):
                return
            self._end_turn(place)
            if whose in self._waiting:
                self._waiting.move_to_end(whose)
            self._grant(place)


def _busy() -> Refused:
    return Refused("busy", "too many long requests at once; try again later")


def _nothing() -> None:
    """There is nothing to prevent."""


__all__ = ["PATIENCE", "READING", "ROOM", "Later", "Place", "RequestRoom"]
