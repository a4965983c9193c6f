"""Large bodies as rows: written, taken in, read, forgotten.

Owns which body belongs to whom, and the sweep. Must not know lanes, peers' addresses or the wire: whether a message
still needs its body is asked of whoever knows.
"""
# ruff: noqa: S608 -- statements are put together here from constants of this room only

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO, NamedTuple

from dropr_core.contracts.bodies import FORGOTTEN, Bodies, Leftovers, Progress, Readable
from dropr_core.contracts.context import Context
from dropr_core.errors import StoreCorrupt, StoreError
from dropr_core.model.envelope import Reference
from dropr_core.model.names import MessageId, format_id
from dropr_storage_postgres.bodies import checking, rows
from dropr_storage_postgres.bodies.arriving import RowArrivals
from dropr_storage_postgres.bodies.holder import Holder
from dropr_storage_postgres.bodies.reading import RowLoad, open_checked
from dropr_storage_postgres.bodies.rows import ACCEPTED, ASIDE, COMPLETE, LOCAL, NOW, SENT, UNFINISHED, Row
from dropr_storage_postgres.bodies.sessions import BodySessions
from dropr_storage_postgres.bodies.writing import BodyWriter, WrittenRows
from dropr_storage_postgres.engine.address import Place
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.times import Times

AHEAD = 2
"""Threads that read pieces before a transport asks for them."""

STALE = 3600
"""Seconds after which a body that is asked for counts as used again, so that no sweep takes it for forgotten."""

KEY = "peer = %s AND id = %s AND digest = %s AND size = %s"
SENT_KEY, COME_KEY = f"kind = 0 AND {KEY}", f"kind IN (1, 2) AND {KEY}"


class _Seen(NamedTuple):
    """A body as a sweep saw it."""

    n: int
    kind: int
    state: int
    own: bool
    id: MessageId
    size: int
    touched: float


class PostgresBodies(Bodies):
    """All large bodies of a node, for all its machines."""

    def __init__(self, place: Place, times: Times, context: Context) -> None:
        self.sessions = BodySessions(place, times, context)
        self._holder = Holder(self.sessions.opener, self.sessions.outage)
        self._writer = BodyWriter(self.sessions, self._holder)
        self._ahead = ThreadPoolExecutor(AHEAD, thread_name_prefix="dropr-body-ahead")

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def write(
        self, identity: MessageId, source: Readable, *, limit: int | None = None, progress: Progress | None = None,
        size: int | None = None, inbox_of: str | None = None,
    ) -> WrittenRows:  # fmt: skip
        """Copy ``source`` to its end, hashing on the way; durable on return."""
        kind = SENT if inbox_of is None else LOCAL
        return self._writer.write(kind, inbox_of or "", identity, source, limit, progress, size)

    def open_sent(self, identity: MessageId, reference: Reference) -> BinaryIO:
        """The body of a message of the outbox."""
        row = self._find(SENT_KEY, "", identity, reference)
        return open_checked(self.sessions, row, reference, self._what(identity))

    def load(self, identity: MessageId, reference: Reference) -> RowLoad:
        """The body of a message of the outbox, to be sent in pieces."""
        row = self._find(SENT_KEY, "", identity, reference)
        return RowLoad(self.sessions, self._ahead, row, reference, self._what(identity))

    # ── receiving ────────────────────────────────────────────────────────────────────────────────

    def arrivals(self) -> RowArrivals:
        """What takes bodies in."""
        return RowArrivals(self.sessions)

    def has(self, peer: str, identity: MessageId, reference: Reference) -> bool:
        """Whether the body of a message from ``peer`` is here, complete."""
        found = self.sessions.query(
            f"SELECT n, touched < {NOW} - {STALE} FROM body WHERE {COME_KEY} AND state > 0",
            (peer, identity, reference.digest, reference.size),
        )
        for n in [n for n, old in found if old]:
            self.sessions.query(f"UPDATE body SET touched = {NOW} WHERE n = %s AND state > 0", (n,))
        return bool(found)

    def accepted(self, peer: str, identity: MessageId, reference: Reference) -> None:
        """Its message is in the inbox: from now on the body goes when the message goes."""
        with contextlib.suppress(StoreError):  # the sweep makes up for it
            self.sessions.query(
                f"UPDATE body SET state = 2 WHERE {COME_KEY} AND state = 1",
                (peer, identity, reference.digest, reference.size),
            )

    def open_received(self, peer: str, identity: MessageId, reference: Reference) -> BinaryIO:
        """The body of a message of the inbox."""
        row = self._find(COME_KEY, peer, identity, reference)
        return open_checked(self.sessions, row, reference, self._what(identity))

    def drop_received(self, peer: str, identity: MessageId, reference: Reference) -> None:
        """The message was settled: its body is not needed any more."""

        def job(connection: Connection) -> None:
            found = connection.execute(
                f"SELECT n, own, size FROM body WHERE {COME_KEY} AND state > 0 FOR UPDATE",
                (peer, identity, reference.digest, reference.size),
            ).fetchall()
            for row in found:
                rows.drop(connection, Row(*row))

        with contextlib.suppress(StoreError):  # the sweep makes up for it
            self.sessions.relaxed(job)

    def _find(self, key: str, peer: str, identity: MessageId, reference: Reference) -> Row:
        found = self.sessions.query(
            f"SELECT n, own, size FROM body WHERE {key} AND state > 0 ORDER BY touched DESC LIMIT 1",
            (peer, identity, reference.digest, reference.size),
        )
        if not found:
            raise StoreCorrupt(f"{self._what(identity)} is missing")
        return Row(*found[0])

    def _what(self, identity: MessageId) -> str:
        return f"the body of message {format_id(identity)} in {self.sessions.name}"

    # ── care ─────────────────────────────────────────────────────────────────────────────────────

    def any(self) -> bool:
        """Whether there is a body, or a part of one."""
        return bool(self.sessions.query(f"SELECT 1 FROM body WHERE kind <> {ASIDE} LIMIT 1"))

    def sweep(self, is_sent: Callable[[MessageId], bool], is_come: Callable[[MessageId], bool], wall: float) -> int:
        """Remove what no message needs: bodies of ended messages, and what a dead process left behind."""
        gone, kept = 0, set[tuple[MessageId, int]]()
        found = self.sessions.query(
            f"SELECT n, kind, state, own, id, size, touched FROM body WHERE kind <> {ASIDE} ORDER BY touched"
        )
        for n, kind, state, own, identity, size, touched in found:
            one = _Seen(n, kind, state, own, MessageId(bytes(identity)), size, touched)
            old = wall - one.touched > FORGOTTEN
            if one.kind == SENT:
                twice = one.state == COMPLETE and (one.id, one.size) in kept  # written twice for one message
                if twice or one.state == UNFINISHED:
                    gone += self._remove(one, lambda: False)
                elif is_sent(one.id):
                    kept.add((one.id, one.size))
                else:
                    gone += self._remove(one, partial(is_sent, one.id))
            elif one.state == UNFINISHED:
                if old or one.kind == LOCAL:
                    gone += self._remove(one, lambda: False)
            elif is_come(one.id):
                if one.state == COMPLETE:
                    self.sessions.query(f"UPDATE body SET state = {ACCEPTED} WHERE n = %s AND state = 1", (one.n,))
            elif old or one.state == ACCEPTED:
                gone += self._remove(one, partial(is_come, one.id))
        return gone

    def _remove(self, one: _Seen, needed: Callable[[], bool]) -> bool:
        """Remove a body that nobody writes and nobody needs; in this order, since a writer lets go of it only after
        its message is stored. Whether it went.
        """

        def job(connection: Connection) -> bool:
            free = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (one.n,)).fetchone()
            if free is None or not free[0]:
                return False
            same = connection.execute(
                "SELECT own, size FROM body WHERE n = %s AND state = %s AND touched = %s FOR UPDATE SKIP LOCKED",
                (one.n, one.state, one.touched),
            ).fetchone()
            if same is None or needed():
                return False
            rows.drop(connection, Row(one.n, *same))
            return True

        return self.sessions.relaxed(job)

    # ── a check, while nobody works ──────────────────────────────────────────────────────────────

    def examine(
        self, peer: str | None, identity: MessageId, reference: Reference, *, repair: bool, say: Callable[[str], None]
    ) -> str:
        """What is wrong with a body."""
        try:
            row = self._find(SENT_KEY if peer is None else COME_KEY, peer or "", identity, reference)
        except StoreCorrupt:
            return "its body is missing"
        return checking.examine(self.sessions, row, reference, self._what(identity), repair=repair, say=say)

    def leftovers(
        self, sent: Callable[[MessageId], Reference | None], come: Callable[[MessageId], Reference | None], *,
        aside: bool, say: Callable[[str], None],
    ) -> Iterator[Leftovers | tuple[str, Exception]]:  # fmt: skip
        """Rows that no message refers to."""
        return checking.leftovers(self.sessions, sent, come, aside=aside, say=say)

    def close(self) -> None:
        """Let go of everything; safe twice."""
        self._holder.close()
        self.sessions.close()
        self._ahead.shutdown()
