"""Stores of the storage `postgres` for tests: a schema of one database for each data directory, made once, used again.

Owns `Schemas`, and small helpers for tests of transactions. A suite that opens a thousand stores would spend its time
with CREATE TABLE: so a schema whose directory is gone is emptied, which makes it another store, and given to the next.
Must not know what the stores are used for.
"""

import logging
import os
from pathlib import Path

from postgres_rig import PostgresServer

from dropr_core.contracts.context import Context
from dropr_core.system.clock import SystemClock

COUNT = "SELECT count(*) FROM t"

EMPTY = """
SELECT 'DELETE FROM ' || c.oid::regclass || ';' FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = %(schema)s AND relkind = 'r' AND relname <> 'meta' UNION ALL
SELECT 'ALTER SEQUENCE ' || c.oid::regclass || ' RESTART;' FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = %(schema)s AND relkind = 'S'
"""


class Schemas:
    """The schemas of one server, by the data directories that use them."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._used: dict[Path, str] = {}
        self._scripts: dict[str, str] = {}

    def of(self, directory: Path) -> str:
        """That of a data directory, the same at each call. Two directories have two stores."""
        if directory not in self._used:
            gone = next((one for one in self._used if not one.exists()), None)
            self._used[directory] = f"s{os.urandom(6).hex()}" if gone is None else self._empty(self._used.pop(gone))
        return self._used[directory]

    def share(self, directory: Path, with_: Path) -> None:
        """Let two directories, two machines, use one store."""
        self._used[directory] = self.of(with_)

    def forget(self, below: Path) -> None:
        """The directories of a test: they will not be used again, whether they are still there or not."""
        for directory in [one for one in self._used if one.is_relative_to(below)]:
            self._used[Path(f"/nowhere/{os.urandom(6).hex()}")] = self._used.pop(directory)

    def _empty(self, schema: str) -> str:
        with self.server.connect() as connection:
            connection.execute("SET client_min_messages = warning")
            there = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone()
            if there is None:
                return schema
            connection.execute(
                "SELECT pg_terminate_backend(pid, 30000) FROM pg_locks JOIN pg_class c ON c.oid = relation JOIN "
                "pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND pid <> pg_backend_pid()", (schema,),
            )  # fmt: skip
            if schema not in self._scripts:
                rows = connection.execute(EMPTY, {"schema": schema}).fetchall()
                self._scripts[schema] = " ".join(statement for (statement,) in rows)
            connection.execute(
                f"BEGIN; {self._scripts[schema]} DELETE FROM {schema}.meta WHERE key LIKE 'staged %';"
                f"UPDATE {schema}.meta SET value = decode('{os.urandom(8).hex()}', 'hex') WHERE key = 'birth';"
                f"UPDATE {schema}.meta SET value = decode(substr(md5(random()::text), 1, 16), 'hex') "
                f"WHERE key LIKE 'store %'; COMMIT"
            )
        return schema


def context_of(tmp_path, node="shop", **more):
    """That of a node with the system's clock."""
    directory = tmp_path / node
    directory.mkdir(exist_ok=True)
    return Context(node, directory, SystemClock(), logging.getLogger("test"), **more)


def put(number):
    """A job that inserts a number into the table of the test."""
    return lambda connection: connection.execute("INSERT INTO t VALUES (%s)", (number,)) and None


def numbers(engine):
    """All that were inserted."""
    return [n for (n,) in engine.query("SELECT n FROM t ORDER BY n")]


def cut_all(server, url, like="%"):
    """End all sessions in the database of an address; returns how many there were."""
    from psycopg.conninfo import conninfo_to_dict

    return server.cut_all(conninfo_to_dict(url)["dbname"], like=like)
