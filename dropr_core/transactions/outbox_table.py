"""The table of messages in the user's database: what is put into it, and what the daemon takes out.

Owns the columns as statements, for both databases, and `Prepared`: a message that a dropr program has composed already.
How the table is made is in outbox_layout.py. Must not know connections, lanes or envelopes.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from dropr_core.contracts.records import NewMessage
from dropr_core.model.names import MessageId, format_id
from dropr_core.transactions.statements import Kind, Plan, Rows, Statement

AT_ONCE = 50
"""Rows in one statement: SQLite takes a thousand parameters at least."""

_Prepared = tuple[int, bytes, str, int, tuple[str, ...], bytes, bool, float | None, bool, bytes | None]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Prepared).decode


class Row(NamedTuple):
    """One message of the table, as it was inserted."""

    seq: int
    format: int
    channel: str
    recipients: str | None
    body: bytes
    content_type: str | None
    headers: str | None
    """A JSON object."""
    priority: int | None
    rank: int | None
    delay: float | None
    expires_in: float | None
    ordering_key: str | None
    receipt: bool | None
    dedup_key: str | None
    id: str
    prepared: bytes | None
    age: float
    """Seconds since it was inserted, by the database's clock."""


class Seen(NamedTuple):
    """One that waits, without its body."""

    seq: int
    size: int
    channel: str
    recipients: str | None
    prepared: bool
    """Composed already; then ``recipients`` are its peers."""


class Refused(NamedTuple):
    """One that was set aside."""

    seq: int
    node: str
    channel: str
    id: str
    age: float
    size: int
    problem: str


_COLUMNS = (
    "seq, format, channel, recipients, body, content_type, headers{text}, priority, rank, delay, expires_in, "
    "ordering_key, receipt, dedup_key, id{text}, prepared, {age}"
)
AGE = {
    "postgresql": "extract(epoch from clock_timestamp() - created_at)::float8",
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0 - created_at",
}
_SIZE = {
    "postgresql": "octet_length(body) + coalesce(octet_length(prepared), 0)",
    "sqlite": "length(body) + coalesce(length(prepared), 0)",
}


class OutboxTable:
    """The statements of one table."""

    def __init__(self, kind: Kind, name: str) -> None:
        self.kind: Kind = kind
        self.name = name

    @property
    def missing(self) -> str:
        """What to say where it is not there."""
        return f"the {self.kind} database has no table {self.name}; 'dropr outbox install' makes it"

    def insert(self, node: str, messages: Sequence[NewMessage]) -> Plan[str]:
        """Put messages in, in their order. Returns what names the transaction afterwards: of PostgreSQL its number."""
        rows: Rows = []
        for first in range(0, len(messages), AT_ONCE):
            some = messages[first : first + AT_ONCE]
            places = ", ".join(["(?, ?, ?, ?, ?)"] * len(some))
            returning = " RETURNING pg_current_xact_id()::text" if self.kind == "postgresql" else ""
            parameters = [value for message in some for value in self._values(node, message)]
            rows = yield Statement(
                f"INSERT INTO {self.name} (node, id, channel, recipients, prepared) VALUES {places}{returning}",  # noqa: S608 - the name is checked
                tuple(parameters),
            )  # fmt: skip
        return str(rows[0][0]) if rows else ""

    @staticmethod
    def _values(node: str, message: NewMessage) -> tuple[Any, ...]:
        return node, format_id(message.id), message.channel, ",".join(message.peers), pack(message)

    def page(self, node: str, after: int, limit: int) -> Statement:
        """The next rows of a node behind a number, in order; see `Seen`."""
        return Statement(
            f"SELECT seq, {_SIZE[self.kind]}, channel, recipients, prepared IS NOT NULL FROM {self.name}"  # noqa: S608
            f" WHERE node = ? AND problem IS NULL AND seq > ? ORDER BY seq LIMIT {limit}",
            (node, after),
        )

    def rows(self, numbers: Sequence[int]) -> Statement:
        """Those rows, in order; see `Row`. Of PostgreSQL they are locked, and locked ones passed over."""
        text = "::text" if self.kind == "postgresql" else ""
        columns = _COLUMNS.format(text=text, age=AGE[self.kind])
        lock = " FOR UPDATE SKIP LOCKED" if self.kind == "postgresql" else ""
        chosen = f"seq IN ({_list(numbers)}) AND problem IS NULL"
        return Statement(f"SELECT {columns} FROM {self.name} WHERE {chosen} ORDER BY seq{lock}")  # noqa: S608

    def delete(self, numbers: Iterable[int]) -> Statement:
        """They are in the lanes."""
        return Statement(f"DELETE FROM {self.name} WHERE seq IN ({_list(numbers)})")  # noqa: S608

    def set_aside(self, number: int, problem: str) -> Statement:
        """It cannot be sent as it stands."""
        return Statement(f"UPDATE {self.name} SET problem = ? WHERE seq = ?", (problem, number))  # noqa: S608

    def count(self) -> Statement:
        """(node, how many wait, how many were set aside, age of the oldest that waits) for each node."""
        waits = "sum(CASE WHEN problem IS NULL THEN 1 ELSE 0 END)"
        age = f"max(CASE WHEN problem IS NULL THEN {AGE[self.kind]} END)"
        counts = f"{waits}, count(*) - {waits}, {age}"
        return Statement(f"SELECT node, {counts} FROM {self.name} GROUP BY node ORDER BY node")  # noqa: S608

    def refused(self, after: int, limit: int) -> Statement:
        """What was set aside, a page in order; see `Refused`."""
        text = "::text" if self.kind == "postgresql" else ""
        return Statement(
            f"SELECT seq, node, channel, id{text}, {AGE[self.kind]}, {_SIZE[self.kind]}, problem FROM {self.name}"  # noqa: S608
            f" WHERE problem IS NOT NULL AND seq > ? ORDER BY seq LIMIT {limit}",
            (after,),
        )

    def redrive(self, numbers: Sequence[int]) -> Statement:
        """Try what was set aside again: these, or all. Returns a row for each."""
        some = f" AND seq IN ({_list(numbers)})" if numbers else ""
        return Statement(f"UPDATE {self.name} SET problem = NULL WHERE problem IS NOT NULL{some} RETURNING seq")  # noqa: S608

    def has(self, ids: Sequence[MessageId]) -> Statement:
        """Which of these messages are in it."""
        cast = "::uuid" if self.kind == "postgresql" else ""
        text = "::text" if self.kind == "postgresql" else ""
        marks = ", ".join([f"?{cast}"] * len(ids))
        return Statement(f"SELECT id{text} FROM {self.name} WHERE id IN ({marks})", tuple(map(format_id, ids)))  # noqa: S608


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)


def pack(message: NewMessage) -> bytes:
    """A composed message as the column ``prepared`` has it."""
    return _encode((1, *message))


def unpack(data: bytes) -> NewMessage:
    """The message. Raises ValueError for what is none."""
    try:
        version, *fields = _decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"column prepared cannot be read ({error}); leave it empty") from None
    if version != 1:
        raise ValueError(f"column prepared has version {version}; upgrade dropr on the machine of the daemon")
    return NewMessage(*fields)


__all__ = ["OutboxTable", "Refused", "Row", "Seen", "pack", "unpack"]
