"""The road to a node, or to the machines of a site: a TCP proxy that can be closed. A process of its own.

Owns sockets and nothing else; what travels is none of its business. Says ``port N`` when it is
ready, then obeys ``close`` and ``open`` on standard input and ends with it.
"""

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from typing import IO, cast

from dropr_core.errors import DroprError


class Road:
    """The proxy as its owner holds it."""

    def __init__(self, *targets: int) -> None:
        """A road to a port of this machine, or to several in turns, of which those that refuse are passed over; call
        `start`.
        """
        self.port = 0
        self._targets = targets
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> int:
        """Start the process; the port at which the road begins."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dropr_core.demo.road", *map(str, self._targets)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0,
        )  # fmt: skip
        self.port = int(self._answer().split()[1])
        return self.port

    def shut(self) -> None:
        """Refuse new connections and reset those there are."""
        self._say("close")

    def reopen(self) -> None:
        """Let traffic through again."""
        self._say("open")

    def _say(self, word: str) -> None:
        stream = cast("IO[str]", self._running.stdin)
        stream.write(f"{word}\n")
        stream.flush()
        self._answer()

    def _answer(self) -> str:
        line = cast("IO[str]", self._running.stdout).readline()
        if not line:
            raise DroprError("the demo's proxy ended by itself; its error is above")
        return line

    @property
    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise DroprError("the road was not started")
        return self._process

    def close(self) -> None:
        """End the process; safe twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


# ── inside of the process ────────────────────────────────────────────────────────────────────────


class _Proxy:
    def __init__(self, targets: Sequence[int]) -> None:
        self._targets = deque(targets)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # no lingering: the other side gets a reset, as from a cut road
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await self._reach()
            self._writers.add(far)
            ways = [asyncio.create_task(_pour(reader, far)), asyncio.create_task(_pour(far_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # nobody at home: the caller sees its connection end
        finally:
            for one in (writer, far):
                if one is not None:
                    self._writers.discard(one)
                    one.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the next target that takes one. Raises OSError where none does."""
        for _ in range(len(self._targets) - 1):
            self._targets.rotate(-1)
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._targets[0])
        self._targets.rotate(-1)
        return await asyncio.open_connection("127.0.0.1", self._targets[0])


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(256 * 1024):
            writer.write(data)
            await writer.drain()


async def _serve(targets: Sequence[int]) -> None:
    proxy = _Proxy(targets)
    await proxy.open()
    print(f"port {proxy.port}", flush=True)  # noqa: T201 - the protocol with the owner
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        word = line.decode().strip()
        if word == "close":
            proxy.shut()
        elif word == "open":
            await proxy.open()
        print(word, flush=True)  # noqa: T201
    proxy.shut()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(_serve([int(word) for word in sys.argv[1:]]))
