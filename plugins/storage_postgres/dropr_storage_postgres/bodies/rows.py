"""How a body stands in rows (docs/formats/postgres.md).

A leaf of 256 KiB is cut into 33 rows of 7,944 bytes (the last one shorter): one row fills a page of the database, and
COPY writes whole pages. Measured against rows of 1 MiB, which the server cuts into 2 KB itself, and against large
objects, which are the same: two to three times as fast (docs/decisions/0050-bodies-in-postgresql.md).

Owns the tables `body_page` and `body_part` and the shape of a row. Must not know who needs a body.
"""
# ruff: noqa: S608 -- statements are put together here from constants of this room only

import os
import struct
from typing import Any, NamedTuple

from psycopg import errors as pg

from dropr_core.errors import StoreCorrupt
from dropr_core.model.chunk_digest import LEAF, SIZE, count
from dropr_storage_postgres.engine.body_schema import PAGES
from dropr_storage_postgres.engine.connection import Connection

ROW = 7944
PER_LEAF = -(-LEAF // ROW)
PIECE = 4 * 1024 * 1024
"""Bytes written in one transaction; a multiple of a leaf."""
OWN = 16 * 1024 * 1024
"""A larger body has a table of its own: to drop it costs nothing, and leaves nothing to be vacuumed."""

SENT, ARRIVED, LOCAL, ASIDE = range(4)
"""Kinds: of a message of the outbox, of a peer's message, of a message put by this node itself; put away by a check."""
UNFINISHED, COMPLETE, ACCEPTED = range(3)
"""States. Accepted: its message was in the inbox; when that is gone, so is the need for the body."""

NOW = "extract(epoch FROM clock_timestamp())::float8"
_BEGIN = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)
_HEAD = struct.Struct(">hiqiii")


class Row(NamedTuple):
    """A body as the table `body` has it."""

    n: int
    own: bool
    size: int


def new_number() -> int:
    """A name for a body; also that of the lock of whoever writes it."""
    return int.from_bytes(os.urandom(8), "big") >> 2


def table_of(n: int, *, own: bool) -> str:
    """Where the pages of a body stand."""
    return f"body_page_{n:x}" if own else "body_page"


def row_at(offset: int) -> int:
    """The row in which a byte stands."""
    return offset // LEAF * PER_LEAF + offset % LEAF // ROW


def make_table(connection: Connection, row: Row) -> None:
    """Make the table that a large body has for itself."""
    if row.own:
        for statement in PAGES.format(name=table_of(row.n, own=True)).split(";"):
            connection.execute(statement, prepare=False)


def put(connection: Connection, row: Row, offset: int, data: memoryview, leaves: bytes) -> None:
    """Write a piece that begins at a leaf, and the digests of its leaves."""
    parts: list[bytes | memoryview] = [_BEGIN]
    for leaf in range(0, len(data), LEAF):
        at = row_at(offset + leaf)
        end = min(leaf + LEAF, len(data))
        for number, begin in enumerate(range(leaf, end, ROW)):
            page = data[begin : min(begin + ROW, end)]
            parts += (_HEAD.pack(3, 8, row.n, 4, at + number, len(page)), page)
    parts.append(_END)
    with connection.cursor().copy(f"COPY {table_of(row.n, own=row.own)} FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(b"".join(parts))
    connection.execute(
        "INSERT INTO body_part(body, at, size, leaves) VALUES (%s, %s, %s, %s)", (row.n, offset, len(data), leaves)
    )


def has_part(connection: Connection, row: Row, offset: int) -> bool:
    """Whether the piece that begins there is written."""
    found = connection.execute("SELECT 1 FROM body_part WHERE body = %s AND at = %s", (row.n, offset)).fetchone()
    return found is not None


def get(connection: Connection, row: Row, offset: int, size: int, what: str) -> bytes:
    """Exactly so many bytes. Raises StoreCorrupt if they are not there; ``what``: whose body it is."""
    if size <= 0:
        return b""
    first, last = row_at(offset), row_at(offset + size - 1)
    statement = (
        f"SELECT string_agg(data, ''::bytea) FROM (SELECT data FROM {table_of(row.n, own=row.own)} WHERE body = %s "
        "AND at BETWEEN %s AND %s ORDER BY at) AS pages"
    )
    try:
        found: Any = connection.execute(statement, (row.n, first, last), prepare=not row.own).fetchone()
    except pg.UndefinedTable:
        found = (None,)
    data = found[0] or b""
    begin = offset % LEAF % ROW
    if len(data) < begin + size or len(data) >= begin + size + ROW:
        raise StoreCorrupt(f"{what} is missing, or a part of it")
    return data if not begin and len(data) == size else bytes(data[begin : begin + size])


def leaves(connection: Connection, row: Row, offset: int, size: int, what: str) -> bytes:
    """The digests of the leaves of a range that begins at a leaf. Raises StoreCorrupt if they are not there."""
    rows = connection.execute(
        "SELECT at, leaves FROM body_part WHERE body = %s AND at + size > %s AND at < %s ORDER BY at",
        (row.n, offset, offset + size),
    ).fetchall()
    if rows and rows[0][0] <= offset:
        begin = (offset - rows[0][0]) // LEAF * SIZE
        found = b"".join(bytes(part) for _, part in rows)[begin : begin + count(size) * SIZE]
        if len(found) == count(size) * SIZE:
            return found
    raise StoreCorrupt(f"{what} is missing, or a part of it: there are no digests of its leaves")


def drop(connection: Connection, row: Row) -> None:
    """Remove a body."""
    if row.own:
        connection.execute(f"DROP TABLE IF EXISTS {table_of(row.n, own=True)}", prepare=False)
    else:
        connection.execute("DELETE FROM body_page WHERE body = %s", (row.n,))
    connection.execute("DELETE FROM body_part WHERE body = %s", (row.n,))
    connection.execute("DELETE FROM body WHERE n = %s", (row.n,))
