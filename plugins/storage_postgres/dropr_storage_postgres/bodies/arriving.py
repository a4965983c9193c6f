"""Bodies on their way in: pieces that come to any server of the node, in any order, make one body.

Nothing is kept in a process: each piece is a transaction that asks the database how much is there. It does not wait for
the server's disk; the last one does, and with it all before it. What a crash of the server undoes is not among what is
said to be here afterwards, and comes again.

Owns the rows of bodies that are not complete. Must not know frames, or who may send what.
"""
# ruff: noqa: S608 -- statements are put together here from constants of this room only

from typing import Any

from dropr_core.contracts.bodies import Arrival, Arrivals
from dropr_core.errors import BadBody
from dropr_core.model.chunk_digest import LEAF, SIZE, digest_of, leaves_of
from dropr_core.model.envelope import Reference
from dropr_core.model.names import MessageId, format_id
from dropr_storage_postgres.bodies import rows
from dropr_storage_postgres.bodies.rows import ARRIVED, NOW, OWN, Row
from dropr_storage_postgres.bodies.sessions import BodySessions
from dropr_storage_postgres.bodies.writing import INSERT
from dropr_storage_postgres.engine.connection import Connection

FIND = (
    "SELECT n, own, size, state, have FROM body WHERE kind = 1 AND peer = %s AND id = %s AND digest = %s AND size = %s"
)
AHEAD = 64 * 1024 * 1024
"""Bytes that a piece may be ahead of the first gap; what is further is sent again."""


class RowArrival(Arrival):
    """Rows on their way in."""

    def __init__(self, sessions: BodySessions, peer: str, identity: MessageId, reference: Reference) -> None:
        self._sessions, self._identity, self._reference = sessions, identity, reference
        self._key = (peer, identity, reference.digest, reference.size)

    def have(self) -> int:
        """How many bytes are here, without a gap."""
        found = self._sessions.query(FIND, self._key)
        if not found:
            return 0
        _, _, size, state, have = found[0]
        if state > 0 or have < size:
            return int(have)
        # Killed between the last piece and the end: nobody would send anything any more.
        try:
            return self._complete()
        except BadBody:
            return 0

    def write(self, offset: int, data: bytes | memoryview, leaves: bytes | None = None) -> int:
        """Take a piece; how many bytes are here now."""
        view = memoryview(data)[: max(0, self._reference.size - offset)]
        digests = leaves_of(view) if leaves is None else leaves
        if not view:
            return self.have()
        have, state = self._sessions.relaxed(lambda connection: self._put(connection, offset, view, digests))
        if state > 0 or have < self._reference.size:
            return have
        return self._complete()

    def _put(self, connection: Connection, offset: int, data: memoryview, leaves: bytes) -> tuple[int, int]:
        row, state, have = self._mine(connection)
        if offset < have:
            data, leaves = data[have - offset :], leaves[(have - offset) // LEAF * SIZE :]
            offset = have
        taken = connection.execute(
            "SELECT 1 FROM body_part WHERE body = %s AND at < %s AND at + size > %s LIMIT 1",
            (row.n, offset + len(data), offset),
        ).fetchone()
        if state > 0 or not data or taken is not None or offset > have + AHEAD:
            return have, state
        rows.put(connection, row, offset, data, leaves)
        if offset == have:
            have += len(data)
            for at, size in connection.execute(
                "SELECT at, size FROM body_part WHERE body = %s AND at >= %s ORDER BY at", (row.n, have)
            ).fetchall():
                if at != have:
                    break
                have += size
        connection.execute(f"UPDATE body SET have = %s, touched = {NOW} WHERE n = %s", (have, row.n))
        return have, state

    def _mine(self, connection: Connection) -> tuple[Row, int, int]:
        """This body, locked against everybody else who takes in a piece of it; made if there is none."""
        while True:
            found = connection.execute(f"{FIND} FOR UPDATE", self._key).fetchone()
            if found is not None:
                n, own, size, state, have = found
                return Row(n, own, size), state, have
            row = Row(rows.new_number(), self._reference.size > OWN, self._reference.size)
            values: tuple[Any, ...] = (row.n, ARRIVED, row.own, self._key[0], *self._key[1:])
            if connection.execute(f"{INSERT} ON CONFLICT DO NOTHING RETURNING 1", values).fetchone() is not None:
                rows.make_table(connection, row)
                return row, 0, 0

    def _complete(self) -> int:
        """All of it is here: is it what was promised? Durable on return; raises BadBody."""
        size, right = self._reference.size, self._sessions.durable(self._judge)
        if not right:
            raise BadBody(f"the body of message {format_id(self._identity)} does not have the digest promised for it")
        return size

    def _judge(self, connection: Connection) -> bool:
        found = connection.execute(f"{FIND} FOR UPDATE", self._key).fetchone()
        if found is None:
            return False  # somebody else found it to be wrong
        n, own, size, state, _ = found
        if state > 0:
            return True
        row = Row(n, own, size)
        parts = connection.execute("SELECT leaves FROM body_part WHERE body = %s ORDER BY at", (n,)).fetchall()
        if digest_of(b"".join(bytes(part) for (part,) in parts)) != self._reference.digest:
            rows.drop(connection, row)
            return False
        connection.execute(f"UPDATE body SET state = 1, touched = {NOW} WHERE n = %s", (n,))
        return True

    def close(self) -> None:
        """Nothing is held here."""


class RowArrivals(Arrivals):
    """All bodies on their way in to one process: it keeps none of them."""

    def __init__(self, sessions: BodySessions) -> None:
        self._sessions = sessions

    def of(self, peer: str, identity: MessageId, reference: Reference) -> RowArrival:
        """The body of a message that ``peer`` sends or will send. Whether there is room the server says later."""
        return RowArrival(self._sessions, peer, identity, reference)

    def close(self) -> None:
        """Nothing is held here."""
