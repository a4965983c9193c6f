"""The tables of a store, their versions, and the way from one version to the next.

Owns every CREATE statement (docs/formats/postgres.md explains them), and that whoever opens first makes them, alone
among all machines. Must not know what the tables are used for.

A step of a migration is a script that runs in one transaction with the new version number; steps are only ever added
at the end. Each part has steps and a version of its own. Before the first step the store is copied (`copying.py`).
"""

import os

import attrs
from psycopg.errors import LockNotAvailable, error_from_result
from psycopg.pq import ExecStatus

from dropr_core.errors import StoreBusy, StoreGone, StoreTooNew
from dropr_core.model.names import make_store_id
from dropr_core.storage_kit.migrating import RUNBOOK, own_version
from dropr_storage_postgres.engine.body_schema import BODIES
from dropr_storage_postgres.engine.copying import copy_store
from dropr_storage_postgres.engine.inbox_schema import INBOX
from dropr_storage_postgres.engine.shared_schema import SHARED
from dropr_storage_postgres.engine.types import Connection

META = """
CREATE TABLE meta(key text COLLATE "C" PRIMARY KEY, n bigint NOT NULL DEFAULT 0, value bytea);
CREATE UNLOGGED TABLE era(one boolean PRIMARY KEY DEFAULT true, token bytea NOT NULL);
"""
"""Small facts: `birth`, `node`, `dropr` (value), `version PART` (n), `store PART` (value), and what parts put here.
`era` is empty after each crash of the server, which empties unlogged tables; the next session writes a token there."""

VACUUM = (
    "autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold={rows}, autovacuum_vacuum_cost_delay=0, "
    "autovacuum_analyze_scale_factor=0, autovacuum_analyze_threshold=1000000, autovacuum_vacuum_insert_threshold=-1"
)
"""A queue leaves as many dead rows as messages: they are cleared away by their number, and not by a share of a table
that may be long at the time. Nothing is planned by statistics, so that they are gathered rarely."""
LOG, SMALL = VACUUM.format(rows=20000), VACUUM.format(rows=200)

OUTBOX = (
    f"""
CREATE TABLE peer(name text COLLATE "C" PRIMARY KEY, held boolean NOT NULL DEFAULT false, reason text NOT NULL
  DEFAULT '', log bytea, cursor bigint NOT NULL DEFAULT 0) WITH (fillfactor=50, {SMALL});
CREATE TABLE lane(lane integer GENERATED ALWAYS AS IDENTITY (MINVALUE 1 MAXVALUE 1048574) PRIMARY KEY,
  peer text COLLATE "C" NOT NULL, channel text COLLATE "C" NOT NULL, priority smallint NOT NULL,
  last bigint NOT NULL DEFAULT 0, sent bigint NOT NULL DEFAULT 0, added bigint NOT NULL DEFAULT 0,
  added_bytes bigint NOT NULL DEFAULT 0, UNIQUE(peer, channel, priority)) WITH (fillfactor=20, {SMALL});
CREATE TABLE head(lane integer PRIMARY KEY, head bigint NOT NULL DEFAULT 0, head_id bytea NOT NULL
  DEFAULT '\\x00000000000000000000000000000000', offered bigint NOT NULL DEFAULT 0, gone bigint NOT NULL DEFAULT 0,
  gone_bytes bigint NOT NULL DEFAULT 0, awaiting bigint NOT NULL DEFAULT 0, awaiting_bytes bigint NOT NULL DEFAULT 0)
  WITH (fillfactor=20, {SMALL});
CREATE TABLE delivery(place bigint PRIMARY KEY, born double precision NOT NULL, expires double precision,
  due double precision, shared bigint, flags integer NOT NULL, size integer NOT NULL, id bytea NOT NULL,
  fingerprint bytea, envelope bytea) WITH ({LOG});
ALTER TABLE delivery ALTER COLUMN envelope SET STORAGE EXTERNAL;
CREATE INDEX delivery_id ON delivery(id);
CREATE INDEX delivery_due ON delivery(due) WHERE due IS NOT NULL;
CREATE TABLE shared(n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, refs integer NOT NULL, envelope bytea NOT NULL)
  WITH ({LOG});
ALTER TABLE shared ALTER COLUMN envelope SET STORAGE EXTERNAL;
CREATE TABLE ended(n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, seq bigint NOT NULL, at double precision NOT NULL,
  born double precision NOT NULL, forget double precision NOT NULL, expires double precision, shared bigint,
  lane integer NOT NULL, flags integer NOT NULL, size integer NOT NULL, id bytea NOT NULL, state text NOT NULL,
  reason text NOT NULL, result_type text NOT NULL, result bytea, fingerprint bytea, envelope bytea) WITH ({LOG});
ALTER TABLE ended ALTER COLUMN envelope SET STORAGE EXTERNAL;
CREATE INDEX ended_id ON ended(id);
CREATE INDEX ended_forget ON ended(forget);
CREATE INDEX ended_place ON ended(lane, seq) WHERE seq > 0;
CREATE TABLE tally(lane integer NOT NULL, state text COLLATE "C" NOT NULL, n bigint NOT NULL, PRIMARY KEY(lane, state))
  WITH (fillfactor=50, {SMALL});
""",
)
PARTS = {"outbox": OUTBOX, "inbox": INBOX, "shared": SHARED, "bodies": BODIES}


_DONE = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})


@attrs.frozen
class Migrated:
    """A migration that this process has done."""

    before: dict[str, int]
    """Part → the version of its format."""
    copy: str
    """The schema in which the store stands as it was."""


@attrs.frozen
class Identity:
    """What a store says of itself."""

    birth: bytes
    """Made with the store; never changes."""
    node: str
    migrated: Migrated | None = None
    """What was done to it just now."""


def identify(connection: Connection, schema: str, where: str) -> Identity | None:
    """Which store this is; None if there is none. Raises StoreTooNew, StoreGone."""
    facts = _facts(connection, schema)
    if not facts:
        return None
    _check(facts, where)
    return Identity(facts["birth"][1], facts["node"][1].decode())


def prepare(connection: Connection, schema: str, node: str, where: str) -> Identity:
    """Make the store, or bring it to the present version, if that is not done. Raises StoreTooNew, StoreGone."""
    facts, migrated = _facts(connection, schema), None
    if not facts or _behind(facts):
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = 60000")  # somebody may have much to migrate
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('dropr schema'), hashtext(%s))", (schema,))
            facts = _facts(connection, schema)
            if facts and _behind(facts):
                _check(facts, where)
                _alone(connection, schema, facts, where)
                connection.execute("SET LOCAL lock_timeout = 60000")
                bodies = _version(facts, "bodies") < len(PARTS["bodies"])
                migrated = Migrated(_versions(facts), copy_store(connection, schema, where, bodies=bodies))
            _migrate(connection, schema, node, facts, where)
        facts = _facts(connection, schema)
    _check(facts, where)
    return Identity(facts["birth"][1], facts["node"][1].decode(), migrated)


def join(connection: Connection, schema: str, birth: bytes, where: str, *, read_only: bool) -> bytes:
    """Keep migrations away as long as the session lives. Returns the server's era: another one means that it crashed in
    between. Raises StoreTooNew, StoreGone: it is not the store that was opened any more.
    """
    connection.execute("SELECT pg_advisory_lock_shared(hashtext('dropr/store'), hashtext(%s))", (schema,))
    facts = _facts(connection, schema)
    if facts.get("birth", (0, b""))[1] != birth:
        raise StoreGone(
            f"{where}: there is another store now, or none, than the one that was opened; put the database back from a "
            "backup, or restart this process if that is meant"
        )
    _check(facts, where)
    if read_only:  # a standby has none
        return b""
    while not (found := connection.execute("SELECT token FROM era").fetchone()):
        connection.execute("INSERT INTO era(token) VALUES (%s) ON CONFLICT DO NOTHING", (os.urandom(8),))
    return bytes(found[0])


def formats() -> dict[str, int]:
    """Part → the version of its format that this dropr knows."""
    return {part: len(steps) for part, steps in PARTS.items()}


def _versions(facts: "_Facts") -> dict[str, int]:
    return {part: _version(facts, part) for part in PARTS}


def _behind(facts: "_Facts") -> bool:
    return any(_version(facts, part) < len(steps) for part, steps in PARTS.items())


def _alone(connection: Connection, schema: str, facts: "_Facts", where: str) -> None:
    """Wait a moment until nobody uses the store. Raises StoreBusy."""
    try:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = 3000")
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('dropr/store'), hashtext(%s))", (schema,))
    except LockNotAvailable:
        rows = connection.execute(_MEMBERS, (schema,)).fetchall()
        old = ", ".join(f"{part} {_version(facts, part)} to {len(steps)}" for part, steps in PARTS.items()
                        if _version(facts, part) < len(steps))  # fmt: skip
        raise StoreBusy(
            f"{where} is of an older dropr and has to be migrated ({old}), and other processes have it open: "
            f"{', '.join(name for (name,) in rows)}; stop them, start this version, and then theirs with this version "
            f"({RUNBOOK})"
        ) from None


_MEMBERS = (
    "SELECT DISTINCT application_name || coalesce(' from ' || client_addr, '') FROM pg_locks JOIN pg_stat_activity "
    "USING (pid) WHERE locktype = 'advisory' AND mode = 'ShareLock' AND classid = hashtext('dropr/store')::bigint & "
    "4294967295 AND objid = hashtext(%s)::bigint & 4294967295 ORDER BY 1"
)


def _migrate(connection: Connection, schema: str, node: str, facts: "_Facts", where: str) -> None:
    if not facts:
        there = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone()
        if there is None:
            _script(connection, f"CREATE SCHEMA {schema}")
        elif connection.execute(
            "SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = %s LIMIT 1",
            (schema,),
        ).fetchone():
            raise StoreGone(
                f"{where}: there are tables in this schema, but none of a store; name another one in `storage:`"
            )
        _script(connection, META)
        birth = os.urandom(8)
        for key, value in (("birth", birth), ("node", node.encode())):
            connection.execute("INSERT INTO meta(key, value) VALUES (%s, %s)", (key, value))
    else:
        _check(facts, where)
    for part, steps in PARTS.items():
        for step in steps[_version(facts, part) :]:
            _script(connection, step)
        if not facts:
            connection.execute("INSERT INTO meta(key, value) VALUES (%s, %s)", (f"store {part}", make_store_id()))
        connection.execute(
            "INSERT INTO meta(key, n) VALUES (%s, %s) ON CONFLICT(key) DO UPDATE SET n = excluded.n",
            (f"version {part}", len(steps)),
        )
    connection.execute(
        "INSERT INTO meta(key, value) VALUES ('dropr', %s) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
        (own_version().encode(),),
    )


_META_OF = (
    "SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = %s AND "
    "relname = 'meta'"
)
_Facts = dict[str, tuple[int, bytes]]


def _facts(connection: Connection, schema: str) -> _Facts:
    # Not to_regclass: within a transaction that waited for a lock it remembers that there was none.
    if not connection.execute(_META_OF, (schema,)).fetchall():
        return {}
    rows = connection.execute(
        "SELECT key, n, value FROM meta WHERE key IN ('birth', 'node', 'dropr') OR key LIKE 'version %%'", ()
    ).fetchall()
    return {key: (n, b"" if value is None else bytes(value)) for key, n, value in rows}


def _version(facts: _Facts, part: str) -> int:
    return facts.get(f"version {part}", (0, b""))[0]


def _check(facts: _Facts, where: str) -> None:
    if "birth" not in facts or "node" not in facts:
        raise StoreGone(f"{where}: its table `meta` is not that of a store; name another schema in `storage:`")
    for part, steps in PARTS.items():
        if _version(facts, part) > len(steps):
            raise StoreTooNew(
                f"{where}: its {part} has format {_version(facts, part)}, of {_maker(facts)}; this is dropr "
                f"{own_version()}, which knows formats up to {len(steps)}: install the newer dropr again, or put back "
                f"a backup that was made before ({RUNBOOK}); nothing was changed"
            )


def _maker(facts: _Facts) -> str:
    by = facts.get("dropr", (0, b""))[1].decode()
    return f"dropr {by}" if by else "a newer dropr"


def _script(connection: Connection, script: str) -> None:
    """Run several statements."""
    result = connection.pgconn.exec_(script.encode())
    if result.status not in _DONE:
        raise error_from_result(result)
