"""Writing a large file behind whoever makes its pieces, and giving the disk work before the end.

Owns the threads and when they write and sync. Must not know what is written. Reading and hashing a piece, writing the
one before it and the disk's own work take about the same time each, and none of them needs the interpreter.
"""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

STROKE = 128 * 1024
"""Bytes given to the file system at once. For more of them Linux takes memory in larger blocks, which on a virtual
machine are those that were handed back to the host: getting one again takes up to fifteen times as long as its copy.
"""

SYNC_EVERY = 4 * 1024 * 1024
"""Bytes after which the disk is given work, beside the writing, so that the end has not all of it. Few, because
a commit of anybody on this disk waits for what was given before it.
"""

UNSYNCED = 2 * SYNC_EVERY
"""Bytes written at most while a sync is under way: a disk that takes long for one holds the writing up only then, and
one that is slow keeps nobody waiting for more.
"""

AHEAD = 8
"""Pieces that wait for the writer at most."""


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte: `os.write` may take less. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view[:STROKE]) :]


class EarlySync:
    """Syncs one file now and then while it is written. Used by one thread at a time."""

    def __init__(self, fd: int, disk: ThreadPoolExecutor) -> None:
        """``disk``: where the syncs run, one after the other."""
        self._fd, self._disk = fd, disk
        self._flush: Future[None] | None = None
        self._since = 0

    @property
    def behind(self) -> bool:
        """Whether something was written that no sync was begun for."""
        return self._since > 0

    def wrote(self, count: int) -> None:
        """So many bytes more stand in the file. Raises OSError: what an earlier sync met."""
        self._since += count
        # One that waits for the syncs of other bodies is not under way: together they would leave the disk too much.
        busy = self._flush is not None and self._flush.running()
        if self._since >= (UNSYNCED if busy else SYNC_EVERY):
            self.wait()
            self._since = 0
            self._flush = self._disk.submit(os.fdatasync, self._fd)

    def wait(self) -> None:
        """Until what the disk was given last is there. Raises OSError."""
        flush, self._flush = self._flush, None
        if flush is not None:
            flush.result()


class WriteBehind:
    """Writes one file, from where it stands. When it is left no thread touches the file any more.

    The first piece is written by the caller, since most bodies have no second one; and all of them where no thread is
    to be had: too many of them, or the interpreter ends.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending: deque[Future[None]] = deque()
        self._pieces = 0
        self._threads: list[ThreadPoolExecutor] = []
        self._writer: ThreadPoolExecutor | None = None
        self._sync: EarlySync | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:  # the writer first: it gives the other one work
            thread.shutdown(cancel_futures=True)

    def write(self, piece: bytes) -> None:
        """Take what follows; it must not change any more. Raises OSError: what an earlier piece met, too."""
        self._pieces += 1
        if self._pieces == 2:
            self._start()
        if self._writer is None:
            write_all(self._fd, piece)
            return
        if len(self._pending) >= AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._writer.submit(self._write, piece))

    def finish(self) -> None:
        """Until every piece stands in the file; the last of them are not on the disk yet. Raises OSError."""
        while self._pending:
            self._pending.popleft().result()
        if self._sync is not None:
            self._sync.wait()

    def _start(self) -> None:
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"dropr-body-{name}") for name in ("write", "disk")]
        try:
            for thread in self._threads:
                thread.submit(int).result()  # none is begun later: what met an error then would be written twice
        except RuntimeError:
            return
        self._writer, self._sync = self._threads[0], EarlySync(self._fd, self._threads[1])

    def _write(self, piece: bytes) -> None:
        assert self._sync is not None
        write_all(self._fd, piece)
        self._sync.wrote(len(piece))
