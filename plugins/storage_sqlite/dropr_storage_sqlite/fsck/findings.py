"""What both halves' checks have in common.

Owns `ContentCheck`: the findings of one half within one transaction, and how a repair is written down; and files
beside the store for bytes that belong to nothing any more. Must not know tables.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import Finding
from dropr_core.model.names import format_id
from dropr_core.system.files import sync_directory
from dropr_core.system.ownership import make_private_directory, open_private
from dropr_storage_sqlite.engine.sqltypes import Connection

PAGE = 500
SHOWN = 3
"""Ids named in one finding; more are counted."""


class ContentCheck:
    """The findings about one half, in the transaction of ``connection``."""

    def __init__(self, half: str, connection: Connection, context: Context, *, repair: bool) -> None:
        self.half, self.connection, self.context, self.repair = half, connection, context, repair
        self.findings: list[Finding] = []

    def find(
        self, what: str, text: str, remedy: str = "", fix: Callable[[], object] | None = None,
        *, severity: Literal["damage", "mistake", "note"] = "mistake",
    ) -> None:  # fmt: skip
        """Note a finding, and with a repair run ``fix``."""
        done = self.repair and fix is not None
        if done and fix is not None:
            fix()
        self.findings.append(Finding(self.half, severity, what, text, remedy, done))

    def rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        """All rows of a statement whose rows are few."""
        return list(self.connection.execute(query, values).fetchall())

    def number(self, query: str, values: tuple[object, ...] = ()) -> int:
        """The one number of a statement, 0 for NULL."""
        found = self.connection.execute(query, values).fetchall()
        return int(found[0][0] or 0) if found else 0

    def run(self, statement: str, values: tuple[object, ...] = ()) -> Callable[[], object]:
        """A fix of one statement."""
        return lambda: self.connection.execute(statement, values).fetchall()

    def owners(self, table: str, bits: int) -> Iterator[int]:
        """The lanes or queues that rows of a table with packed places belong to, one look each."""
        place = -1
        query = f"SELECT place FROM {table} WHERE place > ? ORDER BY place LIMIT 1"  # noqa: S608
        while found := self.connection.execute(query, (place,)).fetchall():
            owner = int(found[0][0]) >> bits
            yield owner
            place = (owner << bits) | ((1 << bits) - 1)

    def keep(self, name: str, data: bytes) -> Path:
        """Write bytes that nothing refers to any more into ``aside/``, durably; returns the file."""
        directory = self.context.data / "aside"
        make_private_directory(directory)
        path, number = directory / name, 1
        while path.exists():
            number += 1
            path = directory / f"{name}-{number}"
        fd = open_private(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(directory)
        sync_directory(self.context.data)
        return path


def say(count: int, one: str, many: str = "") -> str:
    """``1 lease``, ``2 leases``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def say_ids(ids: list[bytes], count: int) -> str:
    """A few ids, and how many more there are."""
    text = ", ".join(format_id(bytes(one)) for one in ids[:SHOWN])
    return text + (f" and {count - len(ids[:SHOWN])} more" if count > len(ids[:SHOWN]) else "")
