"""A log that may have a hole is written again.

After an error of a sync the kernel takes for written what it could not write, so that a later sync succeeds over a
hole, at which a log that is read after a power cut ends. Its pages are given to the disk once more: then the next sync
tells the truth. Nobody has to let go of the log for that, and SQLite keeps writers away while it is done.

Not a checkpoint: it copies into the database what stands behind the hole, and a power cut before the log is gone for
good would leave both, the log up to its hole on top of a newer database.

What the kernel still has of those pages depends on the file system: ext4 and XFS keep what was written, Btrfs goes back
to what is on the disk. SQLite does not compare the checksums of frames that its index knows; so it is done here.

Owns the bytes of the log's frames. Must not know why the log is in doubt, nor who is told.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw

from dropr_core.errors import StoreReadOnly
from dropr_core.storage_kit.syncs import Syncs
from dropr_core.system.files import write_again
from dropr_storage_sqlite.engine import connection as opening
from dropr_storage_sqlite.engine.wal import FLUSH

_HEADER = struct.Struct(">IIIIIIII")
"""magic, version, page size, checkpoints, two salts, two checksums."""
_FRAME = struct.Struct(">IIIIII")
"""page, pages of the database behind a commit, two salts, two checksums."""
_WORD = 0xFFFFFFFF
TRIES = 5
"""Between writing and comparing another process, which is done with mending, may begin the log anew: it has fewer
frames then. What the disk has lost stays lost.
"""


def mend(connection: apsw.Connection, path: Path, syncs: Syncs) -> None:
    """Write the log of ``path`` again, with a commit behind it, and sync it; then nobody is in doubt any more.

    Raises apsw.Error, OSError; StoreReadOnly if a part of it is lost.
    """
    log, met = Path(f"{path}-wal"), syncs.before_mending()
    for _ in range(TRIES):
        frames = _write_again(connection, log)
        whole = _compare(connection, log)
        if whole >= frames:
            syncs.mended(met)
            return
    raise StoreReadOnly(
        f"{path}: the disk has lost a part of the log ({frames - whole} of {frames} frames), of what was not "
        "promised to anybody yet; stop all processes of this node and start them again: they begin with what is "
        "whole; look at the kernel's log"
    )


def _write_again(connection: apsw.Connection, log: Path) -> int:
    """How many frames all connections take for committed then."""
    frames = 0

    def committed(_connection: apsw.Connection, _name: str, pages: int) -> int:
        nonlocal frames
        frames = pages
        return 0

    connection.set_wal_hook(committed)  # instead of SQLite's own, which might begin a checkpoint
    try:
        with _alone(connection):
            connection.execute(FLUSH)
            _sync_again(log)
            connection.execute("COMMIT")
    finally:
        connection.execute(f"PRAGMA wal_autocheckpoint={opening.CHECKPOINT_PAGES}")
    return frames


def _compare(connection: apsw.Connection, log: Path) -> int:
    """`whole_frames`, while nobody can begin the log anew. (The log's index knows how many frames there are, too; but
    who opens and closes that file gives up the locks that SQLite has on it in this process.)
    """
    with _alone(connection):
        return whole_frames(log)


@contextlib.contextmanager
def _alone(connection: apsw.Connection) -> Iterator[None]:
    """Writers are kept away."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def close_last(close: Callable[[], None], path: Path, syncs: Syncs) -> None:
    """Close all connections of this process. The last one that anybody has copies the log, and keeps to itself what it
    met when it synced it.
    """
    syncs.begin()
    try:
        close()
        if syncs.is_alone() and _is_left(path):
            syncs.met()
    finally:
        syncs.end()
        syncs.close()


def _is_left(path: Path) -> bool:
    log = Path(f"{path}-wal")
    return log.exists() and log.stat().st_size > 0


def _sync_again(log: Path) -> None:
    fd = os.open(log, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        write_again(fd, 0, os.fstat(fd).st_size)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def whole_frames(log: Path) -> int:
    """How many frames a log has whose checksums are right, each of which contains all that stands before it."""
    with log.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            return 0
        magic, _, size, _, salt, other, *check = _HEADER.unpack(head)
        add = _adder("<" if magic & 1 == 0 else ">")
        if add((0, 0), head[:24]) != tuple(check):
            return 0
        whole, before = 0, (check[0], check[1])
        while len(frame := file.read(_FRAME.size + size)) == _FRAME.size + size:
            _, _, *salts, first, second = _FRAME.unpack_from(frame)
            before = add(add(before, frame[:8]), frame[_FRAME.size :])
            if salts != [salt, other] or before != (first, second):
                break
            whole += 1
        return whole


def _adder(order: str) -> Callable[[tuple[int, int], bytes], tuple[int, int]]:
    """The checksum of SQLite ("WAL file format"), over numbers of this order of bytes."""
    pairs = struct.Struct(f"{order}II")

    def add(before: tuple[int, int], data: bytes) -> tuple[int, int]:
        first, second = before
        for even, odd in pairs.iter_unpack(data):
            first = (first + even + second) & _WORD
            second = (second + odd + first) & _WORD
        return first, second

    return add
