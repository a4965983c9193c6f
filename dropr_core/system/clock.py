"""Time behind one small interface.

Owns the difference between *node time* (decides everything, never steps) and *wall time* (for people).
Node time runs with the machine's boot clock, which counts sleep, and goes on across reboots by a
base kept in a small file of the data directory; so no step of the wall clock can lose, expire or
delay a message. Must not know what the times are used for.
"""

import json
import time
from pathlib import Path
from typing import Protocol

from dropr_core.system.files import replace_text
from dropr_core.system.os_errors import NO_HANDLES

MAX_TRUSTED_GAP = 30 * 86400.0
"""Seconds. A longer time between two boots is taken for a wrong wall clock and not counted."""


class Clock(Protocol):
    """What every part of dropr asks for the time."""

    def now(self) -> float:
        """Node time in seconds. Starts anywhere, never steps back, counts sleep and downtime."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch as the machine believes. Nothing is decided by it."""
        ...


def boot_seconds() -> float:
    """Seconds since boot, time asleep included where the system can tell."""
    return time.clock_gettime(_BOOT_CLOCK)


_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Node time for one process: boot clock plus ``base`` seconds."""

    def __init__(self, base: float = 0.0, boot: str = "") -> None:
        self.base = base
        self.boot = boot
        """The boot for which ``base`` was written down; empty: it is not yet."""

    def now(self) -> float:
        """Node time in seconds."""
        return self.base + time.clock_gettime(_BOOT_CLOCK)

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()


def boot_id() -> str:
    """A text that differs after each boot and on each machine. Raises OSError only for want of file handles: another
    text for the same boot would make all that was noted since look old.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError as error:
        if error.errno in NO_HANDLES:
            raise
        # not Linux: the wall-clock second of the boot is the best there is
        return f"boot@{round((time.time() - boot_seconds()) / 10)}"


def open_clock(directory: Path) -> SystemClock:
    """The node's clock, continued from the last boot by the file ``clock.json`` in ``directory``.

    The file is a help, not a promise: unreadable or missing, node time starts with the boot clock.
    Raises OSError if the directory cannot be written, or for want of file handles: then nobody knows what it says.
    """
    clock = read_clock(directory)
    if clock.boot != boot_id():
        keep_clock(directory, clock)
    return clock


def read_clock(directory: Path) -> "SystemClock":
    """The same, changing nothing; for looking at a node, and at a copy of one."""
    try:
        kept = json.loads((directory / "clock.json").read_text(encoding="utf-8"))
        if kept["boot"] == boot_id():
            return SystemClock(float(kept["base"]), kept["boot"])
        gap = time.time() - float(kept["wall"])
        trusted = gap if 0 <= gap <= MAX_TRUSTED_GAP else 0.0
        return SystemClock(float(kept["node"]) + trusted - boot_seconds())
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno in NO_HANDLES:
            raise
        return SystemClock()


def keep_clock(directory: Path, clock: Clock) -> None:
    """Write down how node time, wall time and this boot relate. The daemon repeats it now and then."""
    now = clock.now()
    text = json.dumps({"boot": boot_id(), "base": now - boot_seconds(), "node": now, "wall": clock.wall()})
    replace_text(directory / "clock.json", text, durable=True)


class FakeClock:
    """A clock that moves only when told to; for tests and simulation."""

    def __init__(self, now: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now, self._wall = now, wall

    def now(self) -> float:
        """Node time in seconds."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now += seconds
        self._wall += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP would."""
        self._wall += seconds
