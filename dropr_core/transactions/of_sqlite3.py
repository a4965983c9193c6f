"""Connections and cursors of the standard library's `sqlite3`. Owns what is to be known of that library."""

import sqlite3
from collections.abc import Callable

from dropr_core.transactions.statements import Kind, Rows, Statement, Where

ADVICE = (
    "this sqlite3 connection commits each statement by itself and no transaction is open, so the message could not be "
    "part of one: execute BEGIN first, or connect without isolation_level=None (autocommit=True)"
)


class Sqlite3Transaction:
    """See module."""

    kind: Kind = "sqlite"

    def __init__(self, given: "sqlite3.Connection | sqlite3.Cursor") -> None:
        self._connection = given if isinstance(given, sqlite3.Connection) else given.connection

    def reason_against(self) -> str:
        """In autocommit mode, of the old kind or the new one, only an open transaction will do."""
        connection = self._connection
        if connection.in_transaction:
            return ""
        new = getattr(connection, "autocommit", -1)  # since Python 3.12; -1: the old kind counts
        return ADVICE if new is True or (new is not False and connection.isolation_level is None) else ""

    def where(self) -> Where:
        """The file of the database ``main``."""
        rows = self._connection.execute("PRAGMA database_list").fetchall()
        return Where("sqlite", next((str(row[2] or "") for row in rows if row[1] == "main"), ""))

    def run(self, statement: Statement) -> Rows:
        """Execute with a cursor of its own: the user's may be in use."""
        cursor = self._connection.cursor()
        cursor.row_factory = None
        try:
            return cursor.execute(statement.sql, statement.parameters).fetchall()
        finally:
            cursor.close()

    def after_commit(self, call: Callable[[], object]) -> bool:  # noqa: ARG002
        """The library tells nobody."""
        return False
