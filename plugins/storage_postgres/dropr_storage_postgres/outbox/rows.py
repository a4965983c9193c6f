"""Rows of the outbox as values, and the one way in which a delivery ends.

Owns `LaneRow`, `Row`, and `Ledger`: whatever moves deliveries goes through a ledger, which keeps the counters of every
lane right. Must not know why a delivery moves.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from dropr_core.contracts.context import Context
from dropr_core.model.message import State
from dropr_core.model.names import Lane, MessageId
from dropr_core.model.states import DELIVERY, may_follow
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.outbox import sql


class LaneRow(NamedTuple):
    """The two rows of a lane."""

    number: int
    peer: str
    channel: str
    priority: int
    last: int
    head: int
    head_id: bytes
    offered: int
    depth: int
    bytes: int
    awaiting: int
    awaiting_bytes: int
    sent: int

    @property
    def lane(self) -> Lane:
        """Its name."""
        return Lane(self.peer, self.channel, self.priority)


class Row(NamedTuple):
    """One row of `delivery`, without its bytes."""

    place: int
    id: MessageId
    flags: int
    size: int
    shared: int | None
    born: float
    due: float | None


class EndedRow(NamedTuple):
    """One row of `ended`, without its bytes."""

    n: int
    id: MessageId
    lane: int
    seq: int
    state: str
    at: float
    flags: int
    size: int
    reason: str
    result: bytes | None
    result_type: str
    shared: int | None
    inline: bool
    born: float
    forget: float

    @property
    def has_body(self) -> bool:
        """Whether its envelope is still kept."""
        return self.inline or self.shared is not None


def find_lane(connection: Connection, lane: Lane) -> LaneRow | None:
    """The rows of a lane, to look at; None if nothing was ever sent on it."""
    row = connection.execute(sql.LANE, lane).fetchone()
    return None if row is None else LaneRow._make(row)


def own_lane(connection: Connection, lane: Lane) -> LaneRow | None:
    """The rows of a lane, whose deliveries nobody else moves until the transaction ends."""
    return find_lane(connection, lane) if connection.execute(sql.LOCK, lane).fetchone() else None


def lane_rows(connection: Connection) -> dict[int, LaneRow]:
    """Every lane by its number."""
    return {row[0]: LaneRow._make(row) for row in connection.execute(sql.LANES).fetchall()}


def clean(text: str) -> str:
    """A text without what PostgreSQL cannot keep."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}") if "\0" in text else text


_KEEP_BODY = frozenset({State.DEAD, State.FAILED, State.EXPIRED})


class Ledger:
    """Ends deliveries within one transaction: noted first, and done all at once by `write`."""

    def __init__(self, connection: Connection, context: Context, now: float) -> None:
        self._connection, self._context, self.now = connection, context, now
        self._lanes: dict[int, LaneRow] = {}
        self._ends: list[tuple[int, str, float, str, bytes | None, str, bool]] = []
        self._forgotten: list[int] = []
        self._wiped: list[int] = []
        self._deltas: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self._tally: dict[tuple[int, str], int] = defaultdict(int)
        self._unshared: dict[int, int] = defaultdict(int)

    def own(self, numbers: Collection[int]) -> None:
        """Let nobody else move deliveries of these lanes until the transaction ends."""
        missing = sorted(set(numbers) - self._lanes.keys())
        if missing:
            self._connection.execute(sql.LOCK_BY_NUMBER, (missing,)).fetchall()
            for found in self._connection.execute(sql.LANES_BY_NUMBER, (missing,)).fetchall():
                self._lanes[found[0]] = LaneRow._make(found)

    def lane(self, number: int) -> LaneRow:
        """The rows of a lane as they were when it was made ours."""
        if number not in self._lanes:
            self.own([number])
        return self._lanes[number]

    def state(self, row: Row) -> State:
        """Queued or accepted: a delivery's state is where it stands."""
        number, sequence = sql.unpack(row.place)
        return State.QUEUED if sequence > self.lane(number).head else State.ACCEPTED

    def retention(self, channel: str, state: State, flags: int) -> tuple[float, bool]:
        """For how many seconds the record of an end is kept, and whether the envelope is."""
        keep = float(self._context.keep_sent.get(channel, 0.0))
        if state in {State.ACCEPTED, State.PROCESSED}:
            own = self._context.remember if flags & (sql.FINGERPRINT | sql.RECEIPT) else 0.0
            return max(keep, own), keep > 0
        return self._context.remember, state in _KEEP_BODY

    def end(self, row: Row, state: State, reason: str = "", result: bytes | None = None, result_type: str = "") -> None:
        """Move one delivery to `ended`."""
        number, _ = sql.unpack(row.place)
        lane, old = self.lane(number), self.state(row)
        if state is not State.ACCEPTED and not may_follow(DELIVERY, State.ACCEPTED, state):
            assert may_follow(DELIVERY, old, state), f"{old} may not become {state}"
        seconds, body = self.retention(lane.channel, state, row.flags)
        forget = self.now + seconds
        self._ends.append((row.place, state.value, forget, clean(reason), result, clean(result_type), body))
        if row.shared is not None and not body:
            self._unshared[row.shared] += 1
        self._tally[number, state.value] += 1
        self.count(number, row.size, -1, queued=old is State.QUEUED)

    def count(self, lane: int, size: int, sign: int, *, queued: bool) -> None:
        """One delivery more (``sign`` 1) or less (-1) in a lane."""
        deltas = self._deltas[lane]
        if queued:
            deltas[0] -= sign  # what has gone
            deltas[1] -= sign * size
        else:
            deltas[2] += sign
            deltas[3] += sign * size

    def forget(self, rows: Iterable[tuple[int, int, str, int | None]], *, release: bool = True) -> None:
        """Remove ended records (n, lane, state, shared); ``release``: their share of an envelope goes too."""
        for n, lane, state, shared in rows:
            self._forgotten.append(n)
            if state:  # not wiped before
                self._tally[lane, state] -= 1
            if shared is not None and release:
                self._unshared[shared] += 1

    def wipe(self, row: EndedRow) -> None:
        """Remove an ended record from sight; an own id is remembered for as long as it would have been."""
        if not row.flags & sql.FINGERPRINT:
            self.forget([(row.n, row.lane, row.state, row.shared)])
            return
        self._wiped.append(row.n)
        self._tally[row.lane, row.state] -= 1
        if row.shared is not None:
            self._unshared[row.shared] += 1

    def revise(self, row: EndedRow, state: State, reason: str, result: bytes | None, result_type: str) -> bool:
        """The truth came late: another end for a delivery that had ended. Returns whether it was taken."""
        if not may_follow(DELIVERY, State(row.state), state):
            return False
        seconds, _ = self.retention(self.lane(row.lane).channel, state, row.flags | sql.RECEIPT)
        values = (state.value, self.now, self.now + seconds, clean(reason), result, clean(result_type), row.n)
        self._connection.execute(sql.REVISE, values)
        self._tally[row.lane, row.state] -= 1
        self._tally[row.lane, state.value] += 1
        return True

    def unshare(self, shared: int) -> None:
        """One delivery less needs a shared envelope."""
        self._unshared[shared] += 1

    def write(self) -> None:
        """Do what was noted, counters included; more may be noted afterwards."""
        connection = self._connection
        if self._ends:
            columns = [list(column) for column in zip(*self._ends, strict=True)]
            connection.execute(sql.END, (self.now, *columns))
            connection.execute(sql.DROP_MANY, (columns[0],))
        if self._wiped:
            connection.execute(sql.WIPE, (self._wiped,))
        if self._forgotten:
            connection.execute(sql.FORGET, (self._forgotten,))
        if self._unshared:
            pairs = sorted(self._unshared.items())
            over = connection.execute(sql.UNSHARE, ([n for n, _ in pairs], [refs for _, refs in pairs])).fetchall()
            if over:
                connection.execute(sql.UNSHARE_DROP, ([n for (n,) in over],))
        if self._deltas:
            lanes = list(self._deltas)
            columns = [list(column) for column in zip(*(self._deltas[lane] for lane in lanes), strict=True)]
            connection.execute(sql.COUNT, (lanes, *columns))
        tally = [(*key, n) for key, n in self._tally.items() if n]
        if tally:
            connection.execute(sql.TALLY, [list(column) for column in zip(*tally, strict=True)])
        for noted in (self._ends, self._wiped, self._forgotten, self._unshared, self._deltas, self._tally):
            noted.clear()
