"""Connections and cursors of psycopg 3, blocking and asyncio. Owns what is to be known of that library."""

from collections.abc import Callable
from typing import Any

from psycopg.rows import tuple_row

from dropr_core.transactions.statements import Kind, Rows, Statement, Where, numbered

ADVICE = (
    "this psycopg connection is in autocommit mode and no transaction is open, so the message could not be part of "
    "one: call it within `with connection.transaction():`, or connect without autocommit"
)
BROKEN = "the transaction of this psycopg connection has failed; roll it back first"
_IDLE, _IN_ERROR = 0, 3
"""psycopg.pq.TransactionStatus: PQTRANS_IDLE, PQTRANS_INERROR."""


class _Known:
    kind: Kind = "postgresql"

    def __init__(self, given: Any) -> None:
        self.connection = getattr(given, "connection", given)

    def reason_against(self) -> str:
        """Without autocommit the next statement begins a transaction."""
        status = int(self.connection.info.transaction_status)
        if status == _IN_ERROR:
            return BROKEN
        return ADVICE if status == _IDLE and self.connection.autocommit else ""

    def where(self) -> Where:
        """As the connection was made."""
        info = self.connection.info
        return Where("postgresql", info.dbname, info.host, str(info.port))


class PsycopgTransaction(_Known):
    """A blocking one."""

    def run(self, statement: Statement) -> Rows:
        """Execute with a cursor of its own, whose rows are tuples whatever the connection's are."""
        with self.connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(numbered(statement.sql, "format"), statement.parameters)
            rows: Rows = cursor.fetchall() if cursor.description else []
            return rows

    def after_commit(self, call: Callable[[], object]) -> bool:  # noqa: ARG002
        """The library tells nobody."""
        return False


class AsyncPsycopgTransaction(_Known):
    """One for asyncio."""

    async def arun(self, statement: Statement) -> Rows:
        """As `PsycopgTransaction.run`."""
        async with self.connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(numbered(statement.sql, "format"), statement.parameters)
            rows: Rows = await cursor.fetchall() if cursor.description else []
            return rows
