"""Whether a file is believed, after its disk reported errors.

Owns that judgement and what is said about it. Must not know how a test is made.
"""

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from dropr_core.errors import DroprError, StoreReadOnly, WriteFailed
from dropr_core.system.clock import Clock

WINDOW = 60.0
"""Seconds within which two failed writes make a half read-only."""
RETEST_EVERY = 1.0


class Trust:
    """In one file."""

    def __init__(self, path: Path, clock: Clock, tell: Callable[[str, Mapping[str, object]], None]) -> None:
        """``tell``: for observers."""
        self._path, self._clock, self._tell = path, clock, tell
        self.suspect = False
        """A write failed, and no test has passed since."""
        self._troubles: deque[float] = deque(maxlen=2)
        self._tested = float("-inf")

    def failed(self, error: Exception) -> None:
        """A write failed: nothing is promised until a test has passed."""
        self.suspect = True
        self._troubles.append(self._clock.now())
        self._tell("write_failed", {"error": str(error)})

    def passed(self, why: str) -> None:
        """A test has."""
        self.suspect = False
        self._troubles.clear()
        self._tell("trusted", {"why": why})

    def begin_test(self) -> None:
        """Raise StoreReadOnly if the last test, of a file that failed twice, was a moment ago."""
        now = self._clock.now()
        if self._is_distrusted(now) and 0 <= now - self._tested < RETEST_EVERY:
            raise self.alarm()
        self._tested = now

    def alarm(self) -> DroprError:
        """What callers are told whose write cannot be promised."""
        if not self._is_distrusted(self._clock.now()):
            return WriteFailed(
                f"{self._path}: the disk still reports errors; nothing was promised; look at the kernel's log"
            )
        self._tell("read_only", {"why": "writes failed twice within a minute"})
        return StoreReadOnly(
            f"{self._path}: writes failed twice within a minute, so the store takes nothing until a test commit "
            "goes through (it is tried with every call); look at the kernel's log for disk errors"
        )

    def _is_distrusted(self, now: float) -> bool:
        return len(self._troubles) == 2 and now - self._troubles[0] <= WINDOW
