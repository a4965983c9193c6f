"""How deliveries end, and how ended ones begin again or are forgotten.

Owns state moves, receipts, sweep and wipe. Must not know peers' addresses or time-outs.
"""

from collections.abc import Iterator, Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.outbox import REDRIVABLE
from dropr_core.contracts.storage import Delivery, DeliveryMove, Selection
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import MessageId, StoreId
from dropr_core.model.states import DELIVERY, may_follow
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.outbox import sql
from dropr_storage_postgres.outbox.rows import EndedRow, LaneRow, Ledger, Row, lane_rows

SWEEP = 1000
"""Rows that one sweep handles at most of each kind."""
PAGE = 500


class Ends:
    """Everything that ends deliveries, and what happens to them then."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def move(self, moves: Sequence[DeliveryMove]) -> list[bool]:
        """Move each delivery that stands as it is given; see the contract."""
        return self._engine.write(lambda connection: self._move(connection, moves)) if moves else []

    def _move(self, connection: Connection, moves: Sequence[DeliveryMove]) -> list[bool]:
        lanes = {(row.peer, row.channel, row.priority): row.number for row in _lanes_of(connection, moves)}
        ledger, done = self._ledger(connection), [False] * len(moves)
        ledger.own(lanes.values())
        ids = list({move.delivery.id for move in moves})
        live: dict[bytes, list[Row]] = {}
        for found in connection.execute(sql.BY_IDS, (ids,)).fetchall():
            live.setdefault(found[1], []).append(Row._make(found))
        kept = connection.execute(sql.ENDED_BY_IDS, (ids,)).fetchall()
        if kept:  # ours, and as they are now
            connection.execute(sql.LOCK_ENDED, ([row[0] for row in kept],)).fetchall()
            kept = connection.execute(sql.ENDED_BY_IDS, (ids,)).fetchall()
        ended: dict[bytes, list[EndedRow]] = {}
        for found in kept:
            ended.setdefault(found[1], []).append(EndedRow._make(found))
        again: list[tuple[EndedRow, int]] = []
        for index, move in enumerate(moves):
            one = move.delivery
            number = lanes.get((one.peer, one.channel, one.priority))
            if number is None:
                continue
            if one.over:
                row = _take_out(ended.get(one.id, []), number, one)
                if row is None:
                    continue
                if move.to is None:
                    ledger.wipe(row)
                    done[index] = True
                elif move.to is State.QUEUED and row.state in REDRIVABLE and row.has_body:
                    again.append((row, index))
                else:
                    ended[one.id].append(row)
            else:
                done[index] = _end_live(ledger, live.get(one.id, []), number, move)
        for _, index in again:
            done[index] = True
        if again:
            self._send_again(connection, ledger, [row for row, _ in again])
        ledger.write()
        return done

    def _send_again(self, connection: Connection, ledger: Ledger, rows: list[EndedRow]) -> None:
        """Put ended deliveries at the end of their lanes, in the order in which they were sent, not in which they
        ended: a lane's order is a promise.
        """
        by_lane: dict[int, list[EndedRow]] = {}
        for row in sorted(rows, key=lambda one: (one.born, one.seq, one.n)):
            by_lane.setdefault(row.lane, []).append(row)
        for number in sorted(by_lane):
            alike = by_lane[number]
            count, size = len(alike), sum(row.size for row in alike)
            last = connection.execute(sql.EXTEND_AGAIN, (count, count, size, number)).fetchall()[0][0]
            first = sql.origin(number) + last - count + 1
            values = ([row.n for row in alike], list(range(first, first + count)), [ledger.now] * count)
            connection.execute(sql.RETURN, values)
        ledger.forget([(row.n, row.lane, row.state, row.shared) for row in rows], release=False)

    def receipts(self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int) -> list[MessageId]:
        """Record outcomes that came home and the cursor of the peer's log; durable."""
        if not outcomes:
            known = self._engine.query(sql.PEER, (peer,))
            if known and known[0][2] == log and known[0][3] >= upto:
                return []
        return self._engine.write(lambda connection: self._receipts(connection, peer, log, outcomes, upto))

    def _receipts(
        self, connection: Connection, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int
    ) -> list[MessageId]:
        connection.execute(sql.LOCK_PEER, (peer,))
        kept = connection.execute(sql.PEER, (peer,)).fetchall()[0]
        old = kept[3] if kept[2] == log else 0
        # What was recorded before is left alone: the delivery may have been sent again since.
        news = [outcome for outcome in outcomes if outcome.number > old]
        ended: dict[MessageId, None] = {}
        while news:
            # One outcome for each id at a time: the second finds what the first has left.
            seen: set[bytes] = set()
            now: list[Outcome] = []
            later: list[Outcome] = []
            for outcome in news:
                (later if outcome.id in seen else now).append(outcome)
                seen.add(outcome.id)
            ended |= dict.fromkeys(self._receive(connection, peer, now))
            news = later
        connection.execute(sql.CURSOR, (log, upto, upto, log, peer))
        return list(ended)

    def _receive(self, connection: Connection, peer: str, outcomes: Sequence[Outcome]) -> list[MessageId]:
        ledger = self._ledger(connection)
        ids = [outcome.id for outcome in outcomes]
        places = [row[0] for row in connection.execute(sql.BY_IDS, (ids,)).fetchall()]
        ledger.own({sql.unpack(place)[0] for place in places})  # and now as they are
        live: dict[bytes, list[Row]] = {}
        for found in connection.execute(sql.BY_IDS, (ids,)).fetchall():
            live.setdefault(found[1], []).append(Row._make(found))
        missing = [identity for identity in ids if not self._at(ledger, live.get(identity, []), peer)]
        kept: dict[bytes, list[EndedRow]] = {}
        for found in connection.execute(sql.ENDED_BY_IDS, (missing,)).fetchall() if missing else ():
            kept.setdefault(found[1], []).append(EndedRow._make(found))
        ledger.own({row.lane for rows in kept.values() for row in rows})
        result = []
        for outcome in outcomes:
            values = (outcome.state, outcome.reason, outcome.result, outcome.content_type)
            # Also a delivery that stands as queued: the peer had it, and the answer to the push was lost.
            here = self._at(ledger, live.get(outcome.id, []), peer)
            for row in here:
                ledger.end(row, *values)
            late = [row for row in kept.get(outcome.id, []) if ledger.lane(row.lane).peer == peer]
            revised = [ledger.revise(row, *values) for row in late]
            if here or any(revised):
                result.append(outcome.id)
        ledger.write()
        return result

    @staticmethod
    def _at(ledger: Ledger, rows: list[Row], peer: str) -> list[Row]:
        return [row for row in rows if ledger.lane(sql.unpack(row.place)[0]).peer == peer]

    def wipe(self, selection: Selection) -> int:
        """Forget ended deliveries (never live ones)."""

        def job(connection: Connection) -> int:
            gone = 0
            lanes = lane_rows(connection)
            now = self._engine.times.now()
            for page in ended_pages(connection, selection):
                ledger = self._ledger(connection)
                for row in page:
                    if fits(row, lanes[row.lane], selection, selection.states, now):
                        ledger.wipe(row)
                        gone += 1
                ledger.write()
            return gone

        return self._engine.write(job)

    def sweep(self, life: float) -> tuple[list[MessageId], float | None]:
        """End what is due, forget what is past its time; bounded work a call."""
        times = self._engine.times
        due = self._engine.read(lambda connection: _next(connection, life))
        if due is None or due > times.now():
            return [], None if due is None else times.node(due)

        def job(connection: Connection) -> tuple[list[MessageId], float | None]:
            ledger = self._ledger(connection)
            ended = self._expire(connection, ledger)
            room = SWEEP
            for lane in sorted(lane_rows(connection).values()):
                if room > 0 and lane.depth + lane.awaiting:
                    dead = self._bury_old(connection, ledger, lane, life, room)
                    ended += dead
                    room -= len(dead)
            ledger.forget(connection.execute(sql.FORGETTABLE, (ledger.now, SWEEP)).fetchall())
            ledger.write()
            return ended, _next(connection, life)

        ids, due = self._engine.relaxed(job)
        return ids, None if due is None else times.node(due)

    @staticmethod
    def _expire(connection: Connection, ledger: Ledger) -> list[MessageId]:
        due = connection.execute(sql.DUE, (ledger.now, SWEEP)).fetchall()
        if not due:
            return []
        ledger.own({sql.unpack(row[0])[0] for row in due})
        due = connection.execute(sql.DUE, (ledger.now, SWEEP)).fetchall()
        for found in due:
            ledger.end(Row._make(found), State.EXPIRED, "expired before the peer had it")
        ledger.write()
        return [MessageId(row[1]) for row in due]

    @staticmethod
    def _bury_old(connection: Connection, ledger: Ledger, lane: LaneRow, life: float, room: int) -> list[MessageId]:
        # A lane is in the order in which it was sent, so the old ones stand first.
        values = (sql.lowest(lane.number), sql.highest(lane.number))
        first = connection.execute(sql.FIRST, values).fetchone()
        if first is None or first[0] > ledger.now - life:
            return []
        ledger.own([lane.number])
        old: list[Row] = []
        for found in connection.execute(sql.PAGE, (*values, room)).fetchall():
            row = Row._make(found)
            if row.born > ledger.now - life:
                break
            old.append(row)
        for row in old:
            waited = "no receipt came" if ledger.state(row) is State.ACCEPTED else "not delivered"
            ledger.end(row, State.DEAD, f"{waited} within {life:g} s")
        return [row.id for row in old]

    def _ledger(self, connection: Connection) -> Ledger:
        return Ledger(connection, self._context, self._engine.times.now())


def _next(connection: Connection, life: float) -> float | None:
    """Server time at which a sweep will find something to do."""
    times = [row[0] for query in (sql.NEXT_DUE, sql.NEXT_FORGET) for row in connection.execute(query).fetchall()]
    oldest = connection.execute(sql.OLDEST).fetchall()[0][0]
    if oldest is not None:
        times.append(oldest + life)
    return min(times, default=None)


def _stored(state: State) -> State:
    """Held is what is seen of a queued delivery."""
    return State.QUEUED if state is State.HELD else state


def _end_live(ledger: Ledger, rows: list[Row], number: int, move: DeliveryMove) -> bool:
    """End a delivery that is live, if it stands as it was seen and may end so."""
    if move.to is None or not may_follow(DELIVERY, _stored(move.delivery.state), move.to):
        return False
    for row in rows:
        lane, sequence = sql.unpack(row.place)
        if (lane, max(0, sequence)) != (number, move.delivery.sequence):
            continue
        if ledger.state(row) is _stored(move.delivery.state):
            if move.to is State.CANCELLED and sequence <= ledger.lane(number).offered:
                return False
            ledger.end(row, move.to, move.reason)
            rows.remove(row)
            return True
    return False


def _take_out(rows: list[EndedRow], number: int, delivery: Delivery) -> EndedRow | None:
    """The record of a delivery that ended as it was seen; it is taken out of ``rows``."""
    for row in rows:
        if (row.lane, max(0, row.seq), row.state) == (number, delivery.sequence, delivery.state):
            rows.remove(row)
            return row
    return None


def _lanes_of(connection: Connection, moves: Sequence[DeliveryMove]) -> list[LaneRow]:
    """The rows of the lanes that moves name, as far as there are any."""
    names = sorted({(move.delivery.peer, move.delivery.channel, move.delivery.priority) for move in moves})
    columns = [list(column) for column in zip(*names, strict=True)]
    numbers = [row[0] for row in connection.execute(sql.NUMBERS, columns).fetchall()]
    found = connection.execute(sql.LANES_BY_NUMBER, (numbers,)).fetchall() if numbers else []
    return [LaneRow._make(row) for row in found]


def ended_pages(connection: Connection, selection: Selection, after: int = 0) -> Iterator[list[EndedRow]]:
    """Ended deliveries after a cursor, in order; those of the selected ids only, where it names ids."""
    if selection.ids:
        found = connection.execute(sql.ENDED_BY_IDS, (list(selection.ids),)).fetchall()
        yield [EndedRow._make(row) for row in found if row[0] > after]
        return
    while page := connection.execute(sql.ENDED_PAGE, (after, PAGE)).fetchall():
        after = page[-1][0]
        yield [EndedRow._make(row) for row in page]


def fits(row: EndedRow, lane: LaneRow, selection: Selection, states: frozenset[State], now: float) -> bool:
    """Whether an ended delivery is one of those that a selection means. ``now``: in the tables' terms."""
    return (
        (not states or row.state in states)
        and (selection.peer is None or lane.peer == selection.peer)
        and (selection.channel is None or lane.channel == selection.channel)
        and (selection.older_than is None or now - row.at >= selection.older_than)
    )
