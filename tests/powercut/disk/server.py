"""The process that serves one mount, and the orders that it takes.

Owns the loop between the kernel and the test that started it: an order is a line of JSON on standard input and so is
its answer on standard output. When standard input closes it unmounts and ends, so no mount outlives its test. It is
a process of its own because a program that serves the file system it writes to can wait for itself for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import sys
from pathlib import Path

from powercut.disk import fuse, trees
from powercut.disk.controls import Controls
from powercut.disk.filesystem import FileSystem
from powercut.disk.operations import Operations


class Server:
    """Serves requests and orders, one at a time."""

    def __init__(self, disk: FileSystem, backing: Path, mountpoint: Path) -> None:
        self._controls = Controls(disk, backing)
        self._operations = Operations(disk, self._controls)
        self._mountpoint = mountpoint
        self._connection = fuse.Connection(fuse.mount(mountpoint))
        self._orders = b""
        """The beginning of an order, of which the rest has not come yet."""
        self._running = True

    def run(self) -> None:
        """Serve until the mount is taken away or standard input is closed."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection.fd, selectors.EVENT_READ, self._serve_kernel)
                selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._serve_test)
                while self._running:
                    for key, _ in selector.select():
                        key.data()
        finally:
            fuse.unmount(self._mountpoint)
            os.close(self._connection.fd)
        self._controls.stop()

    def _serve_kernel(self) -> None:
        try:
            request = self._connection.receive()
        except EOFError:
            self._running = False
            return
        if request is None or request.opcode in fuse.UNANSWERED:
            return
        try:
            body = self._operations.answer(request)
        except OSError as error:
            self._connection.reply(request, code=error.errno or 5)
        else:
            self._connection.reply(request, body)

    def _serve_test(self) -> None:
        read = os.read(sys.stdin.fileno(), 1 << 16)
        self._running = bool(read)
        *orders, self._orders = (self._orders + read).split(b"\n")
        for line in orders:
            order, about = json.loads(line)
            try:
                answer = self._controls.obey(order, about)
            except (OSError, TypeError, ValueError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            say(answer)


def say(answer: object) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(backing: str, mountpoint: str, sector: str, capacity: str) -> None:
    """Serve a file system that begins as a copy of the directory ``backing``."""
    disk = FileSystem(int(sector), int(capacity))
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        trees.load(disk, Path(backing))
        server = Server(disk, Path(backing), Path(mountpoint))
        say("mounted")
        server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
