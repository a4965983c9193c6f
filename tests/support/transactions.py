"""A node with an outbox in a database of an application, and that application's connections by every library.

Owns how each library begins, commits and rolls back, said the same for all. Must not know what is tested.
"""

import logging
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.one_node import open_node

from dropr_core.outboxes.relay import Relay
from dropr_core.transactions.databases import connect
from dropr_core.transactions.outbox_layout import inbox_statements, install, outbox_statements

BLOCKING = (
    "sqlite3", "sqlite3 cursor", "sqlalchemy session on sqlite", "sqlalchemy connection on sqlite", "django on sqlite",
    "psycopg", "psycopg cursor", "psycopg with dict rows", "sqlalchemy session on postgresql",
    "sqlalchemy connection on postgresql", "django on postgresql",
)  # fmt: skip
ASYNC = ("psycopg", "sqlalchemy session", "sqlalchemy connection")


class Shop:
    """A node `shop`, and the database of the application that runs on it."""

    def __init__(self, directory: Path, url: str | None, **fields: Any) -> None:
        """``url``: of a PostgreSQL; None: SQLite."""
        if url is None:
            self.kind = "sqlite"
            self.url = f"sqlite:///{directory / 'app.db'}"
            sqlite3.connect(directory / "app.db").close()
        else:
            self.kind, self.url = "postgresql", url
        channels = {"orders": {"to": "berlin", "serializer": "json"}, "jobs": {}, **fields.pop("channels", {})}
        self.node = open_node(directory, channels=channels, outboxes={"app": {"url": self.url}}, **fields)
        (self.outbox,) = self.node.runtime.outboxes.all
        self.link = connect(self.outbox.database, "shop")
        config = self.outbox.config
        self.link.carry_out(install(self.kind, config.table, outbox_statements(self.kind, config.table, "shop")))
        self.link.carry_out(install(self.kind, config.inbox_table, inbox_statements(self.kind, config.inbox_table)))
        self.relay = Relay(self.node.runtime, self.outbox, logging.getLogger("dropr.daemon"))
        self.execute("CREATE TABLE IF NOT EXISTS effect (what TEXT)")

    def execute(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """One statement outside of everybody's transaction."""
        from dropr_core.transactions.statements import Statement

        return [tuple(row) for row in self.link.run(Statement(sql, parameters))]

    def effects(self) -> list[str]:
        """What the application has done, as far as it is committed."""
        return [row[0] for row in self.execute("SELECT what FROM effect ORDER BY what")]

    def rows(self) -> list[tuple[str, str | None]]:
        """(channel, problem) of what stands in the table."""
        return self.execute("SELECT channel, problem FROM dropr_outbox ORDER BY seq")

    def relayed(self) -> list[bytes]:
        """Everything that is committed, taken into the lanes; the bodies that are there, lane by lane."""
        while self.relay.step(self.link):
            pass
        return self.queued()

    def queued(self) -> list[bytes]:
        """The bodies of all that is in the outbox of the store."""
        from dropr_core.model import envelope

        found = []
        for lane in self.node.outbox.lanes():
            batch = self.node.outbox.take(lane.lane, 10_000, 1 << 30, mark_in_flight=False)
            found += [envelope.body_of(entry.envelope) for entry in batch.entries]
        return found

    def close(self) -> None:
        self.link.close()
        self.node.close()


@contextmanager
def application(way: str, shop: Shop):
    """The application's connection by a library: (what it gives to dropr, `Hands`)."""
    if way.startswith("sqlite3"):
        connection = sqlite3.connect(shop.outbox.database.name)
        given = connection.cursor() if way.endswith("cursor") else connection
        yield given, Hands(connection.execute, connection.commit, connection.rollback, "?")
        connection.close()
    elif way.startswith("psycopg"):
        import psycopg
        from psycopg.rows import dict_row

        more = {"row_factory": dict_row} if way.endswith("dict rows") else {}
        connection = psycopg.connect(shop.url, **more)
        given = connection.cursor() if way.endswith("cursor") else connection
        yield given, Hands(connection.execute, connection.commit, connection.rollback, "%s")
        connection.close()
    elif way.startswith("sqlalchemy"):
        import sqlalchemy
        from sqlalchemy.orm import Session

        engine = sqlalchemy.create_engine(shop.url.replace("postgresql:", "postgresql+psycopg:"))
        made = Session(engine) if " session " in way else engine.connect()

        def run(sql, *parameters):
            return (made.connection() if " session " in way else made).exec_driver_sql(sql, *parameters)

        yield made, Hands(run, made.commit, made.rollback, "?" if shop.kind == "sqlite" else "%s")
        made.close()
        engine.dispose()
    else:
        yield from _django(shop)


@contextmanager
def django_connection(shop: Shop):
    """A connection of Django, without a project: the settings of a process are those of other tests, too."""
    from django.apps import apps
    from django.conf import UserSettingsHolder, global_settings, settings
    from django.db.utils import ConnectionHandler

    database = shop.outbox.database
    words = {"ENGINE": "django.db.backends.sqlite3", "NAME": database.name}
    if shop.kind == "postgresql":
        words = {"ENGINE": "django.db.backends.postgresql", "NAME": database.name, "HOST": database.host,
                 "PORT": database.port, "USER": "dropr"}  # fmt: skip
    before = settings._wrapped, apps.ready
    settings._wrapped, apps.ready = UserSettingsHolder(global_settings), True
    connection = ConnectionHandler({"default": words})["default"]
    try:
        yield connection
    finally:
        connection.close()
        settings._wrapped, apps.ready = before


def _django(shop: Shop):
    with django_connection(shop) as connection:
        connection.set_autocommit(False)

        def run(sql, *parameters):
            with connection.cursor() as cursor:
                cursor.execute(sql, *parameters)

        yield connection, Hands(run, connection.commit, connection.rollback, "%s")


class Hands:
    """What the application does with its connection."""

    def __init__(self, execute, commit, rollback, mark) -> None:
        self.execute, self.commit, self.rollback, self._mark = execute, commit, rollback, mark

    def do(self, what: str) -> None:
        """An effect of the application's own."""
        self.execute(f"INSERT INTO effect (what) VALUES ({self._mark})", (what,))


def of_way(way: str, directory: Path, request: Any, **fields: Any) -> Shop:
    """A shop whose database is of the kind that a way needs; the server is only asked for if it is."""
    needs_server = way.startswith("psycopg") or "postgresql" in way
    return Shop(directory, request.getfixturevalue("postgres_url") if needs_server else None, **fields)
