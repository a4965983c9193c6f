"""SQL that every driver understands, and one run of it for blocking and for asyncio code.

Owns `Transaction` (what is known of a connection of the user's), placeholders, and the two drivers. What is to be done
is written once, as a generator that yields statements and is sent their rows. Must not know tables.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from dropr_core.errors import StoreError

Kind: TypeAlias = Literal["postgresql", "sqlite"]
Rows: TypeAlias = Sequence[Sequence[Any]]
T = TypeVar("T")


class Statement(NamedTuple):
    """One statement, with a ``?`` for each parameter; only texts, bytes, numbers, booleans and None are parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()


Plan: TypeAlias = Generator[Statement, Rows, T]
"""What is to be done in a transaction: it yields statements, and is sent the rows of each."""


class Where(NamedTuple):
    """Which database a connection leads to, as far as it tells."""

    kind: Kind
    name: str
    """Of the database; of SQLite the path of the file."""
    host: str = ""
    port: str = ""

    def __str__(self) -> str:
        at = f" at {self.host}{f':{self.port}' if self.port else ''}" if self.host else ""
        return f"{self.kind} database {self.name or '(in memory)'}{at}"


class Transaction(Protocol):
    """A connection of the user's, with a transaction that is open or begins with the next statement."""

    kind: Kind

    def reason_against(self) -> str:
        """Why nothing can be written as part of a transaction now, and what to do; empty: it can."""
        ...

    def where(self) -> Where:
        """The database. May run a statement."""
        ...

    def run(self, statement: Statement) -> Rows:
        """Execute; raises what the library raises."""
        ...

    def after_commit(self, call: Callable[[], object]) -> bool:
        """Call it once the transaction is committed; False if this library tells nobody."""
        ...


class AsyncTransaction(Protocol):
    """The same of a library for asyncio. Everything but `arun` may be called on the event loop and does not block."""

    kind: Kind

    def reason_against(self) -> str:
        """As `Transaction.reason_against`."""
        ...

    def where(self) -> Where:
        """As `Transaction.where`, without a statement."""
        ...

    async def arun(self, statement: Statement) -> Rows:
        """As `Transaction.run`."""
        ...


def numbered(sql: str, style: str) -> str:
    """The SQL with placeholders as a DB-API module wants them (``paramstyle``)."""
    if style in ("format", "pyformat"):
        return sql.replace("?", "%s")
    if style == "qmark":
        return sql
    pieces = sql.split("?")
    mark = {"numeric": ":", "numeric_dollar": "$"}[style]
    return pieces[0] + "".join(f"{mark}{index}{piece}" for index, piece in enumerate(pieces[1:], 1))


def drive(transaction: Transaction, plan: Plan[T], missing: str) -> T:
    """Carry a plan out. ``missing``: what to say where the table is not there. Raises StoreError for that, and what
    the library raises for anything else: the caller's own code may wait for it (a deadlock, a serialization failure).
    """
    try:
        statement = next(plan)
        while True:
            try:
                rows = transaction.run(statement)
            except Exception as error:
                raise _told(error, missing) from error
            statement = plan.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def adrive(transaction: AsyncTransaction, plan: Plan[T], missing: str) -> T:
    """As `drive`."""
    try:
        statement = next(plan)
        while True:
            try:
                rows = await transaction.arun(statement)
            except Exception as error:
                raise _told(error, missing) from error
            statement = plan.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _told(error: Exception, missing: str) -> Exception:
    return StoreError(missing) if is_missing_table(error) else error


def is_missing_table(error: BaseException | None) -> bool:
    """Whether a statement failed because there is no such table, whatever library says so."""
    while error is not None:
        if type(error).__name__ == "UndefinedTable" or getattr(error, "sqlstate", None) == "42P01":
            return True
        if "no such table" in str(error):
            return True
        error = error.__cause__
    return False


__all__ = [
    "AsyncTransaction", "Kind", "Plan", "Rows", "Statement", "Transaction", "Where", "adrive", "drive",
    "is_missing_table", "numbered",
]  # fmt: skip
