"""One connection to one file: how it is opened, what must be true of it, and how it is closed.

Owns the pragmas and their read-back, and the busy handler. Must not know tables.

`synchronous` belongs to the connection and not to the file, so every connection is checked: FULL
for what is promised, NORMAL for what may be repeated. In WAL mode a FULL commit flushes all that
NORMAL commits wrote before it, by whichever process.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import apsw

from dropr_core.errors import StoreError
from dropr_core.system.ownership import open_private
from dropr_storage_sqlite.engine.forking import FORKS
from dropr_storage_sqlite.engine.sqltypes import Connection

T = TypeVar("T")

MINIMUM = (3, 51, 3)
"""Older SQLite can damage a WAL that several processes write and checkpoint at once."""

NORMAL, FULL = 1, 2
CHECKPOINT_PAGES = 4000
WAL_LIMIT = 64 * 1024 * 1024

_READ_ONLY = apsw.SQLITE_OPEN_READONLY
_READ_WRITE = apsw.SQLITE_OPEN_READWRITE


def check_library() -> None:
    """Raise StoreError if the SQLite in this process is too old to be trusted."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < MINIMUM:
        raise StoreError(
            f"SQLite {apsw.sqlite_lib_version()} has a bug that damages files written by several processes; "
            "install apsw 3.51.3 or newer (pip install --upgrade apsw)"
        )


def patience(seconds: float) -> Callable[[int], bool]:
    """A busy handler that waits up to ``seconds``: short naps first, since commits take well below 1 ms."""
    give_up = 0.0

    def handler(tries: int) -> bool:
        nonlocal give_up
        now = time.monotonic()
        if tries == 0:
            give_up = now + seconds
        elif now >= give_up:
            return False
        time.sleep(0.00005 if tries < 10 else 0.0005 if tries < 50 else 0.005)
        return True

    return handler


def connect(path: Path, synchronous: int, busy: float, cache: int, *, read_only: bool = False) -> apsw.Connection:
    """Open ``path`` and make sure that every setting is as asked. Raises apsw errors and StoreError.

    ``busy`` in seconds, ``cache`` in bytes.
    """
    FORKS.check(path)
    if not read_only and os.geteuid() == 0:
        # SQLite keeps the owner of a database for its journals, but a database that root makes would be root's.
        with contextlib.suppress(FileExistsError):
            os.close(open_private(path, os.O_CREAT | os.O_EXCL | os.O_RDWR))
    connection = _open_to_look(path) if read_only else _open(str(path), _READ_WRITE)
    try:
        connection.set_busy_handler(patience(busy))
        # Plans from the query's text alone. Else (SQLite with STAT4) statements are planned anew whenever
        # certain parameters change: measured, 12 to 25 µs for what takes 2.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        if not read_only:
            _enter_wal(connection, busy)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA cache_size={-(cache // 1024)}")
        connection.execute("PRAGMA mmap_size=0")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA cell_size_check=ON")
        _read_back(connection, path, synchronous, read_only=read_only)
    except BaseException:
        connection.close()
        raise
    return connection


def _open(name: str, flags: int) -> apsw.Connection:
    return apsw.Connection(name, flags=flags, statementcachesize=200)


def _open_to_look(path: Path) -> apsw.Connection:
    """A connection that only reads, also where nothing can be written: a full disk, a backup that is mounted read-only.

    Reading in WAL mode takes an index in shared memory. Where its file is missing and cannot be made, and there is no
    WAL with anything in it, nobody works on the file, and it is read as one that does not change.
    """
    connection = _open(str(path), _READ_ONLY)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.IOError, apsw.FullError):
        connection.close()
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists() and wal.stat().st_size > 0:
            raise
        name = f"file:{quote(os.fsencode(path))}?immutable=1"
        return _open(name, _READ_ONLY | apsw.SQLITE_OPEN_URI)
    except BaseException:
        connection.close()
        raise
    return connection


def _enter_wal(connection: apsw.Connection, busy: float) -> None:
    """Switch to WAL. SQLite answers "locked" at once, whatever the busy handler says, when two
    processes do it together; so try again until ``busy`` seconds are over.
    """
    give_up = time.monotonic() + busy
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except (apsw.BusyError, apsw.LockedError):
            if time.monotonic() > give_up:
                raise
            time.sleep(0.005)
        else:
            return


def _read_back(connection: apsw.Connection, path: Path, synchronous: int, *, read_only: bool) -> None:
    wanted: dict[str, object] = {"synchronous": synchronous, "wal_autocheckpoint": CHECKPOINT_PAGES}
    if not read_only:
        wanted["journal_mode"] = "wal"
    for pragma, value in wanted.items():
        found = connection.pragma(pragma)
        if found != value:
            raise StoreError(f"{path}: SQLite would not set {pragma} to {value!r} (it is {found!r}); is it on NFS?")
    mmap = connection.pragma("mmap_size")
    if mmap not in {0, None}:
        raise StoreError(f"{path}: SQLite would not turn memory mapping off (mmap_size is {mmap!r})")


def in_one_view(job: Callable[[Connection], T], reader: apsw.Connection, cursor: apsw.Cursor) -> T:
    """What ``job`` reads, all of one moment."""
    cursor.execute("BEGIN")
    try:
        return job(reader)
    finally:
        if reader.in_transaction:
            cursor.execute("COMMIT")


def errno_of(connection: apsw.Connection | None) -> int:
    """The operating system's last error that it met; 0 if there is none."""
    try:
        return 0 if connection is None else connection.system_errno
    except apsw.Error:
        return 0


def close(connection: apsw.Connection, *, keep_log: bool = False) -> None:
    """Close it, whatever it is in the middle of. ``keep_log``: SQLite's last one copies the log and removes it, unless
    it is told not to.
    """
    try:
        if keep_log:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close()
    except apsw.Error:
        connection.close(force=True)
