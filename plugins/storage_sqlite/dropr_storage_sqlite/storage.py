"""The store of one node: two files and a marker in its data directory.

Owns how a store is created, recognised and opened:

    outbox.db, inbox.db     one SQLite file per half
    store.json              says that both exist, and which they are
    consumers/              one lock file per living consumer

A file that is missing while the marker is there was deleted: that is said, and never healed by
silently beginning anew under another identity. Must not know tables.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, cast

import apsw

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Finding, Storage
from dropr_core.errors import DroprError, StoreGone, StoreReadOnly
from dropr_core.storage_kit.opening import alone, warn_of_medium
from dropr_core.storage_kit.syncs import Syncs
from dropr_core.system.files import create_file, replace_file
from dropr_core.system.loading import unforked
from dropr_storage_sqlite.engine import connection as opening
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.errors import translate
from dropr_storage_sqlite.engine.mending import close_last, mend
from dropr_storage_sqlite.engine.migration import migrate_store
from dropr_storage_sqlite.engine.schema import INBOX, OUTBOX, Schema, birth_of, bring_up, version_of
from dropr_storage_sqlite.engine.tuning import Tuning
from dropr_storage_sqlite.inbox.inbox import SqliteInbox
from dropr_storage_sqlite.outbox.outbox import SqliteOutbox

MARKER = "store.json"


class SqliteStorage(Storage):
    """Both halves in SQLite."""

    abilities: ClassVar[frozenset[str]] = frozenset({"durable", "processes", "ordering_key"})
    outbox: SqliteOutbox
    inbox: SqliteInbox

    def __init__(self, tuning: Tuning, context: Context) -> None:
        opening.check_library()
        self._context = context
        if context.checking:  # the files may be in no state to be opened; `check` does it
            self.outbox, self.inbox = cast("SqliteOutbox", _Unopened()), cast("SqliteInbox", _Unopened())
            return
        with unforked:  # a fork pauses the engines, and nobody else who has a file open
            _open(tuning, context)
        self.outbox = SqliteOutbox(Engine(context.data / "outbox.db", tuning, context, OUTBOX), context)
        self.inbox = SqliteInbox(Engine(context.data / "inbox.db", tuning, context, INBOX), context)
        if not context.read_only:
            self.outbox.engine.space.keep_reserve()
            self.inbox.engine.space.keep_reserve()
        warn_of_medium(context)

    def check(self, *, repair: bool) -> Iterator[Finding]:
        """Look at pages and tables of both files; see the contract."""
        with unforked:
            from dropr_storage_sqlite.fsck.fsck import check_store

        opening.check_library()
        return check_store(self._context, lambda: _read_marker(self._context.data / MARKER), repair=repair)

    def close(self) -> None:
        """Close both halves; safe twice."""
        if self._context.checking:
            return
        try:
            self.inbox.close()
        finally:
            self.outbox.close()


class _Unopened:
    """Stands for a half in a store that was opened for `check` alone."""


def _open(tuning: Tuning, context: Context) -> None:
    """Create, migrate or just recognise both files, alone among all processes."""
    files = [(context.data / f"{schema.half}.db", schema) for schema in (OUTBOX, INBOX)]
    marker = context.data / MARKER
    try:
        if context.read_only:
            _recognise(files, marker, tuning)
            return
        with alone(context.data / "store.lock", tuning.busy):
            known = _read_marker(marker)
            versions = [_make(path, schema, tuning, known) for path, schema in files]
            if any(version < schema.version for version, (_, schema) in zip(versions, files, strict=True)):
                migrate_store(context.data, files, MARKER, tuning.busy, context)
            births = {schema.half: _birth_of(path, tuning) for path, schema in files}
            if known is None:
                replace_file(marker, json.dumps(births).encode(), durable=True)
            elif any(known.get(half) != birth for half, birth in births.items()):
                raise StoreGone(
                    f"{context.data}: {MARKER} belongs to another store than the files beside it; put the right files "
                    f"back, or remove {MARKER} if these are meant"
                )
    except (apsw.Error, OSError) as error:
        translated = translate(error, context.data)
        context.event("open_failed", {"store": str(context.data), "error": str(translated)})
        raise translated from error


def _make(path: Path, schema: Schema, tuning: Tuning, known: dict[str, str] | None) -> int:
    """Make the file if it is not there; the version of its format."""
    if known is not None and not path.exists():
        raise StoreGone(
            f"{path} is gone, though {MARKER} says that it was made; put it back from a backup, or remove {MARKER} "
            "to begin with an empty store (peers will notice)"
        )
    create_file(path)
    syncs = Syncs(path.with_suffix(".syncs"))
    syncs.open()
    connection = _connect(path, tuning)
    try:
        syncs.look()
        if not version_of(connection, path, schema):
            bring_up(connection, path, schema)
        elif syncs.in_doubt():
            mend(connection, path, syncs)
        return version_of(connection, path, schema)
    finally:
        close_last(lambda: opening.close(connection, keep_log=syncs.in_doubt()), path, syncs)


def _birth_of(path: Path, tuning: Tuning) -> str:
    connection = _connect(path, tuning)
    try:
        return birth_of(connection, path).hex()
    finally:
        connection.close()


def _connect(path: Path, tuning: Tuning, *, read_only: bool = False) -> apsw.Connection:
    try:
        return opening.connect(path, opening.FULL, tuning.busy, tuning.cache, read_only=read_only)
    except apsw.Error as error:
        raise translate(error, path) from error


def _recognise(files: list[tuple[Path, Schema]], marker: Path, tuning: Tuning) -> None:
    if _read_marker(marker) is None:
        raise StoreGone(f"{marker.parent} has no store yet; it is made by the first process that opens it for writing")
    for path, schema in files:
        if not path.exists():
            raise StoreGone(f"{path} is gone, though {MARKER} says that it was made")
        connection = _connect(path, tuning, read_only=True)
        try:
            version = version_of(connection, path, schema)
            if version < schema.version:
                raise StoreReadOnly(
                    f"{path} has format {version}, of an older dropr; the first process of this version that opens the "
                    f"node for writing makes it format {schema.version}; until then look with the older version"
                )
        finally:
            connection.close()


def _read_marker(marker: Path) -> dict[str, str] | None:
    try:
        found = json.loads(marker.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StoreGone(
            f"{marker} cannot be read; put it back from a backup, or remove it if the files beside it are right"
        )
    return {str(half): str(birth) for half, birth in found.items()}


__all__ = ["DroprError", "SqliteStorage"]
