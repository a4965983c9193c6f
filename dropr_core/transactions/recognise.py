"""Which library a connection of the user's is of.

Owns the list of adapters. What is given is told by the module and the name of its class, and those of its bases, so
that no library is imported for it and subclasses count. Must not know what the adapters do.
"""

from typing import Any, Literal, TypeAlias

from dropr_core.errors import UsageError
from dropr_core.system.loading import unforked
from dropr_core.transactions.statements import AsyncTransaction, Transaction

Library: TypeAlias = Literal["sqlite3", "psycopg", "psycopg async", "sqlalchemy", "sqlalchemy async", "django", ""]

TAKEN = (
    "a connection or cursor of psycopg 3 or sqlite3, a Session or Connection of SQLAlchemy 2, or a connection of "
    "Django (django.db.connection)"
)


def library_of(given: object) -> Library:
    """Which library it is of; empty for anything else."""
    for kind in type(given).__mro__:
        package, name = kind.__module__.partition(".")[0], kind.__name__
        if package == "sqlite3" and name in ("Connection", "Cursor"):
            return "sqlite3"
        if package == "psycopg" and name in ("BaseConnection", "BaseCursor"):
            asyncio = any(one.__name__ in ("AsyncConnection", "AsyncCursor") for one in type(given).__mro__)
            return "psycopg async" if asyncio else "psycopg"
        if package == "sqlalchemy":
            if name in ("AsyncSession", "AsyncConnection", "async_scoped_session"):
                return "sqlalchemy async"
            if name in ("Session", "Connection", "scoped_session"):
                return "sqlalchemy"
        if package == "django" and name in ("BaseDatabaseWrapper", "ConnectionProxy"):
            return "django"
    return ""


def is_async(given: object) -> bool:
    """Whether its statements are awaited."""
    return library_of(given).endswith("async")


def transaction_of(given: Any) -> Transaction:
    """What it is as a `Transaction`. Raises UsageError for anything else, and for one of asyncio."""
    library = library_of(given)
    if library == "sqlite3":
        with unforked:
            from dropr_core.transactions.of_sqlite3 import Sqlite3Transaction

        return Sqlite3Transaction(given)
    if library == "psycopg":
        with unforked:
            from dropr_core.transactions.of_psycopg import PsycopgTransaction

        return PsycopgTransaction(given)
    if library == "sqlalchemy":
        with unforked:
            from dropr_core.transactions.of_sqlalchemy import SqlalchemyTransaction

        return SqlalchemyTransaction(given)
    if library == "django":
        with unforked:
            from dropr_core.transactions.of_django import DjangoTransaction

        return DjangoTransaction(given)
    if library:
        raise UsageError(f"connection: {type(given).__qualname__} is of asyncio; use `dropr_core.aopen` and await")
    raise UsageError(f"connection: {type(given).__module__}.{type(given).__qualname__} is none of these: {TAKEN}")


def async_transaction_of(given: Any) -> AsyncTransaction:
    """What it is as an `AsyncTransaction`. Raises UsageError for anything else."""
    library = library_of(given)
    if library == "psycopg async":
        with unforked:
            from dropr_core.transactions.of_psycopg import AsyncPsycopgTransaction

        return AsyncPsycopgTransaction(given)
    if library == "sqlalchemy async":
        with unforked:
            from dropr_core.transactions.of_sqlalchemy import AsyncSqlalchemyTransaction

        return AsyncSqlalchemyTransaction(given)
    raise UsageError(f"connection: {type(given).__qualname__} is not of asyncio")


__all__ = ["async_transaction_of", "is_async", "library_of", "transaction_of"]
