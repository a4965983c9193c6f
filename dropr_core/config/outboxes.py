"""The section `outboxes:` as frozen classes: databases of the user's in which messages wait for the daemon.

Owns names and defaults, and how the URL of a database is read. Must not know tables, nor open anything.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import attrs

from dropr_core.config.options import duration, given, option, secret
from dropr_core.errors import UsageError
from dropr_core.model.limits import shorten

_TABLE = re.compile(r"(?:[a-z_][a-z0-9_]{0,47}\.)?[a-z_][a-z0-9_]{0,47}")
FORMS = "postgresql://USER@HOST/DATABASE, or sqlite:///FILE (sqlite:////FILE from the root)"


@attrs.frozen
class Database:
    """Where a database is."""

    kind: str
    """``postgresql`` or ``sqlite``."""
    url: str = attrs.field(repr=False)
    """Of PostgreSQL, as libpq takes it."""
    name: str
    """Of the database; of SQLite the path of the file."""
    host: str = ""
    port: str = ""

    def __str__(self) -> str:
        at = f" at {self.host}{f':{self.port}' if self.port else ''}" if self.host else ""
        return f"{self.kind} database {self.name}{at}"


def read_database(url: str, directory: Path) -> Database:
    """What a URL says. What SQLAlchemy writes behind a plus (``postgresql+psycopg``) is passed over; the path of SQLite
    is relative to ``directory`` unless it is absolute. Raises UsageError, which does not show the URL: it may have a
    password.
    """
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else str(parts.port)
    except ValueError:
        raise UsageError(f"the URL of a database cannot be read; write {FORMS}") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme in ("postgresql", "postgres"):
        name = unquote(parts.path.removeprefix("/"))
        if not name:
            raise UsageError(f"the URL of a database names none; write {FORMS}")
        query = dict(item.partition("=")[::2] for item in parts.query.split("&") if item)
        plain = urlunsplit(("postgresql", parts.netloc, parts.path, parts.query, ""))
        return Database("postgresql", plain, name, parts.hostname or unquote(query.get("host", "")),
                        port or query.get("port", ""))  # fmt: skip
    if scheme == "sqlite":
        path = unquote(parts.path.removeprefix("/"))
        if parts.netloc or not path:
            raise UsageError(f"the URL of a database names no file; write {FORMS}")
        return Database("sqlite", "", str(directory / path))
    raise UsageError(f"the URL of a database begins with {shorten(parts.scheme or 'nothing')}; write {FORMS}")


def check_table(name: str) -> str:
    """Return it if a table of ours may have this name. Raises UsageError."""
    if not _TABLE.fullmatch(name):
        raise UsageError(f"table {shorten(name)}: use a to z, 0 to 9 and _, after a schema and a dot if need be")
    return name


@attrs.frozen(kw_only=True)
class OutboxConfig:
    """A database of the application's: messages sent within its transactions wait there for the daemon."""

    name: str = given()
    url: str = secret(doc="The database: `postgresql://USER@HOST/DATABASE` or `sqlite:///FILE`, relative to this file.")
    table: str = option("dropr_outbox", check=check_table, doc="The table of messages, with its schema if need be.")
    inbox_table: str = option(
        "dropr_inbox", check=check_table, doc="The table that remembers which messages have taken effect."
    )
    remember: float = duration(
        "1d", least=1, doc="How long the latter remembers a message that is not in the queue any more."
    )


__all__ = ["FORMS", "Database", "OutboxConfig", "check_table", "read_database"]
