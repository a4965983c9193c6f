"""What the checks of all parts have in common.

Owns `ContentCheck`: the findings of one part within one transaction, and how a repair is written down. Must not know
tables.
"""

from collections.abc import Callable
from typing import Any, Literal

from dropr_core.contracts.records import Finding
from dropr_core.model.names import format_id
from dropr_storage_postgres.engine.connection import Connection

SHOWN = 3
"""Ids named in one finding; more are counted."""


class ContentCheck:
    """The findings about one part of a store, in the transaction of ``connection``."""

    def __init__(self, half: str, connection: Connection, *, repair: bool) -> None:
        self.half, self.connection, self.repair = half, connection, repair
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
        return self.connection.execute(query, values, prepare=False).fetchall()

    def number(self, query: str, values: tuple[object, ...] = ()) -> int:
        """The one number of a statement, 0 for NULL."""
        found = self.rows(query, values)
        return int(found[0][0] or 0) if found else 0

    def run(self, *statements: str) -> Callable[[], object]:
        """A fix of some statements."""

        def fix() -> None:
            for statement in statements:
                self.connection.execute(statement, prepare=False)

        return fix


def say(count: int, one: str, many: str = "") -> str:
    """``1 lease``, ``2 leases``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def say_ids(ids: list[bytes], count: int) -> str:
    """A few ids, and how many more there are."""
    text = ", ".join(format_id(bytes(one)) for one in ids[:SHOWN])
    return text + (f" and {count - len(ids[:SHOWN])} more" if count > len(ids[:SHOWN]) else "")
