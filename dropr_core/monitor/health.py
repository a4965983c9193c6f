"""Whether a node is alive and whether it can take work, as those ask who restart it or send it traffic.

Owns the two questions. Alive: what runs makes progress; existing is not enough. Ready: everything that shall run does,
no one drains, and there is room to store. Reads the run directory and /proc, and opens no store: it answers while one
hangs. Must not know who asks.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dropr_core.angel.status_file import read_state
from dropr_core.config.node import NodeConfig
from dropr_core.errors import DroprError
from dropr_core.system.locks import is_held
from dropr_core.system.os_errors import store_errors
from dropr_core.system.ownership import open_private
from dropr_core.system.presence import living
from dropr_core.system.space import floor_of
from dropr_core.system.turns import is_stopped, turn_of

ROLES = ("server", "worker", "gateway", "monitor")
"""Those that leave word with a presence; the daemon has a lock instead."""
PROBE = 4096
"""Bytes that are written to see whether anything can be."""


class Health(NamedTuple):
    """An answer."""

    problems: tuple[str, ...]
    """What is wrong, a sentence each; none: nothing."""
    processes: tuple[tuple[str, int], ...]
    """(role, process id) of those that were looked at."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def live(config: NodeConfig) -> Health:
    """Whether what runs of a node makes progress: no main loop is silent for longer than `angel.hang`, none is stopped
    by a signal, and something runs at all.
    """
    try:
        running = tuple(_running(config))
    except DroprError as error:
        return Health((str(error),), ())
    problems = [text for role, pid in running if (text := _stuck(role, pid, config.angel.hang))]
    if not running:
        problems.append("nothing of this node runs; start it with 'dropr up'")
    return Health(tuple(problems), running)


def ready(config: NodeConfig) -> Health:
    """Whether a node is alive, runs all that `run:` names, does not drain, and can store what it is given."""
    alive = live(config)
    problems = list(alive.problems)
    roles = {role for role, _ in alive.processes}
    problems += [f"no {role} is ready, though `run:` names it" for role in config.run if role not in roles]
    for role, pid in alive.processes:
        turn = turn_of(pid)
        if turn is not None and turn.stopping:
            problems.append(f"{role} {pid} was told to stop, and drains")
    problems += _storing(config)
    return Health(tuple(problems), alive.processes)


def _running(config: NodeConfig) -> Iterator[tuple[str, int]]:
    directory = config.data / "run"
    if not directory.exists():
        return
    with store_errors(directory):
        if is_held(directory / "angel.lock") and (angel := read_state(directory / "angel.json")) is not None:
            yield "angel", angel.pid
        if is_held(config.data / "daemon.lock"):
            pid = _daemon_pid(directory / "daemon.json")
            if pid is not None:
                yield "daemon", pid
        seen: set[int] = set()
        for role in ROLES:
            for report in living(directory, role):
                if (pid := int(report["pid"])) not in seen:  # a server may have the page as well
                    seen.add(pid)
                    yield role, pid


def _daemon_pid(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _stuck(role: str, pid: int, patience: float) -> str:
    """What is wrong with the progress of a process; empty: nothing."""
    if is_stopped(pid):
        return f"{role} {pid} is stopped by a signal; 'kill -CONT {pid}' lets it go on"
    turn = turn_of(pid)
    if turn is not None and turn.late > patience:
        return f"{role} {pid} makes no progress: its main loop has not turned for {turn.late:.0f} s"
    return ""


def _storing(config: NodeConfig) -> Iterator[str]:
    data = config.data
    try:
        with store_errors(data):
            found = os.statvfs(data)
            free, floor = (
                found.f_bavail * found.f_frsize,
                floor_of(found.f_blocks * found.f_frsize, config.limits.min_free),
            )
            if free < floor:
                yield f"only {free} bytes are free below {data}, the floor is {floor}; free some space"
                return
            _write_some(data / "run" / f"probe-{os.getpid()}")
    except DroprError as error:
        yield f"nothing can be stored: {error}"
    trouble = _trouble(config.data / "run" / "daemon.json")
    if trouble and is_held(data / "daemon.lock"):
        yield f"the store fails: {trouble}"


def _write_some(path: Path) -> None:
    """Find out whether the disk takes anything; what was written goes at once."""
    fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        if os.write(fd, bytes(PROBE)) < PROBE:
            raise OSError(28, os.strerror(28))
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def _trouble(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("store") or "")
    except (OSError, ValueError, TypeError, AttributeError):
        return ""
