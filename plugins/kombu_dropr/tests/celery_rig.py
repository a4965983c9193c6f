"""Real workers of Celery for the tests: processes, with bounded waiting and clean ends."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from support.nodes import PATIENCE, eventually


class Worker:
    """`celery -A celery_tasks worker` for one node's YAML file."""

    def __init__(self, file, marks, name="worker", pool="prefork", concurrency=1, options=()):
        self.log = Path(marks) / f"{name}.log"
        self.name = f"{name}@test"
        environment = {
            **os.environ, "CELERY_TEST_BROKER": f"dropr://{file}", "CELERY_TEST_MARKS": str(marks),
            "PYTHONPATH": str(Path(__file__).parent), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        environment.pop("DROPR_CONFIG", None)
        self._command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "celery_tasks", "worker",
                         "-n", self.name, "-P", pool, "-c", str(concurrency), "-l", "info", "--without-heartbeat",
                         *options]  # fmt: skip
        self._environment = environment
        self._starts = 0
        self.start()

    def start(self):
        """Start it, or again; returns once it says that it is ready."""
        self._starts += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        eventually(self._ready, 2 * PATIENCE, f"{self.name} is ready")

    def _ready(self):
        assert self._process.poll() is None, self.text
        return self.text.count(" ready.") >= self._starts

    @property
    def text(self):
        """What it has written."""
        return self.log.read_text(errors="replace")

    @property
    def pid(self):
        """That of its main process."""
        return self._process.pid

    def stop(self):
        """As an operator does it; its exit code."""
        self._process.terminate()
        return self._process.wait(2 * PATIENCE)

    def kill(self):
        """All its processes, at once: they are a group of their own. Safe twice."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def effects(marks):
    """What tasks have noted: line → how often."""
    path = Path(marks) / "effects"
    return Counter(path.read_text().splitlines() if path.exists() else [])
