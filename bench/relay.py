"""A relay between two ports: it counts bytes each way, and may hold each piece back for a while. A process of its own.

Owns sockets and nothing else. Says ``port N`` when it is ready; answers each line on standard input with the bytes that
went there and back so far.
"""

import asyncio
import contextlib
import subprocess
import sys


class Relay:
    """The relay as its owner holds it."""

    def __init__(self, target: int, delay: float = 0.0, rate: float = 0.0) -> None:
        """``delay``: seconds that each way takes. ``rate``: bytes a second at most, each way; 0: as fast as it goes."""
        words = [sys.executable, __file__, str(target), str(delay), str(rate)]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        self.port = int(self._answer().split()[1])

    def counted(self) -> tuple[int, int]:
        """Bytes that went there, and back."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        there, back = self._answer().split()
        return int(there), int(back)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def close(self) -> None:
        """End it; safe twice."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


# ── inside of the process ────────────────────────────────────────────────────────────────────────


class _Counting:
    def __init__(self, target: int, delay: float, rate: float) -> None:
        self._target, self._delay, self._rate = target, delay, rate
        self.bytes = [0, 0]

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        ways = [asyncio.create_task(self._pour(reader, far, 0)), asyncio.create_task(self._pour(far_reader, writer, 1))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        far.close()

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(4096)

        async def deliver() -> None:
            while True:
                due, data = await pieces.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                writer.write(data)
                await writer.drain()

        late = asyncio.create_task(deliver()) if self._delay else None
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(int(self._rate / 10) or 256 * 1024):
                    self.bytes[way] += len(data)
                    if self._rate:
                        await asyncio.sleep(len(data) / self._rate)
                    if late is not None:
                        await pieces.put((loop.time() + self._delay, data))
                    else:
                        writer.write(data)
                        await writer.drain()
        finally:
            if late is not None:
                late.cancel()


async def _serve(target: int, delay: float, rate: float) -> None:
    counting = _Counting(target, delay, rate)
    server = await asyncio.start_server(counting.carry, "127.0.0.1", 0)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while await orders.readline():
        print(*counting.bytes, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
