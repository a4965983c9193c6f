"""When a peer last answered and what last went wrong, for people who look.

Owns that memory of one process; nothing is decided by it. Must not know what was asked.
"""

from dropr_core.errors import Refused
from dropr_core.model.limits import clip
from dropr_core.protocol.rests import NEW_SESSION, OLD_SESSION
from dropr_core.system.clock import Clock


class TalkRecord:
    """Of one peer, whoever of this process talks to it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._error = ""
        self._failed_at: float | None = None
        self._answered_at: float | None = None
        self._state = ""
        self._since = 0.0

    def note(self, result: object) -> None:
        """What a question led to: an answer, or an exception."""
        if isinstance(result, Refused) and result.code in {NEW_SESSION, OLD_SESSION}:
            return  # the peer began anew, which is no fault; the same is asked again at once
        if isinstance(result, Exception):
            self._error, self._failed_at = clip(result), self._clock.now()
        else:
            self._answered_at = self._clock.now()

    def since(self, state: str) -> float:
        """The node time at which the peer came into this state, as seen by those who call this again and again."""
        if state != self._state:
            self._state, self._since = state, self._clock.now()
        return self._since

    def report(self) -> dict[str, object]:
        """``error`` and when (node time), and when the peer last answered; both None where there is nothing."""
        return {"error": self._error, "failed_at": self._failed_at, "answered_at": self._answered_at}
