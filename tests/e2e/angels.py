"""One angel in a process of its own, children for it, and what they wrote."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dropr_core.angel.status_file import read_state

DRIVER = """
import ctypes, json, logging, sys
from pathlib import Path
from dropr_core.angel.angel import Angel, ChildSpec
from dropr_core.angel.systemd import ServiceManager
wish = json.loads(sys.argv[1])
logging.basicConfig(level="DEBUG", format="%(message)s")
if wish.pop("subreaper"):
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
specs = [
    ChildSpec(name, what if isinstance(what, list) else [sys.executable, "-c", what])
    for name, what in wish.pop("children").items()
]
wish["state_file"] = Path(wish["state_file"])
wish["backoff"] = tuple(wish["backoff"])
sys.exit(Angel(specs, manager=ServiceManager.from_environment(), **wish).run())
"""
# A well-behaved child: writes a line for its start and for each thing that happens to it.
PRELUDE = """
import os, select, signal, sys, time
from dropr_core.angel.heartbeat import Heartbeat
here = {here!r}
def note(word):
    with open(here, "a") as file:
        file.write(f"{{word}} {{os.getpid()}}\\n")
heart = Heartbeat.from_environment()
note("start")
"""
LOOP = """
got = []
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: got.append(number))
heart.ready()
note("ready")
while True:
    heart.beat()
    readable, _, _ = select.select([reader, heart.lifeline], [], [], heart.interval)
    if reader in readable:
        os.read(reader, 100)
    if signal.SIGHUP in got:
        got.remove(signal.SIGHUP)
        note("reload")
    if heart.orphaned:
        note("orphaned")
        sys.exit(0)
    if signal.SIGTERM in got:
        note("drained")
        sys.exit(0)
"""
DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
heart.ready()
note("ready")
time.sleep(600)
"""


def until(condition, what: str, timeout: float = 60.0):
    """Poll with a bound; the condition's first true value."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}")


class Heaven:
    """One angel in a process of its own, and what its children wrote."""

    def __init__(self, path: Path) -> None:
        self.path, self.process, self.log = path, None, path / "log"

    def child(self, name: str, body: str = LOOP) -> str:
        return PRELUDE.format(here=str(self.path / name)) + body

    def start(self, children: dict[str, object], env: dict[str, str] | None = None, **wish: object) -> None:
        wish = {
            "children": children,
            "state_file": str(self.path / "angel.json"),
            "backoff": [0.01, 0.1],
            "subreaper": False,
            **wish,
        }
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", DRIVER, json.dumps(wish)]
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, **(env or {})})

    def notes(self, name: str, word: str) -> list[int]:
        """The pids that wrote this word."""
        try:
            lines = (self.path / name).read_text().splitlines()
        except FileNotFoundError:
            return []
        return [int(line.split()[1]) for line in lines if line.split()[0] == word]

    def wait_for(self, name: str, word: str, count: int = 1) -> list[int]:
        def enough():
            notes = self.notes(name, word)
            return notes if len(notes) >= count else None

        try:
            return until(enough, f"{count} × {word} of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()}") from None

    def report(self, name: str):
        report = read_state(self.path / "angel.json")
        return next((child for child in report.children if child.name == name), None) if report else None

    def wait_state(self, name: str, state: str):
        def there():
            child = self.report(name)
            return child if child is not None and child.state == state else None

        return until(there, f"{name} {state}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process is None:
            return
        report = read_state(self.path / "angel.json")
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for child in report.children if report else ():
            if child.pid is not None and not gone(child.pid):
                os.kill(child.pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether the process ended (a zombie whose new parent is slow counts as ended)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rsplit(")", 1)[1].split()[0] in "ZX"
