"""Foreign clients and servers for the tests of gateways: found, or the test is skipped with the reason.

Owns the rule: at home a missing client skips the test that needs it, and says how it is installed; with CI in the
environment it fails. Owns running scripts in other languages, and starting original servers on ports of their own.
Must not know a dialect.
"""

import contextlib
import functools
import importlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
from support.nodes import PATIENCE, free_port

NPM = Path(__file__).resolve().parents[1] / "gateways" / "clients"
"""Where npm's clients are installed; scripts in it find them by `require`."""
PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Servers of Debian stand where only root looks."""


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI: there nothing may be left out for want of a client."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must run the tests of foreign clients: {reason}", pytrace=False)
    pytest.skip(reason)


def program(name: str, package: str) -> str:
    """The path of a program; ``package``: who brings it on Debian."""
    found = shutil.which(name, path=PLACES)
    return found or missing(f"there is no {name} here; Debian: apt-get install {package}")


def module(name: str) -> ModuleType:
    """A Python package of the extra ``dev``."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"there is no Python package {name} here: make .venv/.installed")


def node(package: str) -> str:
    """The path of Node.js, where this npm package is installed for scripts in `NPM`."""
    path = program("node", "nodejs npm")
    if not (NPM / "node_modules" / package / "package.json").is_file():
        missing(f"there is no npm package {package} here: run .ci/install-clients")
    return path


def php(extension: str) -> str:
    """The path of PHP with this extension."""
    path = program("php", f"php-cli php-{extension}")
    _answers((path, "-r", f"exit(extension_loaded('{extension}') ? 0 : 1);"), f"php-{extension}")
    return path


def perl(package: str, debian: str) -> str:
    """The path of Perl with this package."""
    path = program("perl", "perl")
    _answers((path, f"-M{package}", "-e", "1"), debian)
    return path


def _answers(command: tuple[str, ...], package: str) -> None:
    if not _succeeds(command):
        missing(f"{command[0]} lacks what {package} brings; Debian: apt-get install {package}")


@functools.cache
def _succeeds(command: tuple[str, ...]) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE).returncode == 0


def run(
    *command: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None, cwd: Path | None = None,
    status: Sequence[int] = (0,),
) -> bytes:  # fmt: skip
    """What a foreign program writes; fails with all it said unless it ends with one of ``status``."""
    ended = subprocess.run(
        command, input=stdin, capture_output=True, check=False, timeout=2 * PATIENCE, cwd=cwd,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert ended.returncode in status, f"{command} ended with {ended.returncode}:\n{ended.stdout!r}\n{ended.stderr!r}"
    return ended.stdout


class Talker:
    """A client in another language that lives through a test: one line of JSON to it, one line back."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)

    def ask(self, *words: Any) -> Any:
        """Send one request and wait for its answer. An answer ``{"error": …}`` is raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the client ended with {self._process.wait(PATIENCE)}:\n{self._log.read_text()}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(answer["error"])
        return answer

    def close(self) -> None:
        """End it; safe twice."""
        self._process.kill()
        self._process.wait(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def server(command: Sequence[str], log: Path) -> Iterator[int]:
    """An original server on a free port of the loopback address, which stands in place of ``{port}``; its port."""
    port = free_port()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [word.replace("{port}", str(port)) for word in command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        await_port(port, process, log)
        yield port
    finally:
        process.kill()
        process.wait(PATIENCE)


def await_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return once somebody takes connections at the port."""
    ends = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > ends:
            raise AssertionError(f"{process.args!r} does not listen on {port}:\n{log.read_text(errors='replace')}")
        time.sleep(0.01)
