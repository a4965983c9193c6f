"""Where a store is: a server, a database, a schema.

Owns what the user's options become for libpq, and how a place is named in errors and logs: never with a password.
Must not know tables.
"""

import re

import attrs
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dropr_core.errors import ConfigError

SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
KEEPALIVE = {
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""A line that carries nothing is noticed within 20 seconds, by us."""
SESSION = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "client_min_messages": "warning",
    "extra_float_digits": "1",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "timezone": "UTC",
}
"""The same by the server, which holds our locks as long as it believes in us; and what must not depend on its
configuration. Each statement is planned once in a session, perhaps on an empty table, and is to be right for a full
one: so every look at a table that grows goes by an index, row by row."""
HANG = 20.0
"""Seconds for which a transaction may stand still, because its process was stopped, while others wait for its locks."""


@attrs.frozen
class Place:
    """One schema of one database, and the user's options for it."""

    conninfo: str = attrs.field(repr=False)
    schema: str
    flush: float = 0.02
    birth: bytes = b""
    """Which store is there, once it has been opened."""
    wait: float = 10.0
    """Seconds that a call waits for a lock, or for a server that is not there."""

    @property
    def name(self) -> str:
        """For errors and logs."""
        known = conninfo_to_dict(self.conninfo)
        host = known.get("host") or known.get("hostaddr") or "local socket"
        port = f":{known['port']}" if known.get("port") else ""
        database = known.get("dbname") or known.get("user") or "default"
        return f"PostgreSQL {host}{port} database {database}, schema {self.schema}"

    def session(self, purpose: str, **settings: str) -> str:
        """What libpq is given for one connection; ``settings``: of the session, on top of ours."""
        known = conninfo_to_dict(self.conninfo)
        wanted = SESSION | {
            "search_path": self.schema,
            "lock_timeout": str(int(self.wait * 1000)),
            "idle_in_transaction_session_timeout": str(int(HANG * 1000)),
        }
        options = " ".join(f"-c {name}={value}" for name, value in (wanted | settings).items())
        given = known.pop("options", None)
        known["options"] = f"{given} {options}" if given else options
        known["application_name"] = f"dropr {purpose}"[:63]
        known["client_encoding"] = "UTF8"
        known.setdefault("connect_timeout", "5")
        for name, value in KEEPALIVE.items():
            known.setdefault(name, value)
        return make_conninfo("", **known)


def make_place(url: str, password: str | None, schema: str | None, node: str, flush: float, wait: float) -> Place:
    """The place that the options name. Raises ConfigError."""
    try:
        known = conninfo_to_dict(url, **({} if password is None else {"password": password}))
    except ProgrammingError as error:
        raise ConfigError([f"storage.url is no address that PostgreSQL's library understands: {error}"]) from None
    name = schema if schema is not None else default_schema(node)
    if not SCHEMA.match(name):
        raise ConfigError([
            f"storage.schema: {name!r} will not do: up to 63 of a-z, 0-9 and _, not beginning with a digit"
        ])  # fmt: skip
    return Place(make_conninfo("", **known), name, flush, wait=wait)


def default_schema(node: str) -> str:
    """That of a node without one in its options."""
    return "dropr_" + re.sub(r"[^a-z0-9_]", "_", node.lower())[:57]
