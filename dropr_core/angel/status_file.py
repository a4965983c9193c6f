"""The angel's status file: what ``dropr status`` may read while the angel works.

Owns the file's form and its atomic replacement. It is a report, never a promise: nothing is decided
by it, and it is not forced to the disk. Must not know processes.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from dropr_core.angel.policy import ChildState, State
from dropr_core.system.clock import Clock
from dropr_core.system.files import replace_text


@frozen
class ChildReport:
    """One child as last reported. ``next_start`` is wall time (seconds since the epoch) or None."""

    name: str
    state: str
    pid: int | None
    restarts: int
    last_exit: str
    next_start: float | None


@frozen
class AngelReport:
    """What an angel last wrote; ``written`` is wall time. Whether it lives, its lock tells."""

    pid: int
    written: float
    children: tuple[ChildReport, ...]


def write_state(path: Path, child_states: Sequence[ChildState], clock: Clock) -> None:
    """Replace the file in one step. Raises OSError."""
    now, wall = clock.now(), clock.wall()
    report = {
        "angel": os.getpid(),
        "written": round(wall, 3),
        "children": [
            {
                "name": child_state.name,
                "state": child_state.state.value,
                "pid": child_state.pid,
                "restarts": child_state.restarts,
                "last_exit": child_state.last_exit,
                "next_start": round(wall + child_state.start_at - now, 3)
                if child_state.state is State.WAITING
                else None,
            }
            for child_state in child_states
        ],
    }
    replace_text(path, json.dumps(report))


def read_state(path: Path) -> AngelReport | None:
    """The last report, or None if there is none that can be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        children = tuple(
            ChildReport(
                str(child["name"]), str(child["state"]), child["pid"], int(child["restarts"]),
                str(child["last_exit"]), child["next_start"],
            )
            for child in kept["children"]
        )  # fmt: skip
        pid = int(kept["angel"])
        return AngelReport(pid, float(kept["written"]), children)
    except (OSError, ValueError, KeyError, TypeError):
        return None
