"""How many messages a consumer may hold at once.

Owns the rule: as many as it would handle within `WORTH` seconds at the pace of late, at most twice as many as the last
time. So quick work is claimed by the hundred, long work one by one, an idle neighbour gets its share, and an urgent
message waits that long at most. Pure: it is told the time.
"""

WORTH = 0.01
"""Seconds of work that a consumer may hold."""


class Pace:
    """The pace of one consumer."""

    def __init__(self, cap: int) -> None:
        """``cap``: never more than so many."""
        self.cap = cap
        self.target = 1
        """So many may be held now."""
        self._average: float | None = None
        self._since = 0.0
        self._taken = 0

    def claimed(self, count: int, now: float) -> None:
        """So many are held from now on."""
        self._taken, self._since = count, now

    def ran_out(self, now: float) -> int:
        """All that was held has been handed out (by a single taker: handled). How many to claim now."""
        if self._taken:
            each = max(0.0, now - self._since) / self._taken
            self._average = each if self._average is None else (self._average + each) / 2
            most = self.cap if self._average * self.cap <= WORTH else int(WORTH / self._average)
            self.target = max(1, min(most, 2 * self.target, self.cap))
            self._taken = 0
        return self.target

    def stalled(self) -> None:
        """What was held had to be given back: the one at hand takes long. Begin anew."""
        self.target, self._taken = 1, 0
