"""Little stores, right and wrong on purpose: they show whether the power-cut file system can tell them apart.

Each puts numbered records and acknowledges each in a file elsewhere. Reading gives the numbers of the records that
are there, and fails with AssertionError for what no power cut explains. Runs as a program of its own
(``python -m powercut.stores NAME DIRECTORY ACKS FIRST COUNT``) and is imported by the tests.
"""

import hashlib
import os
import sqlite3
import struct
import sys
import zlib
from pathlib import Path

RECORD = struct.Struct("<IIQ")
"""Length of the body, checksum of the rest, number."""

FAILURES = (OSError, sqlite3.Error)
"""What a store may run into when the power fails or an error is injected."""


def body(number):
    """What a record holds: it needs several sectors, lengths differ, and any change is noticed."""
    return hashlib.blake2b(b"%d" % number).digest() * (10 + number % 3 * 15) + b"%d" % number


def sync_directory(path):
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


class Log:
    """Records one after the other, each synced; a torn tail is cut off when the log is opened."""

    synced = named = trimmed = checked = True
    patient = False

    def __init__(self, directory):
        self.fd = os.open(directory / "log", os.O_RDWR | os.O_CREAT, 0o644)
        content = os.pread(self.fd, 1 << 20, 0)
        self.end = self.records(content)[1] if self.trimmed else len(content)
        os.ftruncate(self.fd, self.end)
        if self.synced:
            os.fsync(self.fd)
        if self.named:
            sync_directory(directory)

    def put(self, number):
        """Append; it is promised on return."""
        data = struct.pack("<Q", number) + body(number)
        data = struct.pack("<II", len(body(number)), zlib.crc32(data)) + data
        while data:  # a write may be short
            written = os.pwrite(self.fd, data, self.end)
            data, self.end = data[written:], self.end + written
        if self.synced:
            try:
                os.fsync(self.fd)
            except OSError:
                if not self.patient:
                    raise
                os.fsync(self.fd)

    @classmethod
    def records(cls, content):
        """Numbers of the records, and where the last ends."""
        found, at = [], 0
        while at + RECORD.size <= len(content):
            length, checksum, number = RECORD.unpack_from(content, at)
            end = at + RECORD.size + length
            if not length or end > len(content) or (cls.checked and zlib.crc32(content[at + 8 : end]) != checksum):
                break
            assert content[at + RECORD.size : end] == body(number), f"record {number} holds wrong bytes"
            found.append(number)
            at = end
        return found, at

    @classmethod
    def read(cls, directory):
        """Numbers of the records."""
        path = directory / "log"
        return cls.records(path.read_bytes())[0] if path.exists() else []


class LogWithoutSync(Log):
    """Acknowledges what is only in memory."""

    synced = False


class LogWithoutName(Log):
    """Never makes the name of its file durable."""

    named = False


class LogWithoutTrim(Log):
    """Appends after a torn tail, where no reader looks."""

    trimmed = False


class LogWithoutChecksum(Log):
    """Believes that a record that is long enough is whole."""

    checked = False


class LogWithPatience(Log):
    """Believes a second fsync after the first has failed."""

    patient = True


class Spool:
    """A file for each record: write, sync, rename into place, sync the directory."""

    synced = placed = founded = True

    def __init__(self, directory):
        self.new, self.ready = directory / "new", directory / "ready"
        for place in (self.new, self.ready):
            place.mkdir(exist_ok=True)
        if self.founded:
            sync_directory(directory)

    def put(self, number):
        """Put a file in place; it is promised on return."""
        with (self.new / str(number)).open("wb") as file:
            file.write(body(number))
            file.flush()
            if self.synced:
                os.fsync(file.fileno())
        (self.new / str(number)).rename(self.ready / str(number))
        if self.placed:
            sync_directory(self.ready)

    @classmethod
    def read(cls, directory):
        """Numbers of the records."""
        ready = directory / "ready"
        found = sorted(int(path.name) for path in ready.iterdir()) if ready.exists() else []
        for number in found:
            assert (ready / str(number)).read_bytes() == body(number), f"record {number} holds wrong bytes"
        return found


class SpoolWithoutFileSync(Spool):
    """Renames a file into place before its bytes are durable."""

    synced = False


class SpoolWithoutDirectorySync(Spool):
    """Never makes the rename durable."""

    placed = False


class SpoolWithoutParentSync(Spool):
    """Never makes the directories themselves durable."""

    founded = False


class Sqlite:
    """A row for each record, and in the same transaction a counter."""

    journal, synchronous = "WAL", "FULL"

    def __init__(self, directory):
        self.db = sqlite3.connect(directory / "db", isolation_level=None)
        self.db.execute(f"PRAGMA journal_mode={self.journal}")
        self.db.execute(f"PRAGMA synchronous={self.synchronous}")
        self.db.execute("CREATE TABLE IF NOT EXISTS record(number INTEGER PRIMARY KEY, body BLOB)")
        self.db.execute("CREATE TABLE IF NOT EXISTS total(count INTEGER)")

    def put(self, number):
        """Insert; it is promised on return."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("INSERT INTO record VALUES(?, ?)", (number, body(number)))
        self.db.execute("INSERT INTO total VALUES(1)")
        self.db.execute("COMMIT")

    @classmethod
    def read(cls, directory):
        """Numbers of the records."""
        db = sqlite3.connect(directory / "db")
        try:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            rows = db.execute("SELECT number, body FROM record").fetchall() if "record" in tables else []
            total = db.execute("SELECT count(*) FROM total").fetchone()[0] if "total" in tables else 0
        except sqlite3.DatabaseError as error:
            raise AssertionError(str(error)) from error
        finally:
            db.close()
        assert len(rows) == total, "half of a transaction"
        assert all(content == body(number) for number, content in rows)
        return [number for number, _ in rows]


class SqliteNormal(Sqlite):
    """No sync at commit: may lose, is never damaged."""

    synchronous = "NORMAL"


class SqliteOff(Sqlite):
    """No sync at all."""

    synchronous = "OFF"


class SqliteDelete(Sqlite):
    """The removal of the rollback journal is not synced: it comes back and takes the commit back."""

    journal = "DELETE"


class SqliteDeleteExtra(Sqlite):
    """It is synced."""

    journal, synchronous = "DELETE", "EXTRA"


STORES = {store.__name__: store for store in (
    Log, LogWithoutSync, LogWithoutName, LogWithoutTrim, LogWithoutChecksum, LogWithPatience,
    Spool, SpoolWithoutFileSync, SpoolWithoutDirectorySync, SpoolWithoutParentSync,
    Sqlite, SqliteNormal, SqliteOff, SqliteDelete, SqliteDeleteExtra,
)}  # fmt: skip


def main(name, directory, acks, first, count):
    """Put ``count`` records from ``first`` on, acknowledging each; exit code 3 if the store failed on the way."""
    out = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        store = STORES[name](Path(directory))
        for number in range(int(first), int(first) + int(count)):
            store.put(number)
            os.write(out, b"%d\n" % number)
    except FAILURES:
        os._exit(3)
    os._exit(0)  # without closing: a power cut closes nothing


if __name__ == "__main__":
    main(*sys.argv[1:])
