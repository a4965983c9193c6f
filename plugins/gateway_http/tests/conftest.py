"""A node with a gateway of its own process, as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # http_callers

PATIENCE = 60.0


class Door:
    """A node whose gateway process can be started, killed and started again."""

    def __init__(self, directory: Path, options: dict, **more) -> None:
        self.directory, self.file = directory, directory / "node.yaml"
        config = {
            "node": "door", "data": "./data", "limits": {"min_free": 0},
            "gateways": {"http": {"listen": "http://127.0.0.1:0", **options}}, **more,
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(config))
        self.process: subprocess.Popen | None = None
        self.url = ""
        self.log = directory / "gateway.log"

    def start(self) -> "Door":
        """Run it, and find its address."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dropr_core", "gateway", "-c", str(self.file)], stdout=out, stderr=out,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        report = self.directory / "data" / "run" / f"gateway-{self.process.pid}.json"
        ends = time.monotonic() + PATIENCE
        while not report.exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < ends, self.log.read_text()
            time.sleep(0.02)
        text = report.read_text()
        self.url = next(word for word in _texts(json.loads(text)) if word.startswith("http")).rstrip("/")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """As the power does."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """As the system does; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(PATIENCE)

    def ask(self, method: str, path: str, **more) -> requests.Response:
        """One request."""
        return requests.request(method, self.url + path, timeout=PATIENCE, **more)

    def counts(self, channel: str) -> dict:
        """Of one channel."""
        return self.ask("GET", f"/channels/{channel}").json()


def _texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


@pytest.fixture
def make_door(tmp_path):
    """Makes doors; all are ended."""
    made = []

    def make(options: dict | None = None, **more) -> Door:
        directory = tmp_path / f"door{len(made)}"
        directory.mkdir()
        made.append(Door(directory, options or {}, **more))
        return made[-1]

    yield make
    for door in made:
        if door.process is not None and door.process.poll() is None:
            door.process.kill()
            door.process.wait(PATIENCE)


@pytest.fixture
def door(make_door):
    """One that runs."""
    return make_door().start()
