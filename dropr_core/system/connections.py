"""Who may hold a connection of a listener: callers whose request was admitted, and, apart from them, strangers.

Owns the limits and who has to go. A connection begins as a stranger's and stays one until its first request is
admitted. Strangers have few places, in all and for each address, and little time; if one too many comes, the oldest of
the address that holds most of them is cut off. So they wear each other out, and take no place of those who were
admitted. Transports use this for whatever a connection is to them. Pure: must not know sockets, clocks or threads.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable


class Place:
    """One connection."""

    __slots__ = ("_address", "admitted", "cut", "since")

    def __init__(self, address: str, since: float, cut: Callable[[], None]) -> None:
        self._address, self.since, self.cut = address, since, cut
        self.admitted = False

    @property
    def address(self) -> str:
        """What counts as one address."""
        return self._address


class Connections:
    """All connections of one listener. Used by one thread."""

    def __init__(self, admitted: int, strangers: int, per_address: int, patience: float) -> None:
        """Most admitted ones, most strangers in all and from one address; ``patience``: seconds for a stranger."""
        self._most, self._strangers, self._per_address = admitted, strangers, per_address
        self._patience = patience
        self._waiting: OrderedDict[Place, None] = OrderedDict()
        self._by_address: dict[str, OrderedDict[Place, None]] = {}
        self.admitted = 0
        self.cut_off = 0
        """Strangers that had to go until now."""

    @property
    def strangers(self) -> int:
        """Connections that were not admitted yet."""
        return len(self._waiting)

    @property
    def due(self) -> float | None:
        """When the time of the oldest stranger is over; None: there is none."""
        oldest = next(iter(self._waiting), None)
        return None if oldest is None else oldest.since + self._patience

    def enter(self, address: str, now: float, cut: Callable[[], None]) -> Place:
        """Somebody connected. ``cut`` is called when it has to go, never from within this call for itself."""
        group = group_of(address)
        theirs = self._by_address.get(group)
        if theirs is not None and len(theirs) >= self._per_address:
            self.drop(next(iter(theirs)))
        elif len(self._waiting) >= self._strangers:
            most = max(self._by_address, key=lambda one: len(self._by_address[one]))
            self.drop(next(iter(self._by_address[most])))
        place = Place(group, now, cut)
        self._waiting[place] = None
        self._by_address.setdefault(group, OrderedDict())[place] = None
        return place

    def admit(self, place: Place) -> bool:
        """A request of this connection is admitted; False if there are too many such connections already."""
        if place.admitted:
            return True
        if self.admitted >= self._most or place not in self._waiting:
            return False
        self._remove(place)
        place.admitted = True
        self.admitted += 1
        return True

    def leave(self, place: Place) -> None:
        """The connection ended; safe twice."""
        if place.admitted:
            place.admitted = False
            self.admitted -= 1
        elif place in self._waiting:
            self._remove(place)

    def look(self, now: float) -> float | None:
        """Cut off the strangers whose time is over; when to look again, or None while there are none."""
        while (due := self.due) is not None and due <= now:
            self.drop(next(iter(self._waiting)))
        return due

    def drop(self, place: Place) -> None:
        """Cut a stranger off."""
        self._remove(place)
        self.cut_off += 1
        place.cut()

    def _remove(self, place: Place) -> None:
        del self._waiting[place]
        theirs = self._by_address[place.address]
        del theirs[place]
        if not theirs:
            del self._by_address[place.address]


def group_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the network of 64 bits that one host of IPv6 is given."""
    if ":" not in address:
        return address
    try:
        host = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if host.version == 6 and host.ipv4_mapped is not None:
        return str(host.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(host) >> 64 << 64))
