"""Connections of Django (`django.db.connection`, `connections[...]`). Owns what is to be known of that library."""

import os
from collections.abc import Callable
from typing import Any

from dropr_core.errors import UsageError
from dropr_core.transactions.statements import Kind, Rows, Statement, Where, numbered

ADVICE = (
    "this Django connection is in autocommit mode and no transaction is open, so the message could not be part of one: "
    "call it within `with transaction.atomic():`"
)
_KINDS: dict[str, Kind] = {"postgresql": "postgresql", "sqlite": "sqlite"}


class DjangoTransaction:
    """See module."""

    def __init__(self, given: Any) -> None:
        """Raises UsageError for a database of another kind."""
        self._connection = given
        kind = _KINDS.get(given.vendor)
        if kind is None:
            raise UsageError(f"connection: a {given.vendor} database; outbox tables are kept in postgresql and sqlite")
        self.kind: Kind = kind

    def reason_against(self) -> str:
        """Django is in autocommit mode outside of `atomic`, unless the settings say otherwise."""
        connection = self._connection
        return "" if connection.in_atomic_block or not connection.get_autocommit() else ADVICE

    def where(self) -> Where:
        """As the settings say; while Django tests, that is the test's database."""
        settings = self._connection.settings_dict
        name = os.fspath(settings["NAME"] or "")
        if self.kind == "sqlite":
            return Where("sqlite", str(name))
        return Where("postgresql", str(name), str(settings.get("HOST") or ""), str(settings.get("PORT") or ""))

    def run(self, statement: Statement) -> Rows:
        """Execute with a cursor of Django's, which wants ``%s`` whatever the database is."""
        with self._connection.cursor() as cursor:
            cursor.execute(numbered(statement.sql, "format"), statement.parameters)
            rows: Rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
            return rows

    def after_commit(self, call: Callable[[], object]) -> bool:
        """Django's own `on_commit`, which knows savepoints; outside of `atomic` there is none."""
        if not self._connection.in_atomic_block:
            return False
        self._connection.on_commit(call, robust=True)
        return True
