"""Beginning a transaction with whatever a program has of its database: a connection, an engine, a pool, a factory.

Owns how each library says it. What is given is used as its library wants it, and committed when the block is left. Must
not know what happens within.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from importlib import import_module
from typing import Any

from dropr_core.errors import UsageError
from dropr_core.system.loading import unforked
from dropr_core.transactions.recognise import library_of

OPEN = "transaction: one is open on this connection already; use message.ack(connection=…) within it"
TAKEN = (
    "an Engine, sessionmaker, Session or Connection of SQLAlchemy, a connection or pool of psycopg, a connection of "
    "sqlite3 or Django"
)


def begin(given: Any) -> AbstractContextManager[Any]:
    """A context manager: a transaction around the block, committed at its end, rolled back if it raises. It gives the
    connection or session to work with. Raises UsageError for what nothing can be begun with.
    """
    library, module = library_of(given), type(given).__module__.partition(".")[0]
    if library == "sqlite3" and hasattr(given, "commit"):
        return _sqlite3(given)
    if library == "psycopg":
        return _psycopg(given)
    if library == "django":
        return _django(given)
    if library == "sqlalchemy":
        return _sqlalchemy(given)
    if module == "sqlalchemy" and hasattr(given, "begin"):  # an Engine or a sessionmaker
        made: AbstractContextManager[Any] = given.begin()
        return made
    if module == "psycopg_pool" and hasattr(given, "connection"):
        pooled: AbstractContextManager[Any] = given.connection()
        return pooled
    raise UsageError(f"transaction: {type(given).__module__}.{type(given).__qualname__} is none of these: {TAKEN}")


@contextmanager
def _sqlite3(connection: Any) -> Iterator[Any]:
    if getattr(connection, "autocommit", -1) is not False:  # else one is always open, since Python 3.12
        if connection.in_transaction:
            raise UsageError(OPEN)
        connection.execute("BEGIN")
    try:
        yield connection
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


@contextmanager
def _psycopg(connection: Any) -> Iterator[Any]:
    if int(connection.info.transaction_status) != 0:
        raise UsageError(OPEN)
    with connection.transaction():
        yield connection


@contextmanager
def _django(connection: Any) -> Iterator[Any]:
    with unforked:
        transaction: Any = import_module("django.db.transaction")
    with transaction.atomic(using=connection.alias, durable=True):
        yield connection


@contextmanager
def _sqlalchemy(given: Any) -> Iterator[Any]:
    if given.in_transaction():
        raise UsageError(OPEN)
    with given.begin():
        yield given


def begin_async(given: Any) -> AbstractAsyncContextManager[Any]:
    """`begin` with what a library for asyncio has: psycopg's AsyncConnection or pool; SQLAlchemy's AsyncEngine,
    async_sessionmaker, AsyncSession or AsyncConnection. Raises UsageError for anything else.
    """
    library, module = library_of(given), type(given).__module__.partition(".")[0]
    if library == "psycopg async":
        return _psycopg_async(given)
    if library == "sqlalchemy async":
        return _sqlalchemy_async(given)
    if module == "sqlalchemy" and hasattr(given, "begin"):
        made: AbstractAsyncContextManager[Any] = given.begin()
        return made
    if module == "psycopg_pool" and hasattr(given, "connection"):
        pooled: AbstractAsyncContextManager[Any] = given.connection()
        return pooled
    raise UsageError(f"transaction: {type(given).__module__}.{type(given).__qualname__} is not of asyncio")


@asynccontextmanager
async def _psycopg_async(connection: Any) -> AsyncIterator[Any]:
    if int(connection.info.transaction_status) != 0:
        raise UsageError(OPEN)
    async with connection.transaction():
        yield connection


@asynccontextmanager
async def _sqlalchemy_async(given: Any) -> AsyncIterator[Any]:
    if given.in_transaction():
        raise UsageError(OPEN)
    async with given.begin():
        yield given


__all__ = ["begin", "begin_async"]
