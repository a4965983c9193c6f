"""`Storage.check`: whether what is written down in a store agrees with itself.

Owns the session of a check, which reads tables from end to end in one consistent state while others go on; a repair
holds their writes back for as long as it takes. Whether the server can read its own pages is the server's to tell
(pg_amcheck, checksums): what it reports meanwhile is a finding of damage. Must not know tables.
"""

from collections.abc import Callable, Iterator

import psycopg

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import Finding
from dropr_core.errors import ConfigError, DroprError, StoreCorrupt, StoreError
from dropr_storage_postgres.engine.address import Place
from dropr_storage_postgres.engine.connection import Connection, Opener
from dropr_storage_postgres.engine.errors import translate
from dropr_storage_postgres.engine.schema import identify
from dropr_storage_postgres.engine.times import Times
from dropr_storage_postgres.fsck.findings import ContentCheck
from dropr_storage_postgres.fsck.inbox import check_inbox, lock_inbox
from dropr_storage_postgres.fsck.outbox import check_outbox, lock_outbox

Check = Callable[[ContentCheck], None]
PARTS: dict[str, tuple[Callable[[Connection], None], Check]] = {
    "outbox": (lock_outbox, check_outbox),
    "inbox": (lock_inbox, check_inbox),
}
"""Part → how its tables are held back for a repair, and its check."""
PATIENCE = 600_000
"""Milliseconds that a repair waits for transactions under way."""
SETTINGS = {
    "enable_seqscan": "on",
    "enable_bitmapscan": "on",
    "enable_hashjoin": "on",
    "enable_mergejoin": "on",
    "plan_cache_mode": "auto",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": str(PATIENCE),
}
"""A check reads everything."""


def check_store(place: Place, context: Context, *, repair: bool) -> Iterator[Finding]:
    """Look at all parts, one after the other; see the contract."""
    try:
        connection = _open(place, context, repair=repair)
    except (StoreError, ConfigError) as error:
        yield Finding("store", "damage", place.name, str(error))
        return
    try:
        for half, (lock, look) in PARTS.items():
            context.log.info("%s: checking the %s", place.name, half)
            yield from _check(connection, place, half, lock, look, repair=repair)
    finally:
        connection.close()


def _open(place: Place, context: Context, *, repair: bool) -> Connection:
    times = Times(context.clock, context.log, place.name)
    opener = Opener(place, times, context.clock.now, f"{context.node} fsck")
    try:
        connection, _ = opener.open(durable=True, read_only=not repair, **SETTINGS)
    except (psycopg.Error, DroprError) as error:
        raise translate(error, place.name) from error
    try:
        if identify(connection, place.schema, place.name) is None:
            raise StoreError("there is no store yet; it is made by the first process that opens it for writing")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(
    connection: Connection, place: Place, half: str, lock: Callable[[Connection], None], look: Check, *, repair: bool
) -> list[Finding]:
    check = ContentCheck(half, connection, repair=repair)
    try:
        with connection.transaction():
            if repair:
                lock(connection)
            else:
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            look(check)
    except psycopg.Error as error:
        translated = translate(error, place.name)
        if not isinstance(translated, StoreCorrupt):
            raise translated from error
        return [Finding(half, "damage", place.name, str(translated))]
    return check.findings
