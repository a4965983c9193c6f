"""Shipping: reading lanes, and moving their heads by what the peers said.

Owns take, settle and the log-matching moves (locate, rewind, renumber). Must not know how or why a peer was asked.
"""

from collections.abc import Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import PlainEntries
from dropr_core.contracts.storage import Batch, Entry, LaneStats, Rejection
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, Lane, MessageId, StoreId, make_store_id
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.outbox import sql
from dropr_storage_postgres.outbox.rows import EndedRow, LaneRow, Ledger, Row, find_lane, lane_rows, own_lane

PORTION = 128
"""Rows that `take` reads at first, when it does not know yet how large they are."""
LARGEST = 4096


class Shipper:
    """What the daemon does with lanes."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def lanes(self, peer: str | None = None) -> list[LaneStats]:
        """Every lane with queued deliveries (of one peer)."""
        rows = self._engine.query(sql.WAITING) if peer is None else self._engine.query(sql.WAITING_OF, (peer,))
        now = self._engine.times.now()
        return [
            LaneStats(Lane(name, channel, priority), Head(head, MessageId(head_id)), last, depth, size,
                      0.0 if born is None else max(0.0, now - born))
            for name, channel, priority, head, head_id, last, depth, size, born in rows
        ]  # fmt: skip

    def take(self, lane: Lane, max_count: int, max_bytes: int, *, mark_in_flight: bool = True) -> Batch | None:
        """What follows the lane's head, marked as under way with ``mark_in_flight``."""
        if not mark_in_flight:
            return self._engine.read(
                lambda connection: self._take(connection, find_lane(connection, lane), max_count, max_bytes)
            )

        def job(connection: Connection) -> Batch | None:
            # Ours first: nothing may be cancelled between the look and the mark.
            row = own_lane(connection, lane)
            batch = self._take(connection, row, max_count, max_bytes)
            if batch is not None and row is not None and batch.entries[-1].sequence > row.offered:
                connection.execute(sql.OFFER, (batch.entries[-1].sequence, row.number))
            return batch

        return self._engine.relaxed(job, mark=False)

    def _take(self, connection: Connection, row: LaneRow | None, max_count: int, max_bytes: int) -> Batch | None:
        if row is None or row.depth == 0:
            return None
        first = sql.origin(row.number)
        rows = _within(connection, first + row.head, sql.highest(row.number), max(1, max_count), max_bytes)
        if not rows:
            raise StoreError(
                f"{self._engine.name}: lane {row.lane} counts {row.depth} deliveries but has none; 'dropr fsck' tells "
                "more"
            )
        head = Head(row.head, MessageId(row.head_id))
        return Batch(row.lane, head, _entries(rows, first, self._engine.times.now()))

    def clear_in_flight(self, lane: Lane) -> None:
        """It is certain that nothing after the head reached the peer."""
        self._engine.relaxed_statement(sql.CLEAR, lane, mark=False)

    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection] = ()) -> None:
        """The peer has committed up to ``head``. Durable at once only where deliveries were rejected:
        a settlement that is lost is told again by the peer's head, a rejection is not.
        """

        def job(connection: Connection) -> None:
            self._settle(connection, lane, head, rejected)

        if rejected:
            self._engine.write(job)
        else:
            self._engine.relaxed(job)

    def _settle(self, connection: Connection, lane: Lane, head: Head, rejected: Sequence[Rejection]) -> None:
        row = own_lane(connection, lane)
        if row is None and head == START:
            return
        if row is None or head.sequence > row.last:
            raise StoreError(f"lane {lane}: the peer cannot have {head}, no such number was given")
        if head.sequence <= row.head:
            if row.offered:
                connection.execute(sql.OFFER, (0, row.number))
            return
        first = sql.origin(row.number)
        ledger = self._ledger(connection)
        ledger.own([row.number])
        if rejected:
            self._fail(connection, ledger, row, head, rejected)
        start, end = first + row.head, first + head.sequence
        count, size, special = connection.execute(sql.SUM, (start, end)).fetchall()[0]
        waiting = waiting_bytes = 0
        keep = self._context.keep_sent.get(row.channel, 0.0) > 0
        if special or keep:
            for delivery in _rows(connection, sql.RANGE if keep else sql.SPECIALS, (start, end)):
                if delivery.flags & sql.RECEIPT:
                    waiting, waiting_bytes = waiting + 1, waiting_bytes + delivery.size
                elif keep or delivery.flags & sql.FINGERPRINT:
                    ledger.end(delivery, State.ACCEPTED)
                    count, size = count - 1, size - delivery.size
                elif delivery.shared is not None:
                    ledger.unshare(delivery.shared)
            if waiting:
                connection.execute(sql.ACCEPT, (start, end))
            ledger.write()
        if count > waiting:
            connection.execute(sql.DROP, (start, end))
        values = (head.sequence, head.id, count, size, waiting, waiting_bytes, row.number)
        connection.execute(sql.ADVANCE, values)

    @staticmethod
    def _fail(connection: Connection, ledger: Ledger, row: LaneRow, head: Head, rejected: Sequence[Rejection]) -> None:
        """End what the peer refused."""
        first = sql.origin(row.number)
        refused = {first + one.sequence: one for one in rejected if row.head < one.sequence <= head.sequence}
        for delivery in _rows(connection, sql.MANY, (list(refused),)):
            refusal = refused[delivery.place]
            ledger.end(delivery, State.FAILED, f"{refusal.code}: {refusal.reason}")
        ledger.write()

    def locate(self, lane: Lane, sequence: int) -> MessageId | None:
        """The id at a position: the lane's head and everything kept are known; else None."""

        def job(connection: Connection) -> MessageId | None:
            row = find_lane(connection, lane)
            if row is None:
                return None
            if sequence == row.head:
                return MessageId(row.head_id)
            if not 0 < sequence <= row.last:
                return None
            found = connection.execute(sql.ONE, (sql.origin(row.number) + sequence,)).fetchone()
            if found is not None:
                return MessageId(found[1])
            ended = connection.execute(sql.ENDED_AT, (row.number, sequence)).fetchone()
            return None if ended is None else MessageId(ended[0])

        return self._engine.read(job)

    def rewind(self, lane: Lane, head: Head) -> int:
        """The peer lost what followed ``head``: send again what is kept of it."""
        return self._engine.write(lambda connection: self._rewind(connection, lane, head))

    def _rewind(self, connection: Connection, lane: Lane, head: Head) -> int:
        row = own_lane(connection, lane)
        if row is None:
            return 0
        if head.sequence > row.head:
            raise StoreError(f"lane {lane}: cannot go back to {head}, its head is {row.head}")
        first = sql.origin(row.number)
        ledger = self._ledger(connection)
        ledger.own([row.number])
        start, end = first + head.sequence, first + row.head
        count, size, _ = connection.execute(sql.SUM, (start, end)).fetchall()[0]
        connection.execute(sql.REQUEUE, (start, end))
        found = connection.execute(sql.ENDED_IN_LANE, (row.number, head.sequence, row.head)).fetchall()
        back = [one for one in map(EndedRow._make, found) if one.state == State.ACCEPTED and one.has_body]
        if back:
            values = ([one.n for one in back], [first + one.seq for one in back], [None] * len(back))
            connection.execute(sql.RETURN, values)
            ledger.forget([(one.n, row.number, one.state, one.shared) for one in back], release=False)
            for one in back:
                ledger.count(row.number, one.size, 1, queued=True)
        connection.execute(sql.ADVANCE, (head.sequence, head.id, -count, -size, -count, -size, row.number))
        ledger.write()
        return int(count) + len(back)

    def renumber(self) -> StoreId:
        """This half was rolled back or cloned: a new store id, and new numbers for all that is queued."""
        store = make_store_id()

        def job(connection: Connection) -> StoreId:
            connection.execute(sql.LOCK_ALL).fetchall()
            connection.execute(sql.LOCK_TAILS).fetchall()
            connection.execute(sql.SET_STORE, (store,))
            for row in lane_rows(connection).values():
                renumber_lane(connection, row)
            return store

        return self._engine.write(job)

    def _ledger(self, connection: Connection) -> Ledger:
        return Ledger(connection, self._context, self._engine.times.now())


_TakenRow = tuple[int, MessageId, int, float, bytes]
"""place, id, flags, born, envelope"""


def _within(connection: Connection, after: int, upto: int, count: int, room: int) -> list[_TakenRow]:
    """The first row, and those after it while their envelopes have room.

    Read in portions, as large as the rows so far let expect to have room: there may be many more.
    """
    rows: list[_TakenRow] = []
    portion = min(PORTION, count)
    used = 0
    while portion > 0:
        found: list[_TakenRow] = connection.execute(sql.TAKE, (after, upto, portion)).fetchall()
        size = sum([len(row[4]) for row in found])
        if used + size > room:
            for row in found:
                used += len(row[4])
                if used > room and rows:
                    return rows
                rows.append(row)
            return rows
        used += size
        rows += found
        if len(found) < portion:
            return rows
        after = found[-1][0]
        fits = (room - used) * len(rows) // max(1, used)
        portion = min(count - len(rows), LARGEST, max(1, fits))
    return rows


def _entries(rows: list[_TakenRow], first: int, now: float) -> Sequence[Entry]:
    """``first``: the place of sequence 0."""
    places, ids, flags, _, envelopes = zip(*rows, strict=True)
    duplicate, dated = sql.DUPLICATE, sql.DATED
    if not any(map((duplicate | dated).__and__, flags)):
        return PlainEntries([place - first for place in places], ids, list(envelopes))
    return [
        Entry(place - first, MessageId(identity), envelope, max(0.0, now - at) if flag & dated else 0.0,
              flag & duplicate != 0)
        for place, identity, flag, at, envelope in rows
    ]  # fmt: skip


def _rows(connection: Connection, query: str, values: tuple[object, ...]) -> list[Row]:
    return [Row._make(row) for row in connection.execute(query, values).fetchall()]


def renumber_lane(connection: Connection, row: LaneRow) -> None:
    """Number all queued deliveries of a lane anew from 1. Nobody else may send on it or move them."""
    first, head = sql.origin(row.number), sql.origin(row.number) + row.head
    # What waits for a receipt leaves the log: below every sequence, the oldest first as before.
    apart = connection.execute(sql.HOW_MANY, (sql.lowest(row.number), head)).fetchall()[0][0]
    if apart:
        connection.execute(sql.RENUMBER, (sql.lowest(row.number), head, first - apart - 1, 0))
    connection.execute(sql.UNPLACE, (row.number,))
    last = connection.execute(sql.HOW_MANY, (head, sql.highest(row.number))).fetchall()[0][0]
    if last:
        connection.execute(sql.RENUMBER, (head, sql.highest(row.number), first, sql.DUPLICATE))
    connection.execute(sql.RESTART, (row.number,))
    connection.execute(sql.RESTART_TAIL, (last, row.number))
