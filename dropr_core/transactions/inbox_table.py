"""The table that remembers, in the user's database, which messages have taken effect.

Owns its statements. A message is named by the node that handles it, its id, its channel and its sender: whatever store
brings it again. Must not know leases.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dropr_core.model.names import MessageId, format_id
from dropr_core.transactions.outbox_table import AGE
from dropr_core.transactions.statements import Kind, Plan, Rows, Statement

FULL = 2
"""``PRAGMA synchronous`` from which on a commit is on stable storage when it returns, in every mode of the journal."""


class Mark(NamedTuple):
    """Names a message in the table."""

    node: str
    id: MessageId
    channel: str
    sender: str


class Effect(NamedTuple):
    """What is remembered of one."""

    result: bytes | None
    result_type: str


class Noted(NamedTuple):
    """What came of noting that a message takes effect."""

    before: bool
    """It has taken effect before."""
    soft: bool
    """The commit of this transaction will be seen before it is on stable storage."""


class InboxTable:
    """The statements of one table."""

    def __init__(self, kind: Kind, name: str) -> None:
        self.kind: Kind = kind
        self.name = name

    @property
    def missing(self) -> str:
        """What to say where it is not there."""
        return f"the {self.kind} database has no table {self.name}; 'dropr outbox install' makes it"

    def note(self, mark: Mark, result: bytes | None = None, result_type: str = "") -> Plan[Noted]:
        """Note that a message takes effect with the transaction. Waits for another transaction that is noting the same,
        until that one ends.
        """
        told = "current_setting('synchronous_commit')" if self.kind == "postgresql" else "1"
        rows: Rows = yield Statement(
            f"INSERT INTO {self.name} (node, id, channel, sender, result, result_type)"  # noqa: S608 - the name is checked
            f" VALUES (?, ?{self._cast}, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING {told}",
            (mark.node, format_id(mark.id), mark.channel, mark.sender, result, result_type or None),
        )
        if not rows:
            return Noted(before=True, soft=False)
        if self.kind == "postgresql":
            return Noted(before=False, soft=rows[0][0] == "off")
        level: Rows = yield Statement("PRAGMA synchronous")
        return Noted(before=False, soft=int(level[0][0]) < FULL)

    def look(self, mark: Mark) -> Plan[Effect | None]:
        """What is remembered of a message; None: it has not taken effect."""
        rows: Rows = yield Statement(
            f"SELECT result, result_type FROM {self.name}"  # noqa: S608
            f" WHERE node = ? AND id = ?{self._cast} AND channel = ? AND sender = ?",
            (mark.node, format_id(mark.id), mark.channel, mark.sender),
        )
        if not rows:
            return None
        result, kind = rows[0]
        return Effect(None if result is None else bytes(result), kind or "")

    def old(self, node: str, seconds: float, skip: int, limit: int) -> Statement:
        """(id, channel, sender) of what is older, a page, the oldest first. ``skip``: so many of them were kept."""
        age, text = AGE[self.kind], "::text" if self.kind == "postgresql" else ""
        return Statement(
            f"SELECT id{text}, channel, sender FROM {self.name}"  # noqa: S608
            f" WHERE node = ? AND {age} > ? ORDER BY created_at, id LIMIT {int(limit)} OFFSET {int(skip)}",
            (node, seconds),
        )

    def forget(self, marks: Sequence[Mark]) -> Statement:
        """They cannot come again. Of one node, `AT_ONCE` at most."""
        places = ", ".join([f"(?{self._cast}, ?, ?)"] * len(marks))
        parameters = [value for mark in marks for value in (format_id(mark.id), mark.channel, mark.sender)]
        return Statement(
            f"DELETE FROM {self.name} WHERE node = ? AND (id, channel, sender) IN (VALUES {places})",  # noqa: S608
            (marks[0].node, *parameters),
        )

    @property
    def _cast(self) -> str:
        return "::uuid" if self.kind == "postgresql" else ""


__all__ = ["Effect", "InboxTable", "Mark", "Noted"]
