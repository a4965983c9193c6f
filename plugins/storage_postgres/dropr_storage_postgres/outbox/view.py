"""Looking at the outbox, and what is kept about peers.

Owns scan, counts, peers and the hold of a peer. Everything but the hold changes nothing.
"""

from collections.abc import Iterator, Mapping

from dropr_core.contracts.storage import Delivery, PeerState, Selection
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, StoreId
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.engine.times import Times
from dropr_storage_postgres.outbox import sql
from dropr_storage_postgres.outbox.end import ended_pages, fits
from dropr_storage_postgres.outbox.rows import EndedRow, LaneRow, Row, clean, lane_rows

LIVE = frozenset({State.QUEUED, State.HELD, State.ACCEPTED})
PAGE = 1000
_Page = list[tuple[tuple[int, int], Delivery]]


class View:
    """Read-only views, and the hold of a peer."""

    def __init__(self, engine: Engine, staged: str) -> None:
        """``staged``: what the names of this machine's staging logs begin with in the table of facts."""
        self._engine, self._staged = engine, staged

    def scan(self, selection: Selection, after: tuple[int, int] = (0, 0), limit: int = 100) -> _Page:
        """A page of deliveries: first the live ones lane by lane, then the ended ones as they ended."""

        def job(connection: Connection) -> _Page:
            show = _Shower(connection, self._engine.times)
            page: _Page = []
            if after[0] == 0 and (not selection.states or selection.states & LIVE):
                for row in show.live_rows(selection, after[1], limit):
                    if len(page) >= limit:
                        return page
                    page.append(((0, row.place), show.live(row)))
            start = after[1] if after[0] == 1 else 0
            if selection.live or (selection.states and selection.states <= {State.QUEUED, State.HELD}):
                return page
            for rows in ended_pages(connection, selection, start):
                for ended in rows:
                    if len(page) >= limit:
                        return page
                    if fits(ended, show.lanes[ended.lane], selection, selection.states, show.now):
                        page.append(((1, ended.n), show.ended(ended)))
            return page

        return self._engine.read(job)

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""
        for query in (sql.ENVELOPE, sql.ENDED_ENVELOPE):
            for (data,) in self._engine.query(query, (message_id,)):
                if data is not None:
                    return bytes(data)
        return None

    def counts(self) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """(peer, channel) → state → number, and ``sent`` ever; kept, not counted."""

        def job(connection: Connection) -> Mapping[tuple[str, str], Mapping[str, int]]:
            show = _Shower(connection, self._engine.times)
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
        """Staging log of this machine → how far it is taken in."""
        rows = self._engine.query(sql.ALL_STAGED, (self._staged,))
        return {key.removeprefix(self._staged): position for key, position in rows}

    def peers(self) -> Mapping[str, PeerState]:
        """Every peer that a delivery was ever sent to, or that is held."""

        def job(connection: Connection) -> Mapping[str, PeerState]:
            sums: dict[str, list[int]] = {}
            for lane in lane_rows(connection).values():
                sums.setdefault(lane.peer, []).extend((lane.depth, lane.bytes, lane.awaiting))
            known = {row[0]: row[1:] for row in connection.execute(sql.PEERS).fetchall()}
            result = {}
            for name in dict.fromkeys((*sums, *known)):
                held, reason, log, cursor = known.get(name, (False, "", None, 0))
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
        query, values = (sql.RELEASE, (peer,)) if reason is None else (sql.HOLD, (peer, clean(reason)))
        self._engine.write(lambda connection: connection.execute(query, values) and None)


class _Shower:
    """Turns rows into values, within one consistent view."""

    def __init__(self, connection: Connection, times: Times) -> None:
        self._connection, self._times, self.now = connection, times, times.now()
        """``now`` is in the tables' terms."""
        self.lanes = lane_rows(connection)
        self.held = {row[0]: row[2] for row in connection.execute(sql.PEERS).fetchall() if row[1]}

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
            receipt=bool(row.flags & sql.RECEIPT), possible_duplicate=bool(row.flags & sql.DUPLICATE),
            sent=self._times.node(row.born), until=None if row.due is None else self._times.node(row.due),
        )  # fmt: skip

    def ended(self, row: EndedRow) -> Delivery:
        lane = self.lanes[row.lane]
        return Delivery(
            row.id, lane.peer, lane.channel, lane.priority, State(row.state), max(0, row.seq),
            max(0.0, self.now - row.at), row.size, row.reason, row.result, row.result_type,
            receipt=bool(row.flags & sql.RECEIPT), possible_duplicate=bool(row.flags & sql.DUPLICATE),
            sent=self._times.node(row.born), until=self._times.node(row.forget),
        )  # fmt: skip

    def live_rows(self, selection: Selection, after: int, limit: int) -> Iterator[Row]:
        """Live deliveries after a place that a selection means, in order of their places."""
        if selection.ids:
            rows = map(Row._make, self._connection.execute(sql.BY_IDS, (list(selection.ids),)).fetchall())
            yield from (row for row in rows if row.place > after and self._fits(row, selection))
            return
        for lane in sorted(self.lanes.values()):
            if sql.highest(lane.number) <= after or not lane.depth + lane.awaiting or not _means(lane, selection):
                continue
            low, high = self._range(lane, selection, after)
            for row in self._pages(low, high, min(PAGE, limit + 1)):
                if selection.older_than is not None and self.now - row.born < selection.older_than:
                    break  # a lane is in the order in which it was sent
                if self._fits(row, selection):
                    yield row

    def _pages(self, low: int, high: int, size: int) -> Iterator[Row]:
        while found := self._connection.execute(sql.PAGE, (low, high, size)).fetchall():
            yield from map(Row._make, found)
            if len(found) < size:
                return
            low, size = found[-1][0], PAGE

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
