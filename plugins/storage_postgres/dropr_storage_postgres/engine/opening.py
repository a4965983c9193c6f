"""Opening a store: making it if there is none, and recognising it if there is.

Owns the marker in the data directory, `store.json`, which says which store was used from here: an empty database, or
another store, in its place is said, and never begun anew under another identity. Must not know tables.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import attrs
import psycopg

from dropr_core.contracts.context import Context
from dropr_core.errors import ConfigError, DroprError, StoreGone
from dropr_core.storage_kit.migrating import own_version
from dropr_core.storage_kit.opening import alone
from dropr_core.system.files import replace_file
from dropr_core.system.os_errors import store_errors
from dropr_storage_postgres.engine.address import Place
from dropr_storage_postgres.engine.connection import Connection, Opener
from dropr_storage_postgres.engine.errors import translate
from dropr_storage_postgres.engine.schema import Identity, Migrated, formats, identify, prepare
from dropr_storage_postgres.engine.times import Times

MARKER = "store.json"


@attrs.frozen
class Opened:
    """What is known when a store has been opened."""

    place: Place
    """With the store's birth: sessions that are opened later find the same store, or none."""
    times: Times
    machine: str
    """Names this data directory among those that use the store; empty if it has not written to it yet."""


def open_store(place: Place, context: Context) -> Opened:
    """Make, migrate or recognise the store; the difference between the clocks was measured meanwhile.

    Raises StoreError, ConfigError.
    """
    times = Times(context.clock, context.log, place.name)
    marker = context.data / MARKER
    with store_errors(marker):
        known = _read_marker(marker)
    try:
        opener = Opener(place, times, context.clock.now, f"{context.node} opening")
        connection, _ = opener.open(read_only=context.read_only)
        try:
            identity = _identity(connection, place, context, known)
        finally:
            connection.close()
    except (psycopg.Error, DroprError) as error:
        translated = translate(error, place.name)
        context.event("open_failed", {"store": place.name, "error": str(translated)})
        if translated is error:
            raise
        raise translated from error
    if known is None and not context.read_only:
        with store_errors(marker), alone(context.data / "store.lock", place.wait):  # of two processes one names it
            known = _read_marker(marker)
            if known is None:
                known = _Marker(identity.birth.hex(), os.urandom(8).hex())
                text = json.dumps({"postgres": known.birth, "machine": known.machine})
                replace_file(marker, text.encode(), durable=True)
    return Opened(attrs.evolve(place, birth=identity.birth), times, "" if known is None else known.machine)


def _identity(connection: Connection, place: Place, context: Context, known: "_Marker | None") -> Identity:
    identity = identify(connection, place.schema, place.name)
    if identity is None and known is not None:
        raise StoreGone(
            f"{place.name}: there is no store, though {MARKER} in the data directory says that there was; put the "
            f"database back from a backup, or remove {MARKER} to begin with an empty store (peers will notice)"
        )
    if identity is None and context.read_only:
        raise StoreGone(f"{place.name} has no store yet; it is made by the first process that opens it for writing")
    if not context.read_only:
        identity = prepare(connection, place.schema, context.node, place.name)
    assert identity is not None
    if identity.migrated is not None:
        _tell(context, place, identity.migrated)
    if known is not None and identity.birth.hex() != known.birth:
        raise StoreGone(
            f"{place.name} holds another store than the one that was used from here; correct url or schema in "
            f"`storage:`, or remove {MARKER} in the data directory if this one is meant"
        )
    if identity.node != context.node:
        problem = (
            f"storage: {place.name} is the store of node {identity.node!r}, and this is {context.node!r}: two nodes "
            "cannot share one; give another schema. If the node was renamed, say so in the table meta of the schema: "
            f"value = '{context.node}' where key = 'node'"
        )
        raise ConfigError([problem])
    return identity


def _tell(context: Context, place: Place, done: Migrated) -> None:
    after = formats()
    parts = ", ".join(f"{part} {old} to {after[part]}" for part, old in done.before.items() if old < after[part])
    context.event("migrated", {"store": place.name, "before": done.before, "after": after, "copy": done.copy})
    context.log.warning(
        "%s: the store was migrated for dropr %s (%s); the schema %s has it as it was, and may be dropped when this "
        "version has proved itself", place.name, own_version(), parts, done.copy,
    )  # fmt: skip


class _Marker(NamedTuple):
    birth: str
    machine: str


def _read_marker(marker: Path) -> _Marker | None:
    try:
        found = json.loads(marker.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("postgres"), str):
        raise StoreGone(
            f"{marker} is not that of a store in PostgreSQL: this data directory has another storage, or the file is "
            "damaged; give the node another directory, or put the file back (without it this store is taken as it is)"
        )
    return _Marker(str(found["postgres"]), str(found.get("machine", "")))
