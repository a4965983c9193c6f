"""`PowerCut`: a mounted file system whose power can be cut, for a test to hold in its hand.

Owns the life of the serving process and the orders to it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from powercut.disk import fuse
from powercut.disk.exploring import MAX_BYTES
from powercut.disk.filesystem import CAPACITY, SECTOR
from powercut.disk.survivors import Policy

TESTS = Path(__file__).resolve().parents[2]
"""The folder in which the package stands."""

PATIENCE = 100.0
"""Seconds that an order may take."""


def environment() -> dict[str, str]:
    """The environment in which ``python -m powercut.…`` finds this package."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))}


class PowerCut:
    """A mounted power-cut file system, over a directory that it begins as a copy of.

        with PowerCut(backing) as disk:
            disk.cut_at(40, "random", seed=7)
            subprocess.run([..., disk.path])   # another process: it fails when the power does
        # `backing` holds what a power cut can leave; without a cut it holds everything

    A program under test can read what the kernel has cached even after the cut: end it, as a cut would.
    ``sector`` and ``capacity`` are bytes.
    """

    def __init__(self, backing: Path, *, sector: int = SECTOR, capacity: int = CAPACITY) -> None:
        self.backing = backing
        self._sizes = (str(sector), str(capacity))
        self._server: subprocess.Popen[bytes] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="powercut-"))
        self.path = self._directory / "mnt"
        """Where it is mounted."""

    def __enter__(self) -> Self:
        self.backing.mkdir(parents=True, exist_ok=True)
        self.path.mkdir()
        command = [sys.executable, "-m", "powercut.disk.server", str(self.backing), str(self.path), *self._sizes]
        self._server = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._answer()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if code := self._stop():
            raise RuntimeError(f"the power-cut file system ended with {code}")

    def _stop(self) -> int:
        """Unmount; the exit code of the server."""
        server, self._server = self._server, None
        if server is None:
            return 0
        assert server.stdin
        assert server.stdout
        server.stdin.close()  # that is the order to stop
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            fuse.unmount(self.path)
        server.stdout.close()
        self.path.rmdir()
        self._directory.rmdir()
        return server.returncode

    def _answer(self) -> Any:
        assert self._server
        assert self._server.stdout
        ready, _, _ = select.select([self._server.stdout], [], [], PATIENCE)
        line = self._server.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError("the power-cut file system does not answer: what it said stands on standard error")
        return json.loads(line)

    def _order(self, name: str, **about: Any) -> dict[str, Any]:
        assert self._server, "not mounted"
        assert self._server.stdin
        self._server.stdin.write(json.dumps([name, about]).encode() + b"\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = self._answer()
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def cut(self, policy: Policy = "lose", seed: int = 0) -> None:
        """Cut the power now, if it was not cut yet."""
        self._order("cut", policy=policy, seed=seed)

    def cut_at(self, n: int, policy: Policy = "lose", seed: int = 0, operation: str = "any") -> None:
        """Cut the power when the ``n``-th change from now (of kind ``operation``) arrives, before it is made."""
        self._order("cut_at", n=n, policy=policy, seed=seed, operation=operation)

    def explore(
        self,
        folder: Path,
        policies: tuple[Policy, ...],
        ack_file: Path | None = None,
        *,
        seed: int = 0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """From now on write out every distinct disk that a cut could leave, for `survey` to find.

        ``ack_file`` is a file on another file system, to which the program under test appends a line each time that
        it was promised something. Assert `stats()["complete"]` afterwards: past ``max_bytes`` no more are written.
        """
        ack = None if ack_file is None else os.fspath(ack_file)
        plan = {"policies": policies, "seed": seed, "max_bytes": max_bytes}
        self._order("explore", folder=os.fspath(folder), ack_file=ack, **plan)

    def fault(self, operation: str, action: str, path: str = "*", *, skip: int = 0, times: int = 1) -> None:
        """Make an operation fail or lie: see `powercut.disk.faults.Fault`."""
        self._order("fault", operation=operation, action=action, path=path, skip=skip, times=times)

    def clear(self) -> None:
        """Forget all faults and plans."""
        self._order("clear")

    def settle(self) -> None:
        """Make everything durable, as if the machine had been idle for long."""
        self._order("settle")

    def stats(self) -> dict[str, Any]:
        """``dead``, ``counts`` of each operation, ``used`` bytes, ``images`` written, and whether ``complete``."""
        return self._order("stats")
