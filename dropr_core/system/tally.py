"""How often something happened that strangers can make happen, and which of these times is worth a line in the log.

Owns the rule: the 1st, 2nd, 4th, 8th … time, so that nobody fills a log from outside; and a log
that keeps to it. Must not know what is counted.
"""

import logging


class Tally:
    """Counts one kind of thing."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, times: int = 1) -> bool:
        """It happened (so many times); whether that is worth a line."""
        before, self.count = self.count, self.count + times
        return self.count.bit_length() > before.bit_length()


def quiet(log: logging.Logger, place: str, hint: str = "") -> logging.Logger:
    """A log for one door in which strangers cannot write a line with each thing that makes no sense. ``hint``: what to
    do, at the end of each line.
    """
    made = logging.Logger(f"{log.name}.http", logging.WARNING)  # noqa: LOG001 - one for each door
    made.parent = log
    made.addFilter(_Rare(place, hint))
    return made


class _Rare(logging.Filter):
    """Lets warnings through rarely, and says how many there were; errors always."""

    def __init__(self, place: str, hint: str) -> None:
        super().__init__()
        self._place, self._hint, self._tally = place, hint, Tally()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.levelno > logging.WARNING:
            return True
        if not self._tally.add():
            return False
        record.msg = f"{self._place}: {record.getMessage().rstrip('.')} ({self._tally.count} so far){self._hint}"
        record.args = ()
        return True
