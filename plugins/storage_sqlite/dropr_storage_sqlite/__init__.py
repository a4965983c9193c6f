"""The storage ``sqlite``: one SQLite file per half, WAL, group commit.

Owns the hook and the user's options. See docs/formats/sqlite.md for what is written where and when.
"""

import attrs

from dropr_core.config.options import duration, size
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Storage
from dropr_core.hookspecs import hookimpl
from dropr_storage_sqlite.engine.tuning import Tuning
from dropr_storage_sqlite.storage import SqliteStorage


@attrs.frozen(kw_only=True)
class Options:
    """What a user may say about this storage."""

    flush: float = duration("20ms", doc="An acknowledgement survives a power cut after this time at the latest.")
    busy: float = duration("10s", doc="How long to wait for a lock that another process holds.")
    cache: int = size("16MiB", doc="Page cache of each connection (up to three for each half).")
    reserve: int = size("4MiB", doc="Blocks kept for acknowledgements on a full disk, for each half; 0: none.")


@hookimpl
def dropr_storage(options: Options | None, context: Context) -> Storage:
    """Open the store in the node's data directory, creating it if there is none."""
    chosen = options or Options()
    return SqliteStorage(Tuning(chosen.flush, chosen.busy, chosen.cache, chosen.reserve), context)


__all__ = ["Options", "SqliteStorage", "dropr_storage"]
