"""How many callers failed the handshake, from two events: somebody came in, somebody's handshake succeeded.

ZeroMQ's own event about a failed one must not be listened to (engine.EVENTS), and the others do not say whose they
are. But ZeroMQ ends every handshake in time, so each that began longer ago and was not matched by a success failed.
Pure: must not know sockets or clocks.
"""

from collections import deque

_MOST = 50_000
"""Handshakes that are remembered as under way; of more than that, the oldest are taken as failed early."""


class Handshakes:
    """Those of one listener."""

    def __init__(self, patience: float) -> None:
        """``patience``: seconds after which a handshake is certainly over."""
        self._patience = patience
        self._begun: deque[float] = deque()
        self.failed = 0

    @property
    def due(self) -> float | None:
        """When `look` may find a failure; None: no handshake is under way."""
        return self._begun[0] + self._patience if self._begun else None

    def begun(self, now: float) -> float:
        """A caller came in. Returns when to look."""
        self._begun.append(now)
        if len(self._begun) > _MOST:
            self._begun.popleft()
            self.failed += 1
        return self._begun[0] + self._patience

    def succeeded(self) -> None:
        """Some handshake succeeded. Taken as the latest, so that a steady stream of successes hides no failure."""
        if self._begun:
            self._begun.pop()

    def look(self, now: float) -> int:
        """How many have failed until now."""
        while self._begun and self._begun[0] + self._patience <= now:
            self._begun.popleft()
            self.failed += 1
        return self.failed
