"""The trouble that the demo makes on purpose, and how long the nodes need to get over it.

Owns the blows and their clocks. Must not know how the blows are spread over the run. A recovery
ends with the arrival of a message that was sent after the blow, so that nothing that was already
under way can make it look short.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence

from dropr_core.demo.nodes import Village
from dropr_core.demo.road import Road
from dropr_core.demo.tally import Recovery, Stream

CLOSED_FOR = 3.0
"""Seconds that the road stays closed."""


class Chaos:
    """Strikes one blow after the other; `tick` must be called now and then."""

    def __init__(self, village: Village, roads: Sequence[Road], stream: Stream, closed_for: float = CLOSED_FOR) -> None:
        self._village, self._roads, self._stream, self._closed_for = village, roads, stream, closed_for
        self._past: list[Recovery] = []
        self._what = ""
        self._since: float | None = None
        """When the present blow's clock began to run; None: not yet, or there is none."""
        self._open_at: float | None = None

    def kill(self, node: str, role: str) -> str:
        """SIGKILL to a process that its node's angel looks after. Says what was done."""
        pid = self._village.pid(node, role)
        if pid is None:
            return ""
        os.kill(pid, signal.SIGKILL)
        self._begin(f"{role} of {node} killed (SIGKILL, pid {pid})")
        self._since = time.monotonic()
        return self._what

    def kill_machine(self, machine: str) -> str:
        """SIGKILL to every process of a machine at once, as when its power fails. Says what was done."""
        self._village.kill(machine)
        self._begin(f"{machine} killed, all of it (SIGKILL)")
        self._since = time.monotonic()
        return self._what

    def strike(self, what: str, blow: Callable[[], None]) -> str:
        """Any other blow, which is over when the call returns."""
        blow()
        self._begin(what)
        self._since = time.monotonic()
        return self._what

    def close_road(self, what: str = "road") -> str:
        """Cut every connection and refuse new ones until `tick` finds that the time is over."""
        for road in self._roads:
            road.shut()
        self._begin(f"{what} closed for {self._closed_for:g} s")
        self._open_at = time.monotonic() + self._closed_for
        return self._what

    def _begin(self, what: str) -> None:
        self._what = what
        self._since = None
        self._stream.watch()

    def tick(self, say: Callable[[str], None]) -> Recovery | None:
        """Re-open the road when it is time; the present blow's recovery, at the moment it is known."""
        if self._open_at is not None and time.monotonic() >= self._open_at:
            self._open_at = None
            self._since = time.monotonic()  # before: a message may come through before the proxy has answered us
            for road in self._roads:
                road.reopen()
            say("road open again")
        arrived = self._stream.watched_at
        if not self._what or self._since is None or arrived is None:
            return None
        recovery = Recovery(self._what, max(0.0, arrived - self._since))
        self._past.append(recovery)
        self._what, self._since = "", None
        return recovery

    @property
    def calm(self) -> bool:
        """Whether everything so far is got over."""
        return not self._what

    @property
    def recoveries(self) -> tuple[Recovery, ...]:
        """All blows; the last one without a time if it is not got over yet."""
        return (*self._past, Recovery(self._what, None)) if self._what else tuple(self._past)
