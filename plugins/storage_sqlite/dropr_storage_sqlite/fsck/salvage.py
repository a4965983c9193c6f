"""Saving what can be read out of a damaged file.

Owns the copy of a damaged SQLite file, row by row, into a fresh one that takes its place. The damaged file
keeps every byte under another name. Must not know what the rows mean.

The order of names, so that a crash leaves either file whole: the copy is made as ``<half>.db.part`` and
renamed to ``<half>.db.fresh`` when it is complete and on stable storage; then the damaged file goes aside
(from here on the store is "gone" to everybody), then the fresh one takes its place.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import apsw
import attrs

from dropr_core.system.files import sync_directory, sync_file
from dropr_core.system.ownership import open_private
from dropr_storage_sqlite.engine.schema import APPLICATION, Schema

BAD = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.FormatError, UnicodeDecodeError)
"""What reading a damaged page raises."""

PAGE = 500
FARTHEST = 1 << 62


@attrs.frozen
class Saved:
    """What a copy holds, and what it does not."""

    rows: int
    gaps: int
    """Places at which something could not be read."""
    lost_tables: tuple[str, ...]
    """Tables of which nothing could be read."""
    aside: Path
    """Where the damaged file is now."""


def fresh_of(path: Path) -> Path:
    """A complete copy that waits to take the place of ``path``."""
    return path.with_name(path.name + ".fresh")


def salvage(path: Path, schema: Schema) -> Saved | None:
    """Put a copy of all that can be read in the place of a damaged file; None if not even its tables are known.

    Nobody else may have the file open.
    """
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        damaged = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        version = damaged.pragma("user_version")
        tables = [row[0] for row in damaged.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    except BAD:
        return None
    if not isinstance(version, int) or not 1 <= version <= schema.version or "meta" not in tables:
        return None
    os.close(open_private(part, os.O_CREAT | os.O_EXCL | os.O_RDWR))
    new = apsw.Connection(str(part))
    try:
        new.execute("PRAGMA journal_mode=OFF")
        new.execute("PRAGMA synchronous=OFF")
        new.execute("BEGIN")
        for step in schema.steps[:version]:
            new.execute(step)
        new.execute("DELETE FROM meta")
        rows = gaps = 0
        lost = []
        known = [str(row[0]) for row in new.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()]
        for table in known:
            if table.startswith("sqlite_"):
                continue
            copied, missed = _copy(damaged, new, table)
            rows, gaps = rows + copied, gaps + missed
            if missed and not copied:
                lost.append(table)
        new.execute(f"PRAGMA application_id={APPLICATION}")
        new.execute(f"PRAGMA user_version={version}")
        new.execute("COMMIT")
        new.execute("PRAGMA synchronous=FULL")
        new.execute("PRAGMA journal_mode=WAL")
        new.execute("UPDATE meta SET value = value WHERE key = 'flush'")
    finally:
        damaged.close()
        new.close()
    sync_file(part)
    sync_directory(part.parent)
    part.replace(fresh_of(path))
    return Saved(rows, gaps, tuple(lost), put_in_place(path))


def put_in_place(path: Path) -> Path:
    """Let the fresh copy take the place of ``path``; returns where the damaged file is now."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for tail in ("", "-wal", "-shm"):
        old = path.with_name(path.name + tail)
        if old.exists():
            old.replace(aside.with_name(aside.name + tail))
    sync_directory(path.parent)
    fresh_of(path).replace(path)
    sync_directory(path.parent)
    return aside


def _copy(damaged: apsw.Connection, new: apsw.Connection, table: str) -> tuple[int, int]:
    """Copy one table; returns (rows, gaps)."""
    columns = [str(row[1]) for row in new.execute(f"PRAGMA table_info({table})").fetchall()]
    keys = [str(row[1]) for row in new.execute(f"PRAGMA table_info({table})").fetchall() if row[5]]
    made_by = new.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchall()[0][0]
    without_rowid = "WITHOUT ROWID" in str(made_by)
    insert = f"INSERT OR IGNORE INTO {table} VALUES({', '.join('?' * len(columns))})"
    names = ", ".join(columns)
    walk = _both_ends(damaged, table, names, keys) if without_rowid else _by_rowid(damaged, table, names)
    rows = gaps = 0
    for row in walk:
        if row is None:
            gaps += 1
            continue
        new.execute(insert, row)
        rows += 1
    return rows, gaps


def _both_ends(damaged: apsw.Connection, table: str, names: str, keys: list[str]) -> Iterator[Any]:
    """Small tables: forwards up to the damage, then backwards up to it."""
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{key} {direction}" for key in keys)
        try:
            yield from damaged.execute(f"SELECT {names} FROM {table} ORDER BY {order}")  # noqa: S608
        except BAD:
            yield None
        else:
            return


def _by_rowid(damaged: apsw.Connection, table: str, names: str) -> Iterator[Any]:
    """Large tables: forwards, and around each damage by looking for the next key that can be read."""
    query = f"SELECT rowid, {names} FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid LIMIT ?"  # noqa: S608
    last = -1
    while True:
        count = 0
        try:
            for row in damaged.execute(query, (last, PAGE)):
                last, count = row[0], count + 1
                yield row[1:]
        except BAD:
            yield None
            following = _beyond(damaged, query, last)
            if following is None:
                return
            last = following
        else:
            if count < PAGE:
                return


def _first(damaged: apsw.Connection, query: str, after: int) -> int | Literal[False] | None:
    """The first key after ``after``; None if there is none, False if it cannot be read."""
    try:
        for row in damaged.execute(query, (after, 1)):
            return int(row[0])
    except BAD:
        return False
    return None


def _beyond(damaged: apsw.Connection, query: str, last: int) -> int | None:
    """The smallest key found from which on reading goes well again; None if it never does."""
    step, bad = 1, last
    while last + step <= FARTHEST:
        if _first(damaged, query, last + step) is not False:
            break
        bad, step = last + step, step * 2
    else:
        return None
    good = last + step
    while good - bad > 1:
        middle = (good + bad) // 2
        if _first(damaged, query, middle) is False:
            bad = middle
        else:
            good = middle
    return good
