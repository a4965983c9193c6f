"""Whom a turn at the store waits for, and how long.

Owns `Gathering`. Connections that are answered together ask again within some microseconds of each other, but not in
the same step of the event loop: the turn would begin with half of them, the others would have to wait for the next one,
and so for ever, in two halves with two commits. A turn that is about to begin lets the loop look once more as long as
somebody of the last two turns is missing; never longer than a turn takes, and hardly ever where that was in vain. Who
is alone is never waited for. Must not know what a turn does.
"""

LONGEST = 0.0005
"""Seconds: nobody waits longer than this for company."""
SELDOM = 64
"""Turns that begin at once after one that waited, where waiting is in vain again and again."""


class Gathering:
    """For the event loop; of one worker at the store."""

    def __init__(self) -> None:
        self._came: set[object] = set()
        """Those who asked for something in the coming turn."""
        self._before: set[object] = set()
        """Those of the turn before."""
        self._expected = 0
        self._usual = 0.0
        """Seconds that a turn takes."""
        self._ends: float | None = None
        """When waiting is over, if it has begun."""
        self._first = 0
        """How many had come when it began."""
        self._in_vain = self._at_once = 0
        """How many turns begin at once after the next vain waiting; how many are left of those."""

    def came(self, who: object) -> None:
        """A connection asks for something."""
        self._came.add(who)

    def may_begin(self, now: float) -> bool:
        """Whether all are here, or have been waited for; else the loop looks for more first, and asks again."""
        here = len(self._came)
        if self._ends is not None:
            if here < self._expected and now < self._ends:
                return False
            missing = self._expected - self._first
            if 2 * (here - self._first) < missing:
                self._in_vain = min(SELDOM, 2 * self._in_vain or 1)
                self._at_once = self._in_vain
            else:
                self._in_vain //= 2
            self._ends = None
            return True
        if here >= self._expected or not here:
            return True
        if self._at_once:
            self._at_once -= 1
            return True
        self._first, self._ends = here, now + min(LONGEST, self._usual)
        return False

    def begins(self, those: set[object] | None = None) -> None:
        """A turn begins, with all who came or with ``those`` alone."""
        came = self._came
        self._expected = len(self._before | came)
        self._before, self._came = came, set() if those is None else came - those

    def took(self, seconds: float) -> None:
        """A turn is over."""
        self._usual += (seconds - self._usual) / 8
