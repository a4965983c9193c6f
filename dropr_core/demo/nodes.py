"""The demo's nodes: their configurations, their angels, and what the angels said.

Owns processes: every one that it starts it also ends. Must not know what the nodes are used for.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dropr_core.angel.status_file import AngelReport, read_state
from dropr_core.errors import DroprError

STOP_PATIENCE = 10.0
"""Seconds that an angel gets to end before it is killed; its children end with its lifeline."""


class Village:
    """All nodes of the demo under one directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._angels: dict[str, subprocess.Popen[bytes]] = {}

    def directory(self, name: str) -> Path:
        """Everything of one node."""
        return self.home / name

    def file(self, name: str) -> Path:
        """The node's configuration."""
        return self.directory(name) / "node.yaml"

    def add(self, name: str, config: Mapping[str, Any]) -> None:
        """Write a node's configuration."""
        self.directory(name).mkdir(mode=0o700)
        text = yaml.safe_dump({"node": name, "data": "./data", **config}, sort_keys=False)
        self.file(name).touch(mode=0o600)
        self.file(name).write_text(text, encoding="utf-8")

    def start(self, name: str) -> None:
        """Start the node's angel: a process of its own, which starts the node's processes."""
        self._status_file(name).unlink(missing_ok=True)  # of the life before this one
        with (self.directory(name) / "angel.log").open("ab") as log:
            self._angels[name] = subprocess.Popen(
                [sys.executable, "-m", "dropr_core", "up", "-c", str(self.file(name))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                process_group=0,  # Ctrl-C reaches the demo alone, which then ends the angels in order
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """Kill everything of it at once, as when a machine loses its power; `start` brings it back."""
        report = self.report(name)
        angel = self._angels.pop(name)
        for pid in (angel.pid, *(child.pid for child in (report.children if report else ()))):
            if pid is not None:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        self._kill(name, angel)

    def report(self, name: str) -> AngelReport | None:
        """What the node's angel last said of its children. Raises DroprError if the angel is gone."""
        code = self._angels[name].poll()
        if code is not None:
            raise DroprError(f"the angel of {name} ended with exit code {code}")
        return read_state(self._status_file(name))

    def _status_file(self, name: str) -> Path:
        return self.directory(name) / "data" / "run" / "angel.json"

    def ready(self, names: Sequence[str]) -> bool:
        """Whether every process of these nodes runs and serves."""
        reports = [self.report(name) for name in names]
        return all(report is not None and all(c.state == "running" for c in report.children) for report in reports)

    def pid(self, name: str, role: str) -> int | None:
        """The process that has this role at this node now; None while there is none that serves."""
        report = self.report(name)
        for child in report.children if report else ():
            if child.name == role and child.state == "running":
                return child.pid
        return None

    def restarts(self) -> dict[str, int]:
        """``node role`` → how often its angel had to start it again."""
        counts: dict[str, int] = {}
        for name in self._angels:
            with contextlib.suppress(DroprError):
                report = self.report(name)
                counts |= {f"{name} {c.name}": c.restarts for c in (report.children if report else ()) if c.restarts}
        return counts

    def tail(self, name: str, lines: int = 12) -> list[str]:
        """The last lines of the angel's log, which is also that of its children."""
        try:
            text = (self.directory(name) / "angel.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()[-lines:]

    @property
    def names(self) -> list[str]:
        """The nodes whose angels were started."""
        return list(self._angels)

    def close(self) -> None:
        """End every angel and with it every process of the nodes; safe twice."""
        angels, self._angels = dict(self._angels), {}
        for angel in angels.values():
            with contextlib.suppress(ProcessLookupError):
                angel.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_PATIENCE
        for name, angel in angels.items():
            try:
                angel.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._kill(name, angel)

    def _kill(self, name: str, angel: "subprocess.Popen[bytes]") -> None:
        report = read_state(self._status_file(name))
        angel.kill()
        angel.wait()
        for child in report.children if report else ():
            if child.pid is not None:
                with contextlib.suppress(OSError):
                    os.kill(child.pid, signal.SIGKILL)


def free_port() -> int:
    """A port of the loopback interface that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shop_config(peers: Mapping[str, str], key: str, storage: str) -> dict[str, Any]:
    """The sender: ``peers`` is name → url. A peer rests for 2 s at most: nobody watches a demo for a minute."""
    return _common(storage) | {
        "delivery": {"backoff_max": "2s"},
        "peers": {name: {"url": url, "key": key, "fetch": False} for name, url in peers.items()},
        "groups": {"everywhere": list(peers)},
        "channels": {
            "files": {"to": "warehouse"},
            "orders": {"to": "warehouse", "serializer": "json"},
            "jobs": {"to": "warehouse", "receipt": True, "priority": 3},
            "news": {"to": "everywhere", "serializer": "json"},
        },
        "run": ["daemon"],
    }


def receiver_config(url: str, key: str, storage: str | Mapping[str, str], *, worker: bool) -> dict[str, Any]:
    """A node that gets mail from the shop, and with ``worker`` handles jobs."""
    channels: dict[str, Any] = {"orders": {"serializer": "json"}, "news": {"serializer": "json"}}
    if worker:
        channels["jobs"] = {"handler": "python:dropr_core.demo.handlers:on_job"}
    return _common(storage) | {
        "listen": [url],
        "peers": {"shop": {"mode": "pull", "key": key}},
        "channels": channels,
        "run": ["server", "worker"] if worker else ["server"],
    }


def machine_config(listen: str, key: str, storage: Mapping[str, str]) -> dict[str, Any]:
    """A machine of the node `warehouse`; all of them have the same ``storage``."""
    return receiver_config(listen, key, storage, worker=True) | {
        "node": "warehouse", "run": ["server", "daemon", "worker"],
    }  # fmt: skip


def _common(storage: str | Mapping[str, str]) -> dict[str, Any]:
    return {"storage": storage, "limits": {"min_free": 0}, "angel": {"drain": "5s"}}


def make_key() -> str:
    """A secret for this one run."""
    return secrets.token_hex(32)
