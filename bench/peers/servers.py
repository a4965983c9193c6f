"""Starting the servers of others for a measurement, each in a directory of its own, and ending them.

Owns processes, ports and waiting for them. Must not know what is measured.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

START = 60.0
"""Seconds within which a server must answer on its port."""


class NotStarted(Exception):
    """A server did not begin to answer; the text names its log."""


def free_port() -> int:
    """A TCP port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(command: Sequence[str], home: Path, port: int, **environment: str) -> Iterator[int]:
    """A server that runs while the block does. Gives its process id. Raises NotStarted."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, cwd=home, stdout=out, stderr=out, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        wait_for(child, port, log)
        yield child.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(20)


def wait_for(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when somebody listens on the port. Raises NotStarted."""
    ends = time.monotonic() + START
    while time.monotonic() < ends:
        if child.poll() is not None:
            raise NotStarted(f"it ended with {child.returncode}: {tail(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise NotStarted(f"nobody listens on port {port} after {START:.0f} s: {tail(log)}")


def tail(log: Path) -> str:
    """The end of a log, on one line."""
    return " | ".join(log.read_text(errors="replace").splitlines()[-4:])
