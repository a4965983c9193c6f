"""How often something happened that strangers can make happen, and which of these times is worth a line in the log.

Owns the rule: the 1st, 2nd, 4th, 8th … time, so that nobody fills a log from outside. Must not know what is counted.
"""


class Tally:
    """Counts one kind of thing."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, times: int = 1) -> bool:
        """It happened (so many times); whether that is worth a line."""
        before, self.count = self.count, self.count + times
        return self.count.bit_length() > before.bit_length()
