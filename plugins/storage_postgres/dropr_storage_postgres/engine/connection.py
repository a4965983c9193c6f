"""One session with the server: how it begins and what must be true of it.

Owns the checks at opening: a server that does not keep what it commits, or not the one we need, is refused. Must not
know tables.
"""

from collections.abc import Callable
from typing import Any

import attrs
import psycopg
from psycopg.pq import Format
from psycopg.types.array import ListBinaryDumper
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

from dropr_core.errors import StoreError, StoreReadOnly
from dropr_storage_postgres.engine.address import Place
from dropr_storage_postgres.engine.columns import adapt
from dropr_storage_postgres.engine.forking import SESSIONS
from dropr_storage_postgres.engine.keeping import KeepingConnection
from dropr_storage_postgres.engine.schema import join
from dropr_storage_postgres.engine.times import Times
from dropr_storage_postgres.engine.types import Connection

MINIMUM = 140000
"""PostgreSQL 14: pg_terminate_backend that waits, pg_xact_status, OUT of a CTE that moves rows."""
PREPARED = 500
"""Statements that a session keeps prepared; there are far fewer."""

DUMPERS = ((int, Int8Dumper), (int, Int8BinaryDumper), (list, ListBinaryDumper))
"""Numbers have one type whatever their size, so that each statement is prepared once; lists go in binary form. The last
one for a type is taken where both will do."""

_LOOK = """
SELECT current_setting('server_version_num')::int, current_setting('fsync'), current_setting('full_page_writes'),
  current_setting('synchronous_commit'), current_setting('server_encoding'), pg_is_in_recovery(),
  pg_backend_pid(), (SELECT backend_start::text FROM pg_stat_get_activity(pg_backend_pid())),
  extract(epoch FROM clock_timestamp())::float8
"""


@attrs.frozen
class Backend:
    """The server's process of a session."""

    pid: int
    start: str
    """A pid comes again; with the moment of its start it does not."""
    era: bytes = b""
    """Of the server: another one means that it crashed in between. Empty: not known."""


class BinaryCursor(psycopg.Cursor[Any]):
    """Rows come in binary form: nothing is parsed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.format = Format.BINARY


class Opener:
    """Makes connections to a place."""

    def __init__(self, place: Place, times: Times, now: Callable[[], float], purpose: str) -> None:
        self.place, self._times, self._now, self._purpose = place, times, now, purpose

    def open(self, *, durable: bool = True, read_only: bool = False, **settings: str) -> tuple[Connection, Backend]:
        """A session in autocommit. Without ``durable`` its commits do not wait for the server's disk.

        Of a store that was opened: nobody migrates it while the session lives, and it is the same store still.
        Raises psycopg errors, and StoreError for a server that will not do.
        """
        if read_only:
            settings["default_transaction_read_only"] = "on"
        if not durable:
            settings["synchronous_commit"] = "off"
        connection = KeepingConnection.connect(
            self.place.session(self._purpose, **settings), autocommit=True, prepare_threshold=0,
            cursor_factory=BinaryCursor,
        )  # fmt: skip
        try:
            connection.prepared_max = PREPARED
            adapt(connection)
            for kind, dumper in DUMPERS:
                connection.adapters.register_dumper(kind, dumper)
            SESSIONS.watch(connection)
            before = self._now()
            row = connection.execute(_LOOK, prepare=False).fetchone()
            after = self._now()
            assert row is not None
            version, fsync, pages, commit, encoding, standby, pid, start, server = row
            check(self.place.name, version, fsync, pages, commit if durable else "on", encoding)
            if standby and not read_only:
                raise StoreReadOnly(
                    f"{self.place.name}: this server is a standby, which takes no writes; promote it, or name the "
                    "primary in url (several hosts with target_session_attrs=read-write find it by themselves)"
                )
            self._times.measure(before, server, after)
            era, place = b"", self.place
            if place.birth:
                era = join(connection, place.schema, place.birth, place.name, read_only=read_only)
        except BaseException:
            connection.close()
            raise
        return connection, Backend(pid, start, era)


def check(where: str, version: int, fsync: str, pages: str, commit: str, encoding: str) -> None:
    """Raise StoreError for a server, or a session, that cannot keep what we promise."""
    if version < MINIMUM:
        raise StoreError(
            f"{where}: PostgreSQL {version // 10000} is too old; dropr needs {MINIMUM // 10000} or newer: upgrade "
            "the server"
        )
    for setting, value, why in (
        ("fsync", fsync, "a power cut can destroy the database"),
        ("full_page_writes", pages, "a power cut can tear its pages"),
    ):
        if value != "on":
            raise StoreError(
                f"{where}: the server runs with {setting}={value}: {why}, and with it what was promised; set "
                f"{setting} = on in its postgresql.conf and reload it (ALTER SYSTEM SET {setting} = on; "
                "SELECT pg_reload_conf())"
            )
    if commit == "off":
        raise StoreError(
            f"{where}: synchronous_commit is off for this user or database, so that a commit means nothing; set it "
            "on: ALTER ROLE … RESET synchronous_commit, ALTER DATABASE … RESET synchronous_commit, or postgresql.conf"
        )
    if encoding != "UTF8":
        raise StoreError(
            f"{where}: the database's encoding is {encoding}, which cannot keep every text; make one with "
            "createdb --encoding=UTF8 --template=template0"
        )


__all__ = ["MINIMUM", "Backend", "BinaryCursor", "Connection", "Opener", "check"]
