"""Looking at the outbox, and what is kept about peers.

Owns scan, counts, peers and the hold of a peer. Everything but the hold changes nothing.
"""

from collections.abc import Iterator, Mapping

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Delivery, PeerState, Selection
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, StoreId
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.outbox import sql
from dropr_storage_sqlite.outbox.end import ended_rows, fits
from dropr_storage_sqlite.outbox.ids import find_rows
from dropr_storage_sqlite.outbox.rows import EndedRow, LaneRow, Row, lane_rows

LIVE = frozenset({State.QUEUED, State.HELD, State.ACCEPTED})
_Page = list[tuple[tuple[int, int], Delivery]]


class View:
    """Read-only views, and the hold of a peer."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def scan(self, selection: Selection, after: tuple[int, int] = (0, 0), limit: int = 100) -> _Page:
        """A page of deliveries: first the live ones lane by lane, then the ended ones as they ended."""

        def job(connection: Connection) -> _Page:
            show = self._shower(connection)
            page: _Page = []
            if after[0] == 0 and (not selection.states or selection.states & LIVE):
                for row in show.live_rows(selection, after[1]):
                    if len(page) >= limit:
                        return page
                    page.append(((0, row.place), show.live(row)))
            start = after[1] if after[0] == 1 else 0
            if selection.live or (selection.states and selection.states <= {State.QUEUED, State.HELD}):
                return page
            for ended in ended_rows(connection, selection, start):
                if len(page) >= limit:
                    return page
                if fits(ended, show.lanes[ended.lane], selection, selection.states, show.now):
                    page.append(((1, ended.n), show.ended(ended)))
            return page

        return self._engine.read(job)

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

        def job(connection: Connection) -> bytes | None:
            queries: list[tuple[str, object]] = [
                (sql.ENVELOPE_AT, row.place) for row in find_rows(connection, (message_id,))
            ]
            for query, value in (*queries, (sql.ENDED_ENVELOPE, message_id)):
                for (data,) in connection.execute(query, (value,)).fetchall():
                    if data is not None:
                        return bytes(data)
            return None

        return self._engine.read(job)

    def counts(self) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """(peer, channel) → state → number, and ``sent`` ever; kept, not counted."""

        def job(connection: Connection) -> Mapping[tuple[str, str], Mapping[str, int]]:
            show = self._shower(connection)
            result: dict[tuple[str, str], dict[str, int]] = {}
            for lane in show.lanes.values():
                into = result.setdefault((lane.peer, lane.channel), {"sent": 0})
                into["sent"] += lane.sent
                waiting = State.HELD if lane.peer in show.held else State.QUEUED
                for state, number in ((waiting, lane.depth), (State.ACCEPTED, lane.awaiting)):
                    if number:
                        into[state.value] = into.get(state.value, 0) + number
            for number, state, n in connection.execute(sql.TALLIES).fetchall():
                lane = show.lanes[number]
                into = result[lane.peer, lane.channel]
                into[state] = into.get(state, 0) + n
            return result

        return self._engine.read(job)

    def staged(self) -> Mapping[str, int]:
        """Staging log → how far it is taken in."""
        found = self._engine.read(lambda connection: connection.execute(sql.ALL_STAGED).fetchall())
        return {key.removeprefix(sql.STAGED): position for key, position in found}

    def peers(self) -> Mapping[str, PeerState]:
        """Every peer that a delivery was ever sent to, or that is held."""

        def job(connection: Connection) -> Mapping[str, PeerState]:
            sums: dict[str, list[int]] = {}
            for lane in lane_rows(connection).values():
                sums.setdefault(lane.peer, []).extend((lane.depth, lane.bytes, lane.awaiting))
            known = {row[0]: row[1:] for row in connection.execute(sql.PEERS).fetchall()}
            result = {}
            for name in dict.fromkeys((*sums, *known)):
                held, reason, log, cursor = known.get(name, (0, "", None, 0))
                if name not in sums and not held and log is None:
                    continue
                numbers = sums.get(name, [])
                result[name] = PeerState(
                    bool(held), reason, sum(numbers[::3]), sum(numbers[1::3]), sum(numbers[2::3]),
                    None if log is None else StoreId(log), cursor,
                )  # fmt: skip
            return result

        return self._engine.read(job)

    def hold(self, peer: str, reason: str | None) -> None:
        """Stop shipping to the peer; None: ship again. Durable."""
        query, values = (sql.RELEASE, (peer,)) if reason is None else (sql.HOLD, (peer, reason))
        self._engine.write_durable(lambda connection: connection.execute(query, values).fetchall(), relief=True)

    def _shower(self, connection: Connection) -> "_Shower":
        return _Shower(connection, self._context.clock.now())


class _Shower:
    """Turns rows into values, within one consistent view."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection, self.now = connection, now
        self.lanes = lane_rows(connection)
        self.held = {row[0]: row[2] for row in connection.execute(sql.PEERS) if row[1]}

    def state(self, row: Row) -> State:
        lane = self.lanes[row.place >> sql.SEQ_BITS]
        if sql.unpack(row.place)[1] <= lane.head:
            return State.ACCEPTED
        return State.HELD if lane.peer in self.held else State.QUEUED

    def live(self, row: Row) -> Delivery:
        number, sequence = sql.unpack(row.place)
        lane, state = self.lanes[number], self.state(row)
        return Delivery(
            row.id, lane.peer, lane.channel, lane.priority, state, max(0, sequence), max(0.0, self.now - row.born),
            row.size, self.held.get(lane.peer, "") if state is State.HELD else "",
            receipt=bool(row.flags & sql.RECEIPT), possible_duplicate=bool(row.flags & sql.DUPLICATE), sent=row.born,
            until=row.due,
        )  # fmt: skip

    def ended(self, row: EndedRow) -> Delivery:
        lane = self.lanes[row.lane]
        return Delivery(
            row.id, lane.peer, lane.channel, lane.priority, State(row.state), max(0, row.seq),
            max(0.0, self.now - row.at), row.size, row.reason, row.result, row.result_type,
            receipt=bool(row.flags & sql.RECEIPT), possible_duplicate=bool(row.flags & sql.DUPLICATE), sent=row.born,
            until=row.forget,
        )  # fmt: skip

    def live_rows(self, selection: Selection, after: int) -> Iterator[Row]:
        """Live deliveries after a place that a selection means, in order of their places."""
        if selection.ids:
            rows = sorted(find_rows(self._connection, selection.ids))
            yield from (row for row in rows if row.place > after and self._fits(row, selection))
            return
        for lane in sorted(self.lanes.values()):
            if sql.highest(lane.number) <= after or not lane.depth + lane.awaiting or not _means(lane, selection):
                continue
            for found in self._connection.execute(sql.RANGE, self._range(lane, selection, after)):
                row = Row._make(found)
                if selection.older_than is not None and self.now - row.born < selection.older_than:
                    break  # a lane is in the order in which it was sent
                if self._fits(row, selection):
                    yield row

    def _range(self, lane: LaneRow, selection: Selection, after: int) -> tuple[int, int]:
        """The part of a lane that can hold the states asked for."""
        head = sql.origin(lane.number) + lane.head
        low, high = max(after, sql.lowest(lane.number)), sql.highest(lane.number)
        wanted = selection.states & LIVE
        if wanted and State.ACCEPTED not in wanted:
            low = max(low, head)
        if wanted == {State.ACCEPTED}:
            high = head
        return low, high

    def _fits(self, row: Row, selection: Selection) -> bool:
        return (
            (not selection.states or self.state(row) in selection.states)
            and _means(self.lanes[row.place >> sql.SEQ_BITS], selection)
            and (selection.older_than is None or self.now - row.born >= selection.older_than)
        )


def _means(lane: LaneRow, selection: Selection) -> bool:
    return (selection.peer is None or lane.peer == selection.peer) and (
        selection.channel is None or lane.channel == selection.channel
    )
