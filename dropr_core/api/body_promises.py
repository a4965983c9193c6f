"""Large bodies whose message stands in a table of the user's, or will, if its transaction is committed.

Owns one small file for each, ``outboxes/<message id>-<random>`` in the data directory. While it is there no sweep takes
the body: a transaction may be open for hours, and a committed message may wait for a daemon for days. Written in two
steps, before and after the message is in the table:

    begun    the transaction is being written; whose process died before `made` never committed
    made     with the number of the transaction: whoever sees neither the row nor that transaction may let the body go

Must not know tables; who looks into them asks here which promises there are.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dropr_core.model.names import MessageId
from dropr_core.system.os_errors import store_errors
from dropr_core.system.ownership import make_private_directory, open_private


class Promise(NamedTuple):
    """One of them."""

    path: Path
    id: MessageId
    outbox: str
    made: bool
    transaction: str
    """What PostgreSQL calls it; empty elsewhere."""

    def end(self) -> None:
        """The message is in the outbox, or will never be. Never raises: it is looked at again."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class BodyPromises:
    """Those of one node. Safe from many threads and processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def begin(self, identity: MessageId, outbox: str) -> "Beginning":
        """The body is on stable storage, its message not in the table. Raises StoreError."""
        # Each has a name of its own: the same message may be sent in several transactions.
        path = self._directory / f"{identity.hex()}-{os.urandom(4).hex()}"
        with store_errors(path):
            make_private_directory(self._directory)
            fd = open_private(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
            fcntl.flock(fd, fcntl.LOCK_EX)
            _write(fd, outbox, made=False, transaction="")
        return Beginning(path, fd, outbox)

    def holds(self, identity: MessageId) -> bool:
        """Whether a body must stay though no outbox knows its message."""
        return any(path.name.startswith(identity.hex()) for path in self._paths())

    def all(self) -> Iterator[Promise]:
        """All that nobody is about to make."""
        for path in self._paths():
            with contextlib.suppress(OSError, ValueError):
                if (found := _read(path)) is not None:
                    yield found

    def _paths(self) -> list[Path]:
        try:
            return sorted(self._directory.iterdir())
        except OSError:
            return []


class Beginning:
    """A promise that this process is about to make."""

    def __init__(self, path: Path, fd: int, outbox: str) -> None:
        self._path, self._fd, self._outbox = path, fd, outbox

    def made(self, transaction: str) -> None:
        """The message is in the table, though not committed. Raises StoreError."""
        with store_errors(self._path):
            _write(self._fd, self._outbox, made=True, transaction=transaction)

    def close(self, *, made: bool) -> None:
        """Let go of it; the message is in the table, or was not written."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if not made:
                with contextlib.suppress(OSError):
                    self._path.unlink()
            os.close(fd)


def _write(fd: int, outbox: str, *, made: bool, transaction: str) -> None:
    """Replace the content in place: the file is never empty for long, and only its writer changes it."""
    document = {"outbox": outbox, "made": made, "transaction": transaction}
    os.pwrite(fd, json.dumps(document).encode().ljust(200) + b"\n", 0)
    os.fsync(fd)


def _read(path: Path) -> Promise | None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None  # its process lives, and is about to write the row
        document = json.loads(os.read(fd, 4096) or b"{}")
        identity = MessageId(bytes.fromhex(path.name.partition("-")[0]))
        words = str(document.get("outbox", "")), bool(document.get("made")), str(document.get("transaction", ""))
        return Promise(path, identity, *words)
    finally:
        os.close(fd)


__all__ = ["Beginning", "BodyPromises", "Promise"]
