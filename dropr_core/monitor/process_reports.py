"""What the processes of a node tell of themselves, and what the operating system tells of them.

Owns reading the reports in the run directory; one is believed only while its process holds its lock. Must not know
stores.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropr_core.angel.heartbeat import resident_bytes
from dropr_core.angel.status_file import AngelReport, read_state
from dropr_core.api.runtime import Runtime
from dropr_core.monitor.snapshot import Angel, Child, Daemon, Gateway, Longest, Monitor, Processes, Server, Worker
from dropr_core.system.locks import is_held
from dropr_core.system.os_errors import store_errors
from dropr_core.system.presence import living


def daemon_runs(node: Runtime) -> bool:
    """Whether a daemon works on this node now. Raises StoreError."""
    path = node.config.data / "daemon.lock"
    with store_errors(path):
        return is_held(path)


def daemon_report(node: Runtime) -> dict[str, Any] | None:
    """What the daemon tells of itself; None if none runs, empty if it tells nothing (yet)."""
    if not daemon_runs(node):
        return None
    try:
        return dict(json.loads((node.run_directory / "daemon.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def read_processes(node: Runtime, daemon: Mapping[str, Any] | None) -> Processes:
    """Those that live now. ``daemon``: its report, read before. Raises StoreError."""
    directory = node.run_directory
    with store_errors(directory):
        angel = read_state(directory / "angel.json") if is_held(directory / "angel.lock") else None
        found = {role: list(living(directory, role)) for role in ("server", "gateway", "worker", "monitor")}
    servers = {one.get("pid") for one in found["server"]}
    alone = [one for one in found["monitor"] if one.get("pid") not in servers]
    names = {child.pid: child.name for child in angel.children} if angel is not None else {}

    def common(role: str, report: Mapping[str, Any], file: str = "") -> dict[str, Any]:
        pid = report.get("pid")
        name = str(report.get("name") or names.get(pid, role))
        seen = _age_of(directory / (file or f"{role}-{pid}.json"))
        return {"pid": pid, "name": name, "last_report": seen, **_measured(pid)}

    return Processes(
        daemon=None if daemon is None else Daemon(
            store=str(daemon.get("store") or ""), waits_for=str(daemon.get("waits_for") or ""),
            outboxes={str(name): str(why) for name, why in (daemon.get("outboxes") or {}).items()},
            **common("daemon", daemon, "daemon.json"),
        ),
        servers=tuple(Server(urls=tuple(one.get("urls", ())), **common("server", one)) for one in found["server"]),
        gateways=tuple(
            Gateway(urls={name: tuple(urls) for name, urls in one.get("urls", {}).items()}, **common("gateway", one))
            for one in found["gateway"]
        ),
        pages=tuple(url for one in found["monitor"] for url in one.get("urls", ())),
        monitors=tuple(Monitor(urls=tuple(one.get("urls", ())), **common("monitor", one)) for one in alone),
        workers=tuple(_worker(one, common("worker", one)) for one in found["worker"]),
        angel=None if angel is None else _angel(angel, common("angel", {"pid": angel.pid}, "angel.json")),
    )  # fmt: skip


def _worker(report: Mapping[str, Any], common: Mapping[str, Any]) -> Worker:
    longest = report.get("longest")
    return Worker(
        channels=tuple(report.get("channels", ())),
        threads=report.get("threads", 0),
        tasks=report.get("tasks", 0),
        at_work=report.get("at_work", 0),
        longest=None if not longest else Longest(
            id=longest["id"], channel=longest["channel"],
            seconds=round(max(0.0, time.time() - longest["since"]), 1),
        ),
        **common,
    )  # fmt: skip


def _angel(report: AngelReport, common: Mapping[str, Any]) -> Angel:
    children = tuple(
        Child(
            name=one.name, state=one.state, pid=one.pid, restarts=one.restarts, last_exit=one.last_exit,
            next_start_in=None if one.next_start is None else round(max(0.0, one.next_start - time.time()), 3),
        )
        for one in report.children
    )  # fmt: skip
    return Angel(children=children, **common)


def _age_of(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return round(max(0.0, time.time() - path.stat().st_mtime), 3)
    return None


def _measured(pid: int | None) -> dict[str, Any]:
    """What the kernel counts of a process (proc(5)); each of it None where it does not tell."""
    found: dict[str, Any] = {"since": None, "memory": None, "cpu": None}
    if pid is not None and (usage := life_of(pid)) is not None:
        found["since"], found["cpu"] = usage
        found["memory"] = resident_bytes(pid)
    return found


def life_of(pid: int) -> tuple[float, float] | None:
    """Seconds that a process has lived, and seconds of a processor that it used; None where nobody can tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()  # its name may hold anything: count from behind it
        ticks = os.sysconf("SC_CLK_TCK")
        started = int(fields[19]) / ticks
        lived = time.clock_gettime(time.CLOCK_BOOTTIME) - started
        return round(max(0.0, lived), 1), round((int(fields[11]) + int(fields[12])) / ticks, 2)
    except (OSError, ValueError, IndexError, AttributeError):
        return None
