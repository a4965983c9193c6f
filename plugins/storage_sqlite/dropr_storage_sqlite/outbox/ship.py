"""Shipping: reading lanes, and moving their heads by what the peers said.

Owns take, settle and the log-matching moves (locate, rewind, renumber). Must not know how or why
a peer was asked.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from operator import itemgetter

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import PlainEntries
from dropr_core.contracts.storage import Batch, Entry, LaneStats, PeerState, Rejection, Standing
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, Lane, MessageId, StoreId, make_store_id
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.outbox import sql
from dropr_storage_sqlite.outbox.rows import EndedRow, LaneRow, Ledger, Row, find_lane, lane_rows, note, own_lane

PAGE = 1000
_NOTHING = PeerState()
PORTION = 128
"""Rows that `take` reads beyond what it may give."""


class Shipper:
    """What the daemon does with lanes."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def lanes(self, peer: str | None = None) -> list[LaneStats]:
        """Every lane with queued deliveries (of one peer)."""
        self._engine.give_way()
        query, values = (sql.WAITING, ()) if peer is None else (sql.WAITING_OF, (peer,))
        rows = self._engine.look(query, values)
        now = self._context.clock.now()
        return [
            LaneStats(Lane(name, channel, priority), Head(head, MessageId(head_id)), last, depth, size,
                      0.0 if born is None else max(0.0, now - born))
            for name, channel, priority, head, head_id, last, depth, size, born in rows
        ]  # fmt: skip

    def standing(self) -> Standing:
        """All of that by one statement: it is the first thing that a message waits for."""
        self._engine.give_way()
        rows, now = self._engine.look(sql.STANDING), self._context.clock.now()
        lanes, peers, store = list[LaneStats](), dict[str, PeerState](), None
        for name, channel, priority, head, head_id, last, depth, size, born, *peer in rows:
            if depth > 0:
                oldest = 0.0 if born is None else max(0.0, now - born)
                position = Head(head, MessageId(head_id))
                lanes.append(LaneStats(Lane(name, channel, priority), position, last, depth, size, oldest))
            awaiting, held, reason, log, cursor, store = peer
            before = peers.get(name, _NOTHING)
            peers[name] = PeerState(
                bool(held), reason, before.waiting + depth, before.bytes + size, before.awaiting + awaiting,
                None if log is None else StoreId(log), cursor,
            )  # fmt: skip
        return Standing(lanes, peers, None if store is None else StoreId(bytes(store)))

    def take(self, lane: Lane, max_count: int, max_bytes: int, *, mark_in_flight: bool = True) -> Batch | None:
        """What follows the lane's head, marked as under way and on stable storage with ``mark_in_flight``."""
        if not mark_in_flight:  # only looked at: what the peer is to promise is taken with a mark
            return self._engine.read(lambda connection: self._take(connection, lane, max_count, max_bytes)[0])

        def job(connection: Connection) -> tuple[Batch | None, int | None]:
            batch, row = self._take(connection, lane, max_count, max_bytes)
            if batch is None or row is None:
                return None, None
            last = batch.upto.sequence
            if last > row.offered:
                connection.execute(sql.OFFER, (last, row.number))
            return batch, self._engine.owed()

        self._engine.give_way()
        batch, owed = self._engine.write(job, mark=False)
        self._engine.settle(owed)
        return batch

    def _take(
        self, connection: Connection, lane: Lane, max_count: int, max_bytes: int
    ) -> tuple[Batch | None, LaneRow | None]:
        row = find_lane(connection, lane)
        if row is None or row.depth == 0:
            return None, row
        now, first = self._context.clock.now(), sql.origin(row.number)
        values = (first + row.head, sql.highest(row.number), max(1, max_count))
        found = connection.execute(sql.TAKE, values)
        rows = found.fetchall() if row.bytes <= max_bytes else _within(found, max_bytes)
        if not rows:
            raise StoreError(
                f"{self._engine.path}: lane {lane} counts {row.depth} deliveries but has none; "
                "keep a copy and tell the authors"
            )
        return Batch(lane, Head(row.head, MessageId(row.head_id)), _entries(rows, first, now)), row

    def clear_in_flight(self, lane: Lane) -> None:
        """It is certain that nothing after the head reached the peer."""

        def job(connection: Connection) -> None:
            row = find_lane(connection, lane)
            if row is not None and row.offered:
                connection.execute(sql.OFFER, (0, row.number))

        self._engine.write(job, mark=False)

    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection] = ()) -> None:
        """The peer has committed up to ``head``. Durable at once only where deliveries were rejected:
        a settlement that is lost is told again by the peer's head, a rejection is not.
        """

        def job(connection: Connection) -> None:
            self._settle(connection, lane, head, rejected)

        if rejected:
            self._engine.write_durable(job, relief=True)
        else:
            self._engine.write(job)

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
        ledger = Ledger(connection, self._context, self._context.clock.now())
        for refusal in rejected:
            found = connection.execute(sql.ONE, (first + refusal.sequence,)).fetchone()
            if found is not None and row.head < refusal.sequence <= head.sequence:
                ledger.end(Row._make(found), State.FAILED, f"{refusal.code}: {refusal.reason}")
        start, end = first + row.head, first + head.sequence
        count, size, special = connection.execute(sql.SUM, (start, end)).fetchall()[0]
        waiting = waiting_bytes = 0
        keep = self._context.keep_sent.get(row.channel, 0.0) > 0
        if special or keep:
            rows = _rows(connection, sql.RANGE if keep else sql.SPECIALS, (start, end))
            for delivery in rows:
                if delivery.flags & sql.RECEIPT:
                    waiting, waiting_bytes = waiting + 1, waiting_bytes + delivery.size
                    connection.execute(sql.ACCEPT, (delivery.place,))
                elif keep or delivery.flags & sql.FINGERPRINT:
                    ledger.end(delivery, State.ACCEPTED)
                    count, size = count - 1, size - delivery.size
                elif delivery.shared is not None:
                    ledger.unshare(delivery.shared)
        if count > waiting:
            connection.execute(sql.DROP if waiting else sql.DROP_ALL, (start, end))
        values = (head.sequence, head.id, count, int(size), waiting, waiting_bytes, row.number)
        connection.execute(sql.ADVANCE, values)
        passed = connection.execute(sql.PASSED, (start, end)).fetchall()
        if passed:
            connection.execute(sql.NONE_BELOW, (row.number, max(passed)[0]))
        ledger.close()

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
        return self._engine.write_durable(lambda connection: self._rewind(connection, lane, head))

    def _rewind(self, connection: Connection, lane: Lane, head: Head) -> int:
        row = own_lane(connection, lane)
        if row is None:
            return 0
        if head.sequence > row.head:
            raise StoreError(f"lane {lane}: cannot go back to {head}, its head is {row.head}")
        first = sql.origin(row.number)
        ledger = Ledger(connection, self._context, self._context.clock.now())
        start, end = first + head.sequence, first + row.head
        count, size, _ = connection.execute(sql.SUM, (start, end)).fetchall()[0]
        connection.execute(sql.REQUEUE, (start, end))
        again = int(count)
        for ended in _ended(connection, sql.ENDED_IN_LANE, (row.number, head.sequence, row.head)):
            if ended.state == State.ACCEPTED and ended.has_body:
                connection.execute(sql.RETURN_AS_BORN, (ended.n, first + ended.seq, sql.DUPLICATE))
                ledger.forget([(ended.n, row.number, ended.state, ended.shared)], release=False)
                ledger.count(row.number, ended.size, 1, queued=True)
                again += 1
        connection.execute(sql.ADVANCE, (head.sequence, head.id, -count, -int(size), -count, -int(size), row.number))
        ledger.close()
        return again

    def renumber(self) -> StoreId:
        """This half was rolled back or cloned: a new store id, and new numbers for all that is queued."""
        store = make_store_id()

        def job(connection: Connection) -> StoreId:
            connection.execute(sql.SET_STORE, (store,))
            for row in lane_rows(connection).values():
                renumber_lane(connection, note(connection, row))
            return store

        return self._engine.write_durable(job)


_TakenRow = tuple[int, MessageId, int, float, bytes]
"""place, id, flags, born, envelope"""


def _within(cursor: Iterator[_TakenRow], max_bytes: int) -> list[_TakenRow]:
    """The first row, and those after it while their envelopes have room. Read in portions: there may be many more."""
    rows: list[_TakenRow] = []
    room = max_bytes
    while portion := list(islice(cursor, PORTION)):
        size = sum([len(row[4]) for row in portion])
        if size > room:
            for row in portion:
                room -= len(row[4])
                if room < 0 and rows:
                    return rows
                rows.append(row)
        else:
            room -= size
            rows += portion
    return rows


def _entries(rows: list[_TakenRow], first: int, now: float) -> Sequence[Entry]:
    """``first``: the place of sequence 0."""
    duplicate, dated = sql.DUPLICATE, sql.DATED
    if not any(map((duplicate | dated).__and__, map(itemgetter(2), rows))):
        column = list(map(itemgetter(0), rows))
        places: Sequence[int] = range(column[0] - first, column[-1] - first + 1)
        if len(places) != len(column):
            places = [place - first for place in column]
        return PlainEntries(places, list(map(itemgetter(1), rows)), list(map(itemgetter(4), rows)))
    return [
        Entry(place - first, identity, envelope, max(0.0, now - at) if flag & dated else 0.0, flag & duplicate != 0)
        for place, identity, flag, at, envelope in rows
    ]


def _rows(connection: Connection, query: str, values: tuple[object, ...]) -> list[Row]:
    return [Row._make(row) for row in connection.execute(query, values).fetchall()]


def _ended(connection: Connection, query: str, values: tuple[object, ...]) -> list[EndedRow]:
    return [EndedRow._make(row) for row in connection.execute(query, values).fetchall()]


def renumber_lane(connection: Connection, row: LaneRow) -> None:
    """Number all queued deliveries of a lane anew from 1."""
    first = sql.origin(row.number)
    # What waits for a receipt leaves the log: below every sequence, the oldest first as before.
    apart = connection.execute(sql.PLACES, (first, first + row.head, -1)).fetchall()
    if apart:
        before = connection.execute(sql.PLACES, (sql.lowest(row.number), first, -1)).fetchall()
        connection.executemany(sql.SET_APART, [(place - len(apart), place) for (place,) in before])
        start = first - len(apart)
        connection.executemany(sql.SET_APART, [(start + index, place) for index, (place,) in enumerate(apart)])
    connection.execute(sql.UNPLACE, (row.number,))
    last, after = 0, first + row.head
    while True:
        # In rising order each new place is at or below the old one and above all that were moved.
        places = connection.execute(sql.PLACES, (after, sql.highest(row.number), PAGE)).fetchall()
        if not places:
            break
        after = places[-1][0]
        connection.executemany(sql.MOVE, [(first + last + index, place) for index, (place,) in enumerate(places, 1)])
        last += len(places)
    # All of it is flagged, and so in the index of ids.
    connection.execute(sql.PASSED, (sql.lowest(row.number), sql.highest(row.number))).fetchall()
    connection.execute(sql.RESTART, (last, row.number))
