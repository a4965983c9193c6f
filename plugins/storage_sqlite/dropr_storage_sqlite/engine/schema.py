"""The tables of both halves, their versions, and the way from one version to the next.

Owns every CREATE statement (docs/formats/sqlite.md explains them). Must not know what the tables
are used for.

A step of a migration is a script; all that are missing run in one transaction with the new version number. Steps are
only ever added at the end.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

import os
from pathlib import Path

import apsw
import attrs

from dropr_core.errors import StoreCorrupt, StoreGone
from dropr_core.storage_kit.migrating import own_version, too_new
from dropr_storage_sqlite.engine.rising import RISING, SPACING, TIMED

APPLICATION = 0x64726F70
"""``drop``: tells a file of dropr from any other SQLite file."""

_META = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO meta VALUES('flush', 0);
"""

_OUTBOX_1 = (
    _META
    + """
CREATE TABLE peer(name TEXT PRIMARY KEY, held INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
  log BLOB, cursor INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE lane(lane INTEGER PRIMARY KEY, peer TEXT NOT NULL, channel TEXT NOT NULL, priority INTEGER NOT NULL,
  last INTEGER NOT NULL DEFAULT 0, head INTEGER NOT NULL DEFAULT 0, head_id BLOB NOT NULL DEFAULT (zeroblob(16)),
  offered INTEGER NOT NULL DEFAULT 0, depth INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
  awaiting INTEGER NOT NULL DEFAULT 0, awaiting_bytes INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0,
  UNIQUE(peer, channel, priority));
CREATE TABLE delivery(place INTEGER PRIMARY KEY, id BLOB NOT NULL, born REAL NOT NULL, flags INTEGER NOT NULL,
  size INTEGER NOT NULL, expires REAL, due REAL, shared INTEGER, fingerprint BLOB, envelope BLOB);
CREATE INDEX delivery_id ON delivery(id);
CREATE INDEX delivery_due ON delivery(due) WHERE due IS NOT NULL;
CREATE TABLE shared(n INTEGER PRIMARY KEY, refs INTEGER NOT NULL, envelope BLOB NOT NULL);
CREATE TABLE ended(n INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL, lane INTEGER NOT NULL, seq INTEGER NOT NULL,
  state TEXT NOT NULL, at REAL NOT NULL, born REAL NOT NULL, forget REAL NOT NULL, flags INTEGER NOT NULL,
  size INTEGER NOT NULL, expires REAL, reason TEXT NOT NULL, result BLOB, result_type TEXT NOT NULL,
  shared INTEGER, fingerprint BLOB, envelope BLOB);
CREATE INDEX ended_id ON ended(id);
CREATE INDEX ended_forget ON ended(forget);
CREATE INDEX ended_place ON ended(lane, seq) WHERE seq > 0;
CREATE TABLE tally(lane INTEGER NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(lane, state))
  WITHOUT ROWID;
"""
)

_INBOX_1 = (
    _META
    + """
INSERT INTO meta VALUES('last', 0);
CREATE TABLE source(sender TEXT NOT NULL, store BLOB NOT NULL, channel TEXT NOT NULL, priority INTEGER NOT NULL,
  seq INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY(sender, store, channel, priority)) WITHOUT ROWID;
CREATE TABLE sender(sender INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last INTEGER NOT NULL DEFAULT 0);
CREATE TABLE queue(queue INTEGER PRIMARY KEY, channel TEXT NOT NULL, priority INTEGER NOT NULL,
  frontier INTEGER NOT NULL DEFAULT 0, ready INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0,
  leased INTEGER NOT NULL DEFAULT 0, blocked INTEGER NOT NULL DEFAULT 0, buried INTEGER NOT NULL DEFAULT 0,
  done INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, processed INTEGER NOT NULL DEFAULT 0,
  expired INTEGER NOT NULL DEFAULT 0, UNIQUE(channel, priority));
CREATE TABLE message(place INTEGER PRIMARY KEY, id BLOB NOT NULL, sender INTEGER NOT NULL, arrived REAL NOT NULL,
  flags INTEGER NOT NULL, size INTEGER NOT NULL, key TEXT, expires REAL, envelope BLOB NOT NULL);
CREATE INDEX message_id ON message(id);
CREATE TABLE ready(place INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE TABLE delayed(place INTEGER PRIMARY KEY, queue INTEGER NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL,
  reason TEXT NOT NULL);
CREATE INDEX delayed_due ON delayed(queue, due);
CREATE TABLE lease(place INTEGER PRIMARY KEY, token BLOB NOT NULL, consumer INTEGER NOT NULL, attempts INTEGER NOT NULL,
  flags INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE TABLE consumer(consumer INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, leases INTEGER NOT NULL DEFAULT 0);
CREATE TABLE holder(channel TEXT NOT NULL, key TEXT NOT NULL, place INTEGER NOT NULL, PRIMARY KEY(channel, key))
  WITHOUT ROWID;
CREATE TABLE blocked(channel TEXT NOT NULL, key TEXT NOT NULL, n INTEGER NOT NULL, place INTEGER NOT NULL,
  due REAL, PRIMARY KEY(channel, key, n)) WITHOUT ROWID;
CREATE TABLE ended(place INTEGER PRIMARY KEY, state TEXT NOT NULL, at REAL NOT NULL, forget REAL NOT NULL,
  attempts INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE INDEX ended_forget ON ended(forget);
CREATE TABLE expiry(expires REAL NOT NULL, place INTEGER NOT NULL, PRIMARY KEY(expires, place)) WITHOUT ROWID;
CREATE TABLE outcome(sender INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, id BLOB NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL, result BLOB, type TEXT NOT NULL, PRIMARY KEY(sender, number))
  WITHOUT ROWID;
"""
)


@attrs.frozen
class Schema:
    """One half's tables: the name of its file and the steps from nothing to the present version."""

    half: str
    steps: tuple[str, ...]

    @property
    def version(self) -> int:
        """The version that this code reads and writes."""
        return len(self.steps)


_OUTBOX_2 = """
ALTER TABLE lane ADD COLUMN total INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery RENAME TO delivery_1;
DROP INDEX delivery_id;
DROP INDEX delivery_due;
CREATE TABLE delivery(place INTEGER PRIMARY KEY, id BLOB NOT NULL, born REAL NOT NULL, flags INTEGER NOT NULL,
  size INTEGER NOT NULL, expires REAL, due REAL, shared INTEGER, fingerprint BLOB, total INTEGER NOT NULL,
  envelope BLOB);
INSERT INTO delivery
  SELECT place, id, born, flags, size, expires, due, shared, fingerprint, 0, envelope FROM delivery_1;
DROP TABLE delivery_1;
CREATE INDEX delivery_id ON delivery(id);
CREATE INDEX delivery_due ON delivery(due) WHERE due IS NOT NULL;
"""
"""A lane's row is no longer written by each append; the last delivery carries the running total of bytes."""

_WAITING = (
    f"lane CROSS JOIN delivery ON place > (lane << 43) + {1 << 42} + head AND place <= (lane << 43 | {(1 << 43) - 1})"
)
_OUTBOX_3 = f"""
ALTER TABLE lane ADD COLUMN floor INTEGER NOT NULL DEFAULT 0;
UPDATE lane SET floor = head;
DROP INDEX delivery_id;
UPDATE delivery SET flags = flags | 64
  WHERE flags & 76 = 0 AND (place >> 43 > {RISING} OR NOT {TIMED.format("id")});
UPDATE delivery SET flags = flags | 64 WHERE place IN (SELECT place FROM (
  SELECT place, id,
    max(id) OVER (PARTITION BY lane ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS top
  FROM {_WAITING} WHERE flags & 76 = 0) WHERE id <= top);
CREATE TABLE milestone(place INTEGER PRIMARY KEY, id BLOB NOT NULL);
INSERT INTO milestone SELECT place, ifnull(top, x'') FROM (
  SELECT lane, place, max(CASE WHEN flags & 76 = 0 THEN id END) OVER w AS top, row_number() OVER w AS n FROM {_WAITING}
  WINDOW w AS (PARTITION BY lane ORDER BY place)) WHERE lane <= {RISING} AND n % {SPACING} = 0;
CREATE INDEX milestone_id ON milestone(place >> 43, id);
CREATE INDEX delivery_id ON delivery(id) WHERE flags & 93 <> 0;
"""
"""Ids that rise with their places (`rising`) are in no index any more."""

OUTBOX = Schema("outbox", (_OUTBOX_1, _OUTBOX_2, _OUTBOX_3))
_INBOX_2 = """
CREATE TABLE ranked(place INTEGER PRIMARY KEY, rank INTEGER NOT NULL);
ALTER TABLE ready ADD COLUMN rank INTEGER;
CREATE INDEX ready_order ON ready(place >> 44, rank);
CREATE INDEX ended_buried ON ended(place) WHERE state = 'buried';
"""
"""Messages may have another rank than the first of their priority. The index gives out what is ready of a queue: those
that have not by arrival, then the others by rank and arrival."""

_KEPT = f"queue CROSS JOIN message ON place > queue << 44 AND place <= (queue << 44 | {(1 << 44) - 1})"
_INBOX_3 = f"""
ALTER TABLE queue ADD COLUMN swept INTEGER NOT NULL DEFAULT 0;
DROP INDEX message_id;
UPDATE message SET flags = flags | 128 WHERE NOT {TIMED.format("id")} OR place >> 44 NOT IN
  (SELECT queue FROM queue WHERE queue <= {RISING});
UPDATE message SET flags = flags | 128 WHERE place IN (SELECT place FROM (
  SELECT place, id,
    max(id) OVER (PARTITION BY queue ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS top
  FROM {_KEPT} WHERE flags & 128 = 0) WHERE id <= top);
CREATE TABLE milestone(place INTEGER PRIMARY KEY, id BLOB NOT NULL);
INSERT INTO milestone SELECT place, ifnull(top, x'') FROM (
  SELECT queue, place, max(CASE WHEN flags & 128 = 0 THEN id END) OVER w AS top, row_number() OVER w AS n FROM {_KEPT}
  WINDOW w AS (PARTITION BY queue ORDER BY place)) WHERE queue <= {RISING} AND n % {SPACING} = 0;
CREATE INDEX milestone_id ON milestone(place >> 44, id);
CREATE INDEX message_id ON message(id) WHERE flags & 128 <> 0;
"""
"""As in the outbox, ids that rise with their places are in no index any more."""

INBOX = Schema("inbox", (_INBOX_1, _INBOX_2, _INBOX_3))


def version_of(connection: apsw.Connection, path: Path, schema: Schema) -> int:
    """The version of an opened file; raises StoreTooNew, StoreCorrupt for what is not ours to read."""
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if version == 0 and application == 0:
        return 0
    if application != APPLICATION:
        raise StoreCorrupt(
            f"{path} is an SQLite file of another program (application id {application:#x}); move it away"
        )
    if version > schema.version:
        raise too_new(path, int(version), schema.version, _made_by(connection))
    return int(version)


def _made_by(connection: apsw.Connection) -> str:
    """The dropr that brought the file to its format; empty if that is not written down."""
    try:
        row = connection.execute("SELECT value FROM meta WHERE key = 'dropr'").fetchone()
    except apsw.Error:
        return ""
    return str(row[0]) if row else ""


def bring_up(connection: apsw.Connection, path: Path, schema: Schema) -> None:
    """Make the tables of an empty file, or bring an older one to the present version, in one transaction.

    For files that nobody else has open: new ones, and those that are repaired (`migration` sees to all others).
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(connection, path, schema)
        if version < schema.version:
            take_steps(connection, schema, version)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def take_steps(connection: apsw.Connection, schema: Schema, version: int) -> None:
    """All steps from ``version`` to the present one, within the caller's transaction."""
    for number, step in enumerate(schema.steps[version:], version):
        connection.execute(step)
        if number == 0:
            connection.execute("INSERT INTO meta VALUES('store', ?)", (os.urandom(8),))
            connection.execute("INSERT INTO meta SELECT 'birth', value FROM meta WHERE key = 'store'")
    connection.execute("INSERT OR REPLACE INTO meta VALUES('dropr', ?)", (own_version(),))
    connection.execute(f"PRAGMA application_id={APPLICATION}")
    connection.execute(f"PRAGMA user_version={schema.version}")


def birth_of(connection: apsw.Connection, path: Path) -> bytes:
    """The id that the file was created with; it never changes."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'birth'").fetchone()
    if row is None:
        raise StoreGone(f"{path} has no birth id: it is not the store that was here before")
    return bytes(row[0])
