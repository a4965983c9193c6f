"""The storage ``postgres``: both halves in one schema of a PostgreSQL database, for one machine or several.

Owns the hook and the user's options. See docs/formats/postgres.md for what is written where and when.
"""

import attrs

from dropr_core.config.options import duration, option, secret
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Storage
from dropr_core.hookspecs import hookimpl
from dropr_storage_postgres.engine.address import make_place
from dropr_storage_postgres.storage import PostgresStorage


@attrs.frozen(kw_only=True)
class Options:
    """What a user may say about this storage."""

    url: str = secret(
        doc="Address of the database as libpq takes it: 'postgresql://user@host:5432/database' or 'host=… dbname=…'."
    )
    password: str | None = secret(default=None, doc="Instead of one in url.", unset="that of url, or ~/.pgpass")
    schema: str | None = option(
        default=None, doc="Where in the database the node's tables stand; one for each node.",
        unset="dropr_ and the node's name",
    )  # fmt: skip
    flush: float = duration(
        "20ms", doc="An acknowledgement survives a crash of the server after this time at the latest."
    )
    wait: float = duration("10s", doc="How long a call waits for a server that is restarted, or for a lock.")


@hookimpl
def dropr_storage(options: Options | None, context: Context) -> Storage:
    """Open the store, creating it if there is none."""
    chosen = options or Options(url="")
    place = make_place(chosen.url, chosen.password, chosen.schema, context.node, chosen.flush, chosen.wait)
    return PostgresStorage(place, context)


__all__ = ["Options", "PostgresStorage", "dropr_storage"]
