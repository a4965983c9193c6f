"""Sessions and connections of SQLAlchemy 2, blocking and asyncio. Owns what is to be known of that library."""

from collections.abc import Callable
from typing import Any

from dropr_core.errors import UsageError
from dropr_core.transactions.statements import Kind, Rows, Statement, Where, numbered

ADVICE = (
    "this SQLAlchemy connection has the isolation level AUTOCOMMIT, so the message could not be part of a transaction: "
    "use an engine without it, `with engine.begin() as connection:` or `with Session(engine) as session:`"
)
_KINDS: dict[str, Kind] = {"postgresql": "postgresql", "sqlite": "sqlite"}


class SqlalchemyTransaction:
    """A blocking Session (or scoped_session) or Connection."""

    def __init__(self, given: Any) -> None:
        """Raises UsageError for a database of another kind."""
        self._given = given
        self._connection = given if hasattr(given, "exec_driver_sql") else given.connection()
        dialect = self._connection.dialect
        kind = _KINDS.get(dialect.name)
        if kind is None:
            raise UsageError(f"connection: a {dialect.name} database; outbox tables are kept in postgresql and sqlite")
        self.kind: Kind = kind

    def reason_against(self) -> str:
        """SQLAlchemy begins a transaction by itself, except with AUTOCOMMIT."""
        level = self._connection.get_execution_options().get("isolation_level")
        level = level or getattr(self._connection.dialect, "_on_connect_isolation_level", None)
        return ADVICE if level == "AUTOCOMMIT" else ""

    def where(self) -> Where:
        """As the engine was made."""
        url = self._connection.engine.url
        if self.kind == "sqlite":
            rows = self._connection.exec_driver_sql("PRAGMA database_list").fetchall()
            return Where("sqlite", next((str(row[2] or "") for row in rows if row[1] == "main"), ""))
        return Where("postgresql", url.database or "", url.host or "", str(url.port or ""))

    def run(self, statement: Statement) -> Rows:
        """Execute as the driver has it, past the compiler."""
        sql = numbered(statement.sql, self._connection.dialect.paramstyle)
        result = self._connection.exec_driver_sql(sql, statement.parameters)
        rows: Rows = [tuple(row) for row in result] if result.returns_rows else []
        return rows

    def after_commit(self, call: Callable[[], object]) -> bool:  # noqa: ARG002
        """Its events are told before the commit."""
        return False


class AsyncSqlalchemyTransaction:
    """An AsyncSession or AsyncConnection: the blocking one beneath, run as the library wants it."""

    def __init__(self, given: Any) -> None:
        self._given = given
        bind = getattr(given, "sync_connection", None) or given.get_bind()
        engine = getattr(bind, "engine", bind)
        kind = _KINDS.get(engine.dialect.name)
        if kind is None:
            raise UsageError(
                f"connection: a {engine.dialect.name} database; outbox tables are kept in postgresql and sqlite"
            )
        self.kind: Kind = kind
        self._url = engine.url

    def reason_against(self) -> str:
        """As far as it can be known without asking the database."""
        connection = getattr(self._given, "sync_connection", None)
        return "" if connection is None else SqlalchemyTransaction(connection).reason_against()

    def where(self) -> Where:
        """As the engine was made."""
        url = self._url
        if self.kind == "sqlite":
            return Where("sqlite", url.database or "")
        return Where("postgresql", url.database or "", url.host or "", str(url.port or ""))

    async def arun(self, statement: Statement) -> Rows:
        """As `SqlalchemyTransaction.run`."""

        def run(given: Any) -> Rows:
            beneath = SqlalchemyTransaction(given)
            if against := beneath.reason_against():
                raise UsageError(f"connection: {against}")
            return beneath.run(statement)

        rows: Rows = await self._given.run_sync(run)
        return rows
