"""What went wrong, in dropr's words.

Owns the translation of every error of psycopg into the tree of `dropr_core.errors`, and which of them mean that the
connection is gone or that the same again may help. Must not know what the failed operation meant.
"""

import psycopg
from psycopg import errors as pg

from dropr_core.errors import (
    DroprError,
    QueueFull,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreGone,
    StoreReadOnly,
    WriteFailed,
)


class StoreUnreachable(StoreBusy):
    """The server cannot be reached now: it is down, starts up, or has no connection left. Nothing was changed."""


COLLISIONS = (pg.DeadlockDetected, pg.SerializationFailure)
"""Nobody's fault: the same transaction again goes through."""
_STARTING = (pg.CannotConnectNow, pg.AdminShutdown, pg.CrashShutdown)
_ACCESS = (pg.InvalidAuthorizationSpecification, pg.InvalidPassword)
_RIGHTS = (pg.InsufficientPrivilege,)
_READ_ONLY = (pg.ReadOnlySqlTransaction,)
_DAMAGE = (pg.DataCorrupted, pg.IndexCorrupted)
_DISK = (pg.IoError, pg.SystemError)
_MISSING = (pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedColumn)
_FULL = ("too many clients", "too many connections", "remaining connection slots")
"""Before a session is there, the server's answer has no code."""
_SLOW = (pg.LockNotAvailable, pg.QueryCanceled)


def translate(error: Exception, where: str) -> DroprError:
    """The dropr error that says what ``error`` means for the store at ``where``."""
    if isinstance(error, DroprError):
        return error
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, pg.DiskFull):
        return QueueFull(f"{where}: the server's disk is full ({said}); free some space there, nothing else is needed")
    if isinstance(error, pg.TooManyConnections) or any(words in said for words in _FULL):
        return StoreUnreachable(
            f"{where}: the server has no connection left ({said}); raise max_connections, or look who holds them "
            "(pg_stat_activity tells); it is tried again with the next call"
        )
    if isinstance(error, _ACCESS) or "authentication failed" in said or "no pg_hba.conf entry" in said:
        return StoreError(
            f"{where}: the server does not let us in ({said}); look at user and password in `storage:` and at the "
            "server's pg_hba.conf"
        )
    if isinstance(error, pg.InvalidCatalogName) or (_at_connect(error) and "does not exist" in said):
        return StoreError(
            f"{where}: {said}; let the database's administrator make it (createdb), or correct url in `storage:`"
        )
    if isinstance(error, _RIGHTS):
        return StoreReadOnly(
            f"{where}: the user has not the rights that are needed ({said}); let the database's administrator "
            "GRANT CREATE ON DATABASE to this user, or make the schema for it: CREATE SCHEMA … AUTHORIZATION …"
        )
    if isinstance(error, _READ_ONLY):
        return StoreReadOnly(
            f"{where}: the server takes no writes now ({said}): it is a standby, or was made read-only; promote it, or "
            "name the primary in url (several hosts with target_session_attrs=read-write find it by themselves)"
        )
    if isinstance(error, _MISSING):
        return StoreGone(
            f"{where}: tables of the store are gone ({said}); put the database back from a backup, or restart this "
            "process if the schema was removed on purpose"
        )
    if isinstance(error, _DAMAGE):
        return StoreCorrupt(
            f"{where}: the server reports damage ({said}); nothing was deleted; look at the server's log, check it "
            "with pg_amcheck, and put it back from a backup (peers notice, see docs/guarantees.md)"
        )
    if isinstance(error, _DISK):
        return WriteFailed(f"{where}: the server's disk reported an error ({said}); nothing was promised by this call")
    if isinstance(error, _SLOW):
        return StoreBusy(
            f"{where}: another session has kept a lock for too long ({said}); look who does "
            "(pg_stat_activity and pg_blocking_pids tell), then try again"
        )
    if isinstance(error, COLLISIONS):
        return StoreBusy(f"{where}: several sessions got in each other's way again and again ({said}); try again")
    if isinstance(error, (*_STARTING, psycopg.OperationalError, psycopg.InterfaceError)) or is_of_the_line(error):
        return StoreUnreachable(
            f"{where}: the server cannot be reached ({said}); is it running, and the way to it open? It is tried again "
            "with the next call, nothing that was promised is lost"
        )
    return StoreError(f"{where}: {type(error).__name__}: {said}")


def is_of_the_line(error: Exception) -> bool:
    """Whether the server said nothing, because nothing gets through."""
    return type(error) in {psycopg.DatabaseError, psycopg.OperationalError} and getattr(error, "sqlstate", "") is None


def _at_connect(error: Exception) -> bool:
    return isinstance(error, psycopg.OperationalError) and error.sqlstate is None
