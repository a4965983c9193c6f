"""A connection that keeps a cursor for each statement.

Owns that what psycopg learns about a statement (its text as the server takes it, how its values are written and its
rows are read) is learnt once in a session and not at each call: half of what a small statement costs. Must not know
which statements there are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

KEPT = 500
"""Cursors that a connection keeps; there are far fewer statements."""


class KeepingConnection(psycopg.Connection[Any]):
    """As psycopg's, for one thread at a time, but a cursor that `execute` gives is used again by the next call with the
    same statement: its rows are read before that.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cursors: dict[str | bytes, psycopg.Cursor[Any]] = {}

    def execute(
        self, query: Any, params: Sequence[Any] | Mapping[str, Any] | None = None, *, prepare: bool | None = None,
        binary: bool = False,
    ) -> psycopg.Cursor[Any]:  # fmt: skip
        """See `psycopg.Connection.execute`; a statement is a text or bytes here."""
        cursor = self._cursors.get(query)
        if cursor is None:
            cursor = self.cursor(binary=binary)
            if len(self._cursors) < KEPT:
                self._cursors[query] = cursor
        return cursor.execute(query, params, prepare=prepare)

    def close(self) -> None:
        """See `psycopg.Connection.close`."""
        self._cursors.clear()  # each refers to this connection
        super().close()


__all__ = ["KeepingConnection"]
