"""Real processes for contract tests: a child that does something, tells about it, and can be killed.

Owns `Child`, and `Word`, by which it learns that it may go on. A child is a fork, so that any code of a test can run in
it, whatever module it stands in; make the children before the test opens anything with threads of its own. Must not
know what they do.
"""

import json
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Self

Say = Callable[[Any], None]
"""Tells the parent something that JSON can carry; it has it, whatever happens to the child afterwards."""


class Child:
    """One forked process. Used with ``with``: it is gone at the end of the block."""

    def __init__(self, work: Callable[[Say], None]) -> None:
        """Fork; the child waits for `go`, then calls ``work`` and ends."""
        self._reader, out = os.pipe()
        start, self._starter = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of other threads: the child uses nothing of theirs
            self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            os.close(self._starter)
            _run(work, start, out)
        os.close(out)
        os.close(start)
        self._buffer = b""
        self.code: int | None = None
        """How it ended: exit code, or minus the signal's number."""

    def go(self) -> Self:
        """Let it begin."""
        os.write(self._starter, b"g")
        return self

    def hear(self, seconds: float = 30.0) -> Any:
        """The next thing that it says; None when it has ended. AssertionError if it stays silent."""
        ends = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, ends - time.monotonic()))
            if not ready:
                raise AssertionError(f"a child process said nothing for {seconds:g} s")
            data = os.read(self._reader, 65536)
            if not data:
                self.wait()
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def rest(self) -> Iterator[Any]:
        """Everything else that it says, until it ends."""
        while (word := self.hear()) is not None:
            yield word

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; safe twice."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self, seconds: float = 30.0) -> int:
        """How it ended. AssertionError if it does not end; `close` kills it."""
        ends = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > ends:
                raise AssertionError(f"a child process does not end within {seconds:g} s")
            else:
                time.sleep(0.002)
        return self.code

    def close(self) -> None:
        """Kill it, close the pipes; safe twice."""
        self.kill()
        for name in ("_reader", "_starter"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Word:
    """Something that a parent tells its child once; made before the child. Used with ``with``, by the parent."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def give(self) -> None:
        """Tell it."""
        os.write(self._writer, b"g")

    def wait(self, seconds: float) -> bool:
        """Whether it was told within so many seconds."""
        return bool(select.select([self._reader], [], [], seconds)[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reader)
        os.close(self._writer)


def _run(work: Callable[[Say], None], start: int, out: int) -> None:
    """The child's life; never returns into the test."""
    code = 1
    try:
        if os.read(start, 1):
            work(lambda word: _write(out, json.dumps(word).encode() + b"\n"))
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


__all__ = ["Child", "Say", "Word"]
