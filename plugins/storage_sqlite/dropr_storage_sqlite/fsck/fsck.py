"""What `dropr fsck` does with a store in SQLite.

Owns the order: is each file there, is it a database of dropr, are its pages sound, do its tables agree. Opens
the files itself, as they may be in no state to be opened otherwise. Must not know tables (see
`outbox`, `inbox`) nor how a damaged file is copied (`salvage`).
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import apsw

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import Finding
from dropr_core.errors import DroprError, Held, StoreBusy, StoreError
from dropr_core.model.names import StoreId, make_store_id
from dropr_storage_sqlite.engine.connection import patience
from dropr_storage_sqlite.engine.errors import translate
from dropr_storage_sqlite.engine.schema import INBOX, OUTBOX, Schema, bring_up, version_of
from dropr_storage_sqlite.fsck import salvage
from dropr_storage_sqlite.fsck.findings import ContentCheck, say
from dropr_storage_sqlite.fsck.inbox import check_inbox
from dropr_storage_sqlite.fsck.outbox import check_outbox
from dropr_storage_sqlite.outbox import sql as outbox_sql
from dropr_storage_sqlite.outbox.rows import lane_rows, note
from dropr_storage_sqlite.outbox.ship import renumber_lane

PATIENCE = 2.0
"""Seconds for which a repair waits for another process that is just closing the store."""
TELL_EVERY = 10.0
"""Seconds between two words about how far a long check is."""
STEPS = 2_000_000
"""Steps of SQLite between two looks at the time."""
SHOWN = 50
"""Complaints about pages that are read; one is enough to know."""

_INDEX = re.compile(r"missing from index|wrong # of entries in index|non-unique entry in index")


def check_store(context: Context, births: Callable[[], dict[str, str] | None], *, repair: bool) -> Iterator[Finding]:
    """Check both halves; see `Storage.check`. ``births``: reads the marker, raises StoreError."""
    try:
        known = births()
    except StoreError as error:
        yield Finding("store", "damage", "store.json", str(error))
        known = {}
    for schema in (OUTBOX, INBOX):
        yield from _FileCheck(context, schema, repair=repair).check(
            None if known is None else known.get(schema.half, "")
        )


class _Damaged(Exception):
    """Pages cannot be read."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class _FileCheck:
    """One file."""

    def __init__(self, context: Context, schema: Schema, *, repair: bool) -> None:
        self._context, self._schema, self._repair = context, schema, repair
        self._path = context.data / f"{schema.half}.db"
        self._name, self._told = self._path.name, time.monotonic()

    def _finding(
        self, severity: Literal["damage", "mistake", "note"], text: str, remedy: str = "", *, done: bool = False
    ) -> Finding:
        return Finding(self._schema.half, severity, self._name, text, remedy, done)

    def check(self, birth: str | None) -> Iterator[Finding]:
        """``birth``: the id in the marker, empty if that cannot be read, None if there never was a store."""
        if not self._path.exists():
            if salvage.fresh_of(self._path).exists():
                yield self._finish()
            elif birth is not None:
                yield self._finding(
                    "damage",
                    "is gone, though store.json says that it was made; all that was in it is missing. Put it back from "
                    "a backup; or remove store.json to begin with an empty store, which peers will notice",
                )
            return
        try:
            yield from self._sound()
        except _Damaged as damage:
            yield from self._save(damage.text)
        except (StoreError, Held) as error:
            if isinstance(error, Held):
                raise
            yield self._finding("damage", str(error))

    def _finish(self) -> Finding:
        if self._repair:
            salvage.put_in_place(self._path)
        return self._finding(
            "damage",
            f"is gone: an earlier repair was stopped when {salvage.fresh_of(self._path).name} was about to take its "
            "place",
            "puts it there",
            done=self._repair,
        )

    # ── a file that can be opened ────────────────────────────────────────────────────────────────

    def _sound(self) -> Iterator[Finding]:
        connection = self._open()
        try:
            if not self._is_ours(connection):
                yield self._finding(
                    "note", f"is still of an older format; the next process that opens the node makes it format "
                    f"{self._schema.version}, and only then its tables can be compared",
                )  # fmt: skip
                yield from self._pages(connection)
                return
            yield from self._pages(connection)
            yield from self._tables(connection)
        except (*salvage.BAD, MemoryError) as error:
            raise _Damaged(str(error)) from error
        except apsw.Error as error:
            raise translate(error, self._path) from error
        finally:
            connection.close(force=True)

    def _open(self) -> apsw.Connection:
        connection = None
        try:
            if self._repair:
                connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            else:
                look = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
                connection = apsw.Connection(_address(self._path), flags=look)
            connection.set_busy_handler(patience(PATIENCE))
            connection.execute("PRAGMA cell_size_check=ON")
            connection.execute("PRAGMA temp_store=FILE")
            connection.execute("PRAGMA cache_size=-16384")
            if self._repair:
                # In WAL mode this is had only while no other process has the file open, idle or not.
                connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("COMMIT")
            connection.set_progress_handler(self._tell, STEPS)
        except salvage.BAD as error:
            if connection is not None:
                connection.close(force=True)
            raise _Damaged(str(error)) from error
        except apsw.Error as error:
            if connection is not None:
                connection.close(force=True)
            translated = translate(error, self._path)
            if isinstance(translated, StoreBusy):
                raise Held(
                    f"{self._path} is open in another process; stop every process of this node (fuser {self._path} "
                    "tells which), then repair again; nothing was changed"
                ) from error
            raise translated from error
        return connection

    def _tell(self) -> bool:
        if time.monotonic() - self._told > TELL_EVERY:
            self._told = time.monotonic()
            self._context.log.info("still checking %s", self._path)
        return False

    def _is_ours(self, connection: apsw.Connection) -> bool:
        """Whether the file has the present format (a repair brings it there). Raises StoreError."""
        version = version_of(connection, self._path, self._schema)
        if version == 0:
            raise _Damaged("its header is empty")
        if version < self._schema.version and self._repair:
            bring_up(connection, self._path, self._schema)
            return True
        return version == self._schema.version

    def _pages(self, connection: apsw.Connection) -> Iterator[Finding]:
        wrong = _integrity(connection)
        if wrong and all(_INDEX.search(line) for line in wrong):
            if self._repair:
                connection.execute("REINDEX")
                again = _integrity(connection)
                if again:
                    raise _Damaged(again[0])
            yield self._finding(
                "mistake",
                f"an index does not agree with its table ({wrong[0]}): messages could be overlooked",
                "makes its indexes anew",
                done=self._repair,
            )
        elif wrong:
            raise _Damaged(wrong[0])

    def _tables(self, connection: apsw.Connection) -> Iterator[Finding]:
        connection.execute("BEGIN IMMEDIATE" if self._repair else "BEGIN")
        check = ContentCheck(self._schema.half, connection, self._context, repair=self._repair)
        try:
            _meta(check)
            (check_outbox if self._schema is OUTBOX else check_inbox)(check)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if check.findings and self._repair:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        yield from check.findings

    # ── a file that cannot ───────────────────────────────────────────────────────────────────────

    def _save(self, text: str) -> Iterator[Finding]:
        what = f"is damaged: {text}. What stands on the damaged pages cannot be read"
        remedy = "copies all that can be read into a fresh file and keeps the damaged one beside it"
        if not self._repair:
            yield self._finding("damage", what, remedy)
            return
        try:
            saved = salvage.salvage(self._path, self._schema)
        except (apsw.Error, OSError) as error:
            yield self._finding("damage", f"{what}; saving it failed: {translate(error, self._path)}")
            return
        if saved is None:
            yield self._finding(
                "damage",
                f"{what}, not even which tables it has, so nothing can be saved; nothing was changed. Keep it, and put "
                "a backup in its place (docs/operations/README.md: Damage)",
            )
            return
        lost = f"; of {', '.join(saved.lost_tables)} nothing" if saved.lost_tables else ""
        yield self._finding(
            "damage", f"was damaged: {text}",
            f"{say(saved.rows, 'row')} copied, unreadable at {say(saved.gaps, 'place')}{lost}; the damaged file is "
            f"kept as {saved.aside.name}", done=True,
        )  # fmt: skip
        connection = self._open()
        try:
            bring_up(connection, self._path, self._schema)
            yield from self._tables(connection)
            if saved.gaps:
                yield self._new_identity(connection)
        except apsw.Error as error:
            raise translate(error, self._path) from error
        finally:
            connection.close(force=True)

    def _new_identity(self, connection: apsw.Connection) -> Finding:
        """What is missing must not be taken for what never was: numbers that were given are not given again."""
        connection.execute("BEGIN IMMEDIATE")
        store: StoreId = make_store_id()
        connection.execute(outbox_sql.SET_STORE, (store,))
        if self._schema is OUTBOX:
            for row in lane_rows(connection).values():
                renumber_lane(connection, note(connection, row))
            text = "all that waits is sent under it, flagged as possible duplicates"
        else:
            connection.execute("DELETE FROM source")  # what a sender still keeps, it sends again then
            text = "senders send again what they still keep, flagged as possible duplicates"
        connection.execute("COMMIT")
        return self._finding("note", f"messages were lost: it goes on under a new store id, which peers notice; {text}")


def _meta(check: ContentCheck) -> None:
    """The few values that a half cannot be without."""
    present = {row[0]: row[1] for row in check.rows("SELECT key, value FROM meta")}
    insert = "INSERT OR REPLACE INTO meta VALUES(?, ?)"
    defaults: dict[str, tuple[object, str]] = {
        "store": (os.urandom(8), "takes a new one, which peers notice"),
        "flush": (0, "begins it anew"),
    }
    birth = _birth(check.context.data, check.half)
    if birth is not None:
        defaults["birth"] = (birth, "takes it from store.json")
    if check.half == "inbox":
        defaults["last"] = (0, "counts it anew")
    for key, (value, remedy) in defaults.items():
        if present.get(key) is None:
            check.find(
                f"{check.half}.db", f"the value '{key}' is lost", remedy, check.run(insert, (key, value))
            )  # fmt: skip


def _birth(data: Path, half: str) -> bytes | None:
    try:
        return bytes.fromhex(json.loads((data / "store.json").read_text(encoding="ascii"))[half])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _integrity(connection: apsw.Connection) -> list[str]:
    lines: list[str] = []
    for (line,) in connection.execute(f"PRAGMA integrity_check({SHOWN})"):
        lines.append(" ".join(str(line).split()))
    return [] if lines == ["ok"] else lines


def _address(path: Path) -> str:
    """As SQLite shall open a file to look. Without a WAL nobody else has it open, and nothing needs to be made."""
    wal = path.with_name(path.name + "-wal")
    quiet = not wal.exists() or wal.stat().st_size == 0
    return f"file:{quote(str(path.absolute()))}" + ("?immutable=1" if quiet else "")


__all__ = ["DroprError", "check_store"]
