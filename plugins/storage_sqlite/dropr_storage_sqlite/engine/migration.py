"""An older store becomes one of the present formats.

Owns the order: alone with both files, a copy put aside, then each half in one transaction, killed at any moment without
harm. Must not know what the steps change (`schema`) nor what is in the tables.

Alone: in WAL mode each connection keeps a lock on its file for as long as it is open, so SQLite leaves this mode only
when there is no other one, of whatever version of dropr. The file is then locked until all is done.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import apsw

from dropr_core.contracts.context import Context
from dropr_core.storage_kit import migrating
from dropr_storage_sqlite.engine import connection as opening
from dropr_storage_sqlite.engine.schema import Schema, take_steps, version_of

PATIENCE = 0.01
"""Seconds between two tries to be alone."""


def migrate_store(
    data: Path, halves: Sequence[tuple[Path, Schema]], marker: str, busy: float, context: Context
) -> None:
    """Bring both files to the present formats. Called under the lock of the store, with no connection of its own open.

    Raises StoreBusy: others have it open for longer than ``busy`` seconds; QueueFull: no room for the copy; apsw
    errors, OSError. Then every half is as it was or of the present format.
    """
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        alone = [(path, schema, _alone(stack, path, schema, busy)) for path, schema in halves]
        before = {schema.half: version_of(connection, path, schema) for path, schema, connection in alone}
        after = {schema.half: schema.version for _, schema in halves}
        sizes = [path.stat().st_size for path, _ in halves]
        aside = migrating.put_aside(
            data, before, after, [*(path.name for path, _ in halves), marker],
            copy=migrating.copy_file, size=sum(sizes), work=max(sizes),
        )  # fmt: skip
        for path, schema, connection in alone:
            version = before[schema.half]
            if version < schema.version:
                context.log.warning("%s: format %d becomes %d, for dropr %s; a copy of before is in %s", path, version,
                                    schema.version, migrating.own_version(), aside)  # fmt: skip
                take_steps(connection, schema, version)
            connection.execute("COMMIT")
    told = {"store": str(data), "before": before, "after": after, "copy": str(aside),
            "seconds": time.monotonic() - begun}  # fmt: skip
    context.event("migrated", told)
    context.log.warning("%s: the store was migrated in %.1f s; %s may be removed when this version has proved itself",
                        data, told["seconds"], aside)  # fmt: skip


def _alone(stack: contextlib.ExitStack, path: Path, schema: Schema, busy: float) -> apsw.Connection:
    """A connection in the middle of a transaction beside which nobody can have another one. Raises StoreBusy."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    stack.callback(connection.close, force=True)  # what was not committed by then is rolled back
    give_up = time.monotonic() + busy
    connection.set_busy_handler(opening.patience(busy))
    while True:
        try:
            connection.execute("PRAGMA journal_mode=DELETE").fetchall()
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN EXCLUSIVE")
            if connection.pragma("journal_mode") == "delete":
                return connection
            connection.execute("ROLLBACK")  # somebody was faster
        except (apsw.BusyError, apsw.LockedError):
            pass
        if time.monotonic() > give_up:
            raise migrating.open_elsewhere(path, connection.pragma("user_version"), schema.version, [path])
        time.sleep(PATIENCE)
