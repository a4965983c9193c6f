"""Heart-beats of one connection: who promised what, when the next is due, when the other side counts as dead.

Owns the arithmetic of the header ``heart-beat``. Reads no clock: it is told the time, in seconds of any clock that
only goes forward. Knows no frame and no socket.
"""

import math
import re

from dropr_gateway_stomp.frames import ProtocolError

GRACE = 2.0
"""A client is dead after so many of its intervals without a byte. The specification only asks for "an error margin"."""

_HEADER = re.compile(r"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*")


def parse(header: str) -> tuple[int, int]:
    """``cx,cy``: what the client can do, and what it wants, in milliseconds; 0: nothing. Raises ProtocolError."""
    found = _HEADER.fullmatch(header)
    if found is None:
        raise ProtocolError(f"heart-beat must be two numbers of milliseconds such as 10000,10000, not {header[:80]!r}")
    return int(found[1]), int(found[2])


class HeartBeats:
    """Both directions of one connection."""

    def __init__(self, client: tuple[int, int], server: tuple[int, int], now: float) -> None:
        """What each of the two can do and wants, in milliseconds, as their headers say it."""
        (can, wants), (we_can, we_want) = client, server
        self.send_every = max(we_can, wants) / 1000 if we_can and wants else None
        """Seconds within which something must leave for the client."""
        self.expect_every = max(can, we_want) / 1000 if can and we_want else None
        """Seconds within which the client promises to send something."""
        self._sent = self._received = now

    def sent(self, now: float) -> None:
        """Something left."""
        self._sent = now

    def received(self, now: float) -> None:
        """Something came."""
        self._received = now

    def due(self, now: float) -> bool:
        """Whether a heart-beat must be sent now."""
        return self.send_every is not None and now - self._sent >= self.send_every * 0.5

    def dead(self, now: float) -> bool:
        """Whether the client was silent for too long."""
        return self.expect_every is not None and now - self._received >= self.expect_every * GRACE

    def next(self) -> float:
        """The time of the next thing to look at; infinite without heart-beats."""
        beat = math.inf if self.send_every is None else self._sent + self.send_every * 0.5
        death = math.inf if self.expect_every is None else self._received + self.expect_every * GRACE
        return min(beat, death)
