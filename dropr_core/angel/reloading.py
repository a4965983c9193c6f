"""Telling a node's running processes to read its configuration again.

Owns whom to tell: the angel, which tells its children, or a daemon that runs without one. Servers read it by SIGHUP as
well, and one that changed it knows by itself; workers and gateways end by it, so only an angel, which starts them
again, may tell them.
"""

import contextlib
import json
import os
import signal
from pathlib import Path

from dropr_core.angel.status_file import read_state
from dropr_core.system.locks import is_held
from dropr_core.system.presence import living


def tell_to_reload(data: Path) -> tuple[str, ...]:
    """Send SIGHUP to the angel of the node in ``data``, else to its daemon and server; who was told.

    A process that cannot be told (another user's) is left alone.
    """
    run = data / "run"
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        report = read_state(run / "angel.json") if is_held(run / "angel.lock") else None
        if report is not None:
            found["angel"] = report.pid
    if not found:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if is_held(data / "daemon.lock"):
                found["daemon"] = int(json.loads((run / "daemon.json").read_text(encoding="utf-8"))["pid"])
        for report_of in living(run, "server"):
            if report_of["pid"] != os.getpid():
                found["server"] = int(report_of["pid"])
    told = []
    for role, pid in found.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGHUP)
            told.append(role)
    return tuple(told)
