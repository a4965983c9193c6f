"""How deliveries end, and how ended ones begin again or are forgotten.

Owns state moves, receipts, sweep and wipe. Must not know peers' addresses or time-outs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.outbox import REDRIVABLE
from dropr_core.contracts.storage import Delivery, DeliveryMove, Selection
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Lane, MessageId, StoreId
from dropr_core.model.states import DELIVERY, may_follow
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.outbox import sql
from dropr_storage_sqlite.outbox.ids import mark_end
from dropr_storage_sqlite.outbox.rows import EndedRow, LaneRow, Ledger, Row, find_lane, lane_rows

SWEEP = 1000
"""Rows that one sweep handles at most of each kind."""
PAGE = 500


class Ends:
    """Everything that ends deliveries, and what happens to them then."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def move(self, moves: Sequence[DeliveryMove]) -> list[bool]:
        """Move each delivery that stands as it is given; see the contract."""

        def job(connection: Connection) -> list[bool]:
            ledger, done, again = self._ledger(connection), [False] * len(moves), list[tuple[EndedRow, int]]()
            for index, move in enumerate(moves):
                lane = find_lane(connection, Lane(move.delivery.peer, move.delivery.channel, move.delivery.priority))
                if lane is None:
                    continue
                if move.delivery.over:
                    ended = _ended(connection, lane, move.delivery)
                    if ended is None:
                        continue
                    if move.to is None:
                        ledger.wipe(ended)
                        done[index] = True
                    elif move.to is State.QUEUED and ended.state in REDRIVABLE and ended.has_body:
                        again.append((ended, index))
                else:
                    done[index] = self._end_live(connection, ledger, lane.number, move)
            # In the order in which they were sent, not in which they ended: a lane's order is a promise.
            into = Counter(ended.lane for ended, _ in again)
            for number, count in into.items():
                mark_end(connection, number, count)
            for ended, index in sorted(again, key=lambda one: (one[0].born, one[0].seq, one[0].n)):
                _send_again(connection, ledger, ended)
                done[index] = True
            for number in into:
                mark_end(connection, number)
            ledger.close()
            return done

        return self._engine.write_durable(job, relief=all(move.to is not State.QUEUED for move in moves))

    def _end_live(self, connection: Connection, ledger: Ledger, number: int, move: DeliveryMove) -> bool:
        """End a delivery that is live, if it stands as it was seen and may end so."""
        if move.to is None or not may_follow(DELIVERY, _stored(move.delivery.state), move.to):
            return False
        # Those outside of the log all wait for a receipt, so that the index has them.
        at = sql.origin(number) + move.delivery.sequence
        query = (sql.ONE, (at,)) if move.delivery.sequence > 0 else (sql.BY_ID, (move.delivery.id,))
        for found in connection.execute(*query).fetchall():
            if found[1] != move.delivery.id:
                continue
            row, (lane, sequence) = Row._make(found), sql.unpack(found[0])
            standing = (lane, max(0, sequence), ledger.state(row))
            if standing == (number, move.delivery.sequence, _stored(move.delivery.state)):
                if move.to is State.CANCELLED and sequence <= ledger.lane(number).offered:
                    return False
                ledger.end(row, move.to, move.reason)
                return True
        return False

    def receipts(self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int) -> list[MessageId]:
        """Record outcomes that came home and the cursor of the peer's log; durable."""

        def nothing_new(connection: Connection) -> bool:
            row = connection.execute(sql.PEER, (peer,)).fetchone()
            return row is not None and row[2] == log and row[3] >= upto

        if not outcomes and self._engine.read(nothing_new):
            return []

        def job(connection: Connection) -> list[MessageId]:
            ledger = self._ledger(connection)
            kept = connection.execute(sql.PEER, (peer,)).fetchone()
            old = kept[3] if kept is not None and kept[2] == log else 0
            # What was recorded before is left alone: the delivery may have been sent again since.
            ended = [
                outcome.id for outcome in outcomes
                if outcome.number > old and self._receive(connection, ledger, peer, outcome)
            ]  # fmt: skip
            connection.execute(sql.CURSOR, (peer, log, upto))
            ledger.close()
            return list(dict.fromkeys(ended))

        return self._engine.write_durable(job, relief=True)

    def _receive(self, connection: Connection, ledger: Ledger, peer: str, outcome: Outcome) -> bool:
        result = (outcome.state, outcome.reason, outcome.result, outcome.content_type)
        taken = False
        for found in connection.execute(sql.BY_ID, (outcome.id,)).fetchall():
            row = Row._make(found)
            # Also a delivery that stands as queued: the peer had it, and the answer to the push was lost. The index has
            # all that asked for a receipt.
            if ledger.lane(sql.unpack(row.place)[0]).peer == peer:
                ledger.end(row, *result)
                taken = True
        if taken:
            return True
        for kept in connection.execute(sql.ENDED_BY_ID, (outcome.id,)).fetchall():
            ended = EndedRow._make(kept)
            if ledger.lane(ended.lane).peer == peer:
                taken = ledger.revise(ended, *result) or taken
        return taken

    def wipe(self, selection: Selection) -> int:
        """Forget ended deliveries (never live ones)."""

        def job(connection: Connection) -> int:
            ledger, gone = self._ledger(connection), 0
            for row in self._chosen(connection, selection, selection.states):
                ledger.wipe(row)
                gone += 1
            ledger.close()
            return gone

        return self._engine.write_durable(job, relief=True)

    def sweep(self, life: float) -> tuple[list[MessageId], float | None]:
        """End what is due, forget what is past its time; bounded work a call."""
        due = self._engine.read(lambda connection: self._next(connection, life))
        if due is None or due > self._context.clock.now():
            return [], due

        def job(connection: Connection) -> tuple[list[MessageId], float | None]:
            ledger = self._ledger(connection)
            ended = []
            for found in connection.execute(sql.DUE, (ledger.now, SWEEP)).fetchall():
                ledger.end(Row._make(found), State.EXPIRED, "expired before the peer had it")
                ended.append(MessageId(found[1]))
            room = SWEEP
            for lane in lane_rows(connection).values():
                if room > 0 and lane.depth + lane.awaiting:
                    dead = self._bury_old(connection, ledger, lane, life, room)
                    ended += dead
                    room -= len(dead)
            ledger.forget(connection.execute(sql.FORGETTABLE, (ledger.now, SWEEP)).fetchall())
            ledger.close()
            return ended, self._next(connection, life)

        result = self._engine.write(job)
        self._engine.space.keep_reserve()
        return result

    def _bury_old(
        self, connection: Connection, ledger: Ledger, lane: LaneRow, life: float, room: int
    ) -> list[MessageId]:
        # A lane is in the order in which it was sent, so the old ones stand first.
        old: list[Row] = []
        for found in connection.execute(sql.RANGE, (sql.lowest(lane.number), sql.highest(lane.number))):
            row = Row._make(found)
            if row.born > ledger.now - life or len(old) >= room:
                break
            old.append(row)
        for row in old:
            waited = "no receipt came" if ledger.state(row) is State.ACCEPTED else "not delivered"
            ledger.end(row, State.DEAD, f"{waited} within {life:g} s")
        return [row.id for row in old]

    def _next(self, connection: Connection, life: float) -> float | None:
        """Node time at which a sweep will find something to do."""
        times = [row[0] for query in (sql.NEXT_DUE, sql.NEXT_FORGET) for row in connection.execute(query)]
        for lane in lane_rows(connection).values():
            if lane.depth + lane.awaiting:
                values = (sql.lowest(lane.number), sql.highest(lane.number))
                times += [row[0] + life for row in connection.execute(sql.FIRST, values)]
        return min(times, default=None)

    def _ledger(self, connection: Connection) -> Ledger:
        return Ledger(connection, self._context, self._context.clock.now())

    def _chosen(self, connection: Connection, selection: Selection, states: frozenset[State]) -> Iterator[EndedRow]:
        """Ended deliveries that a selection means, page by page, so that they may be moved meanwhile."""
        lanes = lane_rows(connection)
        for row in ended_rows(connection, selection):
            if fits(row, lanes[row.lane], selection, states, self._context.clock.now()):
                yield row


def _stored(state: State) -> State:
    """Held is what is seen of a queued delivery."""
    return State.QUEUED if state is State.HELD else state


def _ended(connection: Connection, lane: LaneRow, delivery: Delivery) -> EndedRow | None:
    """The record of a delivery that ended as it was seen."""
    for found in connection.execute(sql.ENDED_BY_ID, (delivery.id,)).fetchall():
        row = EndedRow._make(found)
        if (row.lane, max(0, row.seq), row.state) == (lane.number, delivery.sequence, delivery.state):
            return row
    return None


def _send_again(connection: Connection, ledger: Ledger, row: EndedRow) -> None:
    """Put an ended delivery at the end of its lane."""
    ledger.lane(row.lane)
    last = connection.execute(sql.EXTEND, (row.lane, row.size)).fetchall()[0][0]
    connection.execute(sql.RETURN, (row.n, sql.origin(row.lane) + last, ledger.now, sql.DUPLICATE))
    ledger.forget([(row.n, row.lane, row.state, row.shared)], release=False)


def ended_rows(connection: Connection, selection: Selection, after: int = 0) -> Iterator[EndedRow]:
    """Ended deliveries after a cursor, in order; those of the selected ids only, where it names ids."""
    if selection.ids:
        found = [row for one in dict.fromkeys(selection.ids) for row in connection.execute(sql.ENDED_BY_ID, (one,))]
        yield from (EndedRow._make(row) for row in sorted(found) if row[0] > after)
        return
    while page := connection.execute(sql.ENDED_PAGE, (after, PAGE)).fetchall():
        after = page[-1][0]
        yield from map(EndedRow._make, page)


def fits(row: EndedRow, lane: LaneRow, selection: Selection, states: frozenset[State], now: float) -> bool:
    """Whether an ended delivery is one of those that a selection means."""
    return (
        (not states or row.state in states)
        and (selection.peer is None or lane.peer == selection.peer)
        and (selection.channel is None or lane.channel == selection.channel)
        and (selection.older_than is None or now - row.at >= selection.older_than)
    )
