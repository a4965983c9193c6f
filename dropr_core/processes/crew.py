"""How many threads of a worker are at work at once.

Owns the rule: while handlers are so short that threads do nothing but take the interpreter from each other, one works
and the others rest. One of those looks out, and all come back as soon as some handler takes time: while it waits or
computes, the others go on. Must not know where messages come from, nor handlers.
"""

import threading
import time
from collections.abc import Callable

from dropr_core.processes.at_work import AtWork

SHORT = 30e-6
"""Seconds up to which a call of a handler is short: nothing that waits for a disk or another program is."""

LOOK = 0.01
"""Seconds between two looks at how those are getting on who work: so long may a message wait for one who rests."""

SHARE = 0.25
"""Where so much of the time goes by in handlers that are not short, nobody rests."""

AWAKE = 1.0
"""Seconds for which nobody rests after that."""


class Crew:
    """The threads that share a source of messages. All are at work until they say how long something took."""

    def __init__(
        self,
        count: int,
        at_work: AtWork,
        holds: Callable[[], bool],
        waits: Callable[[], bool],
        stopped: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``holds``: whether messages are at hand that somebody can take at once; ``waits``: whether somebody waits for
        one; ``stopped``: nobody may rest then.
        """
        self._at_work, self._holds, self._waits, self._stopped, self._clock = at_work, holds, waits, stopped, clock
        self._mutex = threading.Lock()
        self._working = count
        self.crowded = count > 1
        """Whether more than one is at work."""
        self._lookout = threading.Lock()
        """Held by the one of those that rest who looks out; the others wait for it."""
        self._awake = 0.0
        self._long = 0.0
        """Seconds that went by in calls that were not short. Some may be lost where two count at once."""
        self._looked, self._long_then = 0.0, 0.0

    @property
    def working(self) -> int:
        """How many do not rest."""
        return self._working

    def handled(self, took: float) -> None:
        """One of them has handled a message in so many seconds; it comes back when it should take the next. To be
        called at least if that was not short, or if it is crowded.
        """
        if took > SHORT:
            self._long += took
        elif self.crowded and self._holds() and self._may_rest() and self._rest():
            try:
                self._look_out()
            finally:
                self._work()

    def _may_rest(self) -> bool:
        now = self._clock()
        return now >= self._awake and not self._stopped.is_set() and not self._since(now - LOOK)

    def _since(self, moment: float) -> int:
        """How many are at one message since then."""
        return sum([one.started <= moment for one in self._at_work.now()])

    def _rest(self) -> bool:
        with self._mutex:
            if self._working < 2:
                return False
            self._working -= 1
            self._changed()
            return True

    def _work(self) -> None:
        with self._mutex:
            self._working += 1
            self._changed()

    def _changed(self) -> None:
        self.crowded = self._working > 1
        self._looked, self._long_then = self._clock(), self._long

    def _look_out(self) -> None:
        with self._lookout:
            self._looked, self._long_then = self._clock(), self._long
            while self._clock() >= self._awake and not self._stopped.wait(LOOK):
                if self._is_needed():
                    return

    def _is_needed(self) -> bool:
        """Whether one more should be at work, by what went on since the last look."""
        now, long, since = self._clock(), self._long - self._long_then, self._looked
        self._looked, self._long_then = now, self._long
        # Of more than one it may be that they only wait for the interpreter.
        if self._since(now - LOOK) >= self._working or (self._working == 1 and long > SHARE * (now - since)):
            self._awake = now + AWAKE
            return True
        return self._waits()  # there is nothing to do: it waits with the others, and looks at nothing any more


__all__ = ["Crew"]
