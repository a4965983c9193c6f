"""Rows of the inbox as values, and the one way in which a message changes its state.

Owns `QueueRow`, `MessageRow`, `Standing`, and `Book`: whatever moves messages goes through a book,
which keeps the counters, the ordering keys and the outcome logs right. Must not know why.
"""

from collections import defaultdict
from typing import NamedTuple

from dropr_core.contracts.context import Context
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.model.names import first_rank, priority_of_rank
from dropr_core.model.states import JOB, may_follow
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.ids import QueueEnd, mark_place

MAX_REASON = 8192
"""Characters kept of a message's history of errors."""

COUNTERS = ("ready", "delayed", "leased", "blocked", "buried", "done", "bytes", "processed", "expired")
_INDEX = {name: index for index, name in enumerate(COUNTERS)}
_EXPIRED = _INDEX["expired"]

KEEP_EXPIRED = 10_000
"""Records of expired messages kept in one queue; a flood of short-lived ones must not fill the disk."""


class QueueRow(NamedTuple):
    """One row of `queue`: a channel and a priority."""

    number: int
    channel: str
    priority: int
    frontier: int
    ready: int
    delayed: int
    leased: int
    blocked: int
    buried: int
    done: int
    bytes: int
    processed: int
    expired: int

    @property
    def first_rank(self) -> int:
        """The rank of its messages that have none of their own."""
        return first_rank(self.priority)

    @property
    def start(self) -> int:
        """The place before its first message."""
        return self.number << sql.N_BITS

    @property
    def end(self) -> int:
        """Its last place."""
        return (self.number << sql.N_BITS) | sql.MASK


class MessageRow(NamedTuple):
    """One row of `message`, without its bytes."""

    place: int
    id: bytes
    sender: int
    arrived: float
    flags: int
    size: int
    key: str | None
    expires: float | None


class Standing(NamedTuple):
    """In which state a message stands, and what that state's table knows."""

    state: State
    attempts: int = 0
    reason: str = ""
    due: float | None = None
    consumer: int | None = None
    at: float | None = None
    forget: float | None = None
    token: bytes = b""


def queue_rows(connection: Connection) -> dict[int, QueueRow]:
    """Every queue by its number."""
    return {row[0]: QueueRow._make(row) for row in connection.execute(sql.QUEUES)}


def standing(connection: Connection, row: MessageRow, channel: str) -> Standing:
    """Where a message stands: in no table of its own means ready, as it arrived."""
    place = (row.place,)
    for attempts, reason, consumer, token in connection.execute(sql.LEASE_AT, place):
        return Standing(State.LEASED, attempts, reason, consumer=consumer, token=token)
    for attempts, reason in connection.execute(sql.READY_AT, place):
        return Standing(State.READY, attempts, reason)
    for attempts, reason, due in connection.execute(sql.DELAYED_AT, place):
        return Standing(State.DELAYED, attempts, reason, due=due)
    for state, at, attempts, reason, forget in connection.execute(sql.ENDED_AT, place):
        return Standing(State(state), attempts, reason, at=at, forget=forget)
    if row.key is not None:
        for (due,) in connection.execute(sql.BLOCKED_AT, (channel, row.key, row.place & sql.MASK)):
            return Standing(State.BLOCKED, due=due)
    return Standing(State.READY)


def find_consumer(connection: Connection, name: str) -> int | None:
    """The number of a consumer that ever claimed."""
    found = connection.execute(sql.CONSUMER, (name,)).fetchone()
    return None if found is None else int(found[0])


def consumer_of(connection: Connection, name: str) -> int:
    """The number of a consumer, made if it is new."""
    number = find_consumer(connection, name)
    if number is None:
        return int(connection.execute(sql.NEW_CONSUMER, (name,)).fetchall()[0][0])
    return number


def queue_of(connection: Connection, channel: str, priority: int) -> tuple[QueueRow, QueueEnd]:
    """The queue of a channel and priority, made if it is new, and where it ends."""
    found = connection.execute(sql.QUEUE_END, (channel, priority)).fetchall()
    if found:
        return QueueRow._make(found[0][:-4]), found[0][-4:]
    row = QueueRow._make(connection.execute(sql.NEW_QUEUE, (channel, priority)).fetchall()[0])
    if row.number > sql.MAX_QUEUE:
        raise StoreError(f"more than {sql.MAX_QUEUE} queues: use fewer channels")
    return row, (None, None, None, None)


class Book:
    """Moves messages within one transaction; `close` writes counters and outcomes."""

    def __init__(self, connection: Connection, context: Context, now: float) -> None:
        self._connection, self._context, self.now = connection, context, now
        self._queues: dict[int, QueueRow] = {}
        self._deltas: dict[int, list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
        self._outcomes: dict[int, list[tuple[object, ...]]] = defaultdict(list)
        self.readied: set[str] = set()
        """Channels that got ready messages."""

    def queue(self, number: int) -> QueueRow:
        """The row of a queue as it was at the first look in this transaction."""
        if number not in self._queues:
            found = self._connection.execute(sql.QUEUE_BY_NUMBER, (number,)).fetchall()
            self._queues[number] = QueueRow._make(found[0])
        return self._queues[number]

    def message(self, place: int) -> MessageRow:
        """The row of a message."""
        found = self._connection.execute(sql.MESSAGE, (place,)).fetchone()
        if found is None:
            raise StoreError(f"message {place & sql.MASK} is missing in the inbox; keep a copy and tell the authors")
        return MessageRow._make(found)

    def count(self, queue: int, what: str, number: int = 1) -> None:
        """Change a counter of a queue."""
        self._deltas[queue][_INDEX[what]] += number

    # ── leaving a state ──────────────────────────────────────────────────────────────────────────

    def leave(self, row: MessageRow, target: State) -> Standing:
        """Take a message that is not leased out of its state, on its way to ``target``."""
        queue = row.place >> sql.N_BITS
        stands = standing(self._connection, row, self.queue(queue).channel)
        assert may_follow(JOB, stands.state, target) or target is State.DONE, f"{stands.state} may not become {target}"
        if stands.state is State.BLOCKED:
            key = (self.queue(queue).channel, row.key, row.place & sql.MASK)
            self._connection.execute(sql.UNBLOCK, key)
        elif stands.state is State.READY:
            self._connection.execute(sql.UNREADY, (row.place,))
            if not row.flags & sql.PARKED:
                self._connection.execute(sql.PARK, (row.place,))
        else:
            query = {State.DELAYED: sql.UNDELAY, State.LEASED: sql.UNLEASE}.get(stands.state, sql.UNEND)
            self._connection.execute(query, (row.place,))
        self.count(queue, stands.state.value, -1)
        return stands

    # ── entering a state ─────────────────────────────────────────────────────────────────────────

    def ready(self, place: int, attempts: int, reason: str) -> None:
        """It may be leased (again)."""
        self._connection.execute(sql.READY, (place, attempts, reason))
        queue = place >> sql.N_BITS
        self.count(queue, "ready")
        self.readied.add(self.queue(queue).channel)

    def delay(self, place: int, due: float, attempts: int, reason: str) -> None:
        """It may be leased from ``due`` on."""
        if due <= self.now:
            self.ready(place, attempts, reason)
            return
        self._connection.execute(sql.DELAY, (place, place >> sql.N_BITS, due, attempts, reason))
        self.count(place >> sql.N_BITS, "delayed")

    def block(self, row: MessageRow, due: float | None) -> None:
        """Another message of its key comes first."""
        queue = row.place >> sql.N_BITS
        self._connection.execute(sql.BLOCK, (self.queue(queue).channel, row.key, row.place & sql.MASK, row.place, due))
        self.count(queue, "blocked")

    def bury(self, row: MessageRow, attempts: int, reason: str, why: str) -> None:
        """Into the dead-letter list; its sender learns that it failed, its key is free."""
        values = (row.place, State.BURIED.value, self.now, self.now + self._context.remember, attempts, reason)
        self._connection.execute(sql.END, values)
        self.count(row.place >> sql.N_BITS, "buried")
        self.undate(row)
        self.outcome(row, State.FAILED, why)
        self.free_key(row)

    def keep_done(self, row: MessageRow, seconds: float, attempts: int, reason: str) -> None:
        """Done, and still readable for a while."""
        self._connection.execute(sql.END, (row.place, State.DONE.value, self.now, self.now + seconds, attempts, reason))
        self.count(row.place >> sql.N_BITS, "done")

    def expire(self, row: MessageRow) -> None:
        """Nobody leased it in time."""
        stands = self.leave(row, State.EXPIRED)
        self.outcome(row, State.EXPIRED, f"expired while {stands.state.value} at {self._context.node}")
        queue = self.queue(row.place >> sql.N_BITS)
        if queue.expired + self._deltas[queue.number][_EXPIRED] < KEEP_EXPIRED:
            until = self.now + self._context.remember
            values = (row.place, State.EXPIRED.value, self.now, until, stands.attempts, stands.reason)
            self._connection.execute(sql.END, values)
            self._connection.execute(sql.EMPTY, (row.place,))
            self.count(queue.number, "expired")
            self.count(queue.number, "bytes", -row.size)
        else:
            self.remove(row)
        self.undate(row)
        if stands.state is not State.BLOCKED:
            self.free_key(row)

    def remove(self, row: MessageRow) -> None:
        """Its body and its facts go."""
        self._connection.execute(sql.REMOVE, (row.place,))
        if row.flags & sql.RANKED:
            self._connection.execute(sql.UNRANK, (row.place,))
        if not row.flags & sql.EMPTIED:
            self.count(row.place >> sql.N_BITS, "bytes", -row.size)

    def rerank(self, row: MessageRow, rank: int) -> MessageRow:
        """A leased message gets another rank, and goes to the queue of its priority. Returns its row as it is then."""
        old, priority = self.queue(row.place >> sql.N_BITS), priority_of_rank(rank)
        place, number = row.place, row.place & sql.MASK
        flags = (row.flags & ~sql.RANKED) | sql.PARKED
        if priority != old.priority:
            queue, _ = queue_of(self._connection, old.channel, priority)
            place = sql.pack(queue.number, number)
            self.count(old.number, "bytes", -row.size)
            self.count(queue.number, "bytes", row.size)
            if row.key is not None:
                self._connection.execute(sql.MOVE_HOLDER, (place, old.channel, row.key, row.place))
            flags |= sql.APART
            mark_place(self._connection, place)
        self._connection.execute(sql.UNRANK, (row.place,))
        if rank != first_rank(priority):
            flags |= sql.RANKED
            self._connection.execute(sql.RANK, (place, rank))
        self._connection.execute(sql.MOVE, (place, flags, row.place))
        return row._replace(place=place, flags=flags)

    # ── what hangs on a message ──────────────────────────────────────────────────────────────────

    def date(self, row: MessageRow) -> None:
        """From now on it may expire."""
        if row.expires is not None:
            self._connection.execute(sql.EXPIRE, (row.expires, row.place))

    def undate(self, row: MessageRow) -> None:
        """It cannot expire now."""
        if row.expires is not None:
            self._connection.execute(sql.UNEXPIRE, (row.expires, row.place))

    def free_key(self, row: MessageRow) -> None:
        """The next message of its ordering key may go on."""
        if row.key is None:
            return
        channel = self.queue(row.place >> sql.N_BITS).channel
        holder = self._connection.execute(sql.HOLDER, (channel, row.key)).fetchone()
        if holder is None or holder[0] != row.place:
            return
        following = self._connection.execute(sql.NEXT_BLOCKED, (channel, row.key)).fetchone()
        if following is None:
            self._connection.execute(sql.NO_HOLDER, (channel, row.key))
            return
        number, place, due = following
        self._connection.execute(sql.UNBLOCK, (channel, row.key, number))
        self.count(place >> sql.N_BITS, "blocked", -1)
        self._connection.execute(sql.SET_HOLDER, (channel, row.key, place))
        self.delay(place, 0.0 if due is None else due, 0, "")

    def outcome(
        self, row: MessageRow, state: State, reason: str = "", result: bytes | None = None, content_type: str = ""
    ) -> None:
        """Write into the sender's outcome log, if it asked for a receipt."""
        if row.flags & sql.RECEIPT:
            self._outcomes[row.sender].append((self.now, row.id, state.value, reason, result, content_type))

    def close(self) -> None:
        """Write counters and outcomes; the last thing in the transaction (or before the counters are read)."""
        if self._deltas:
            self._connection.executemany(sql.COUNT, [(*delta, queue) for queue, delta in self._deltas.items()])
        for sender, rows in self._outcomes.items():
            last = self._connection.execute(sql.NUMBER, (len(rows), sender)).fetchall()[0][0]
            first = last - len(rows) + 1
            self._connection.executemany(sql.OUTCOME, [(sender, first + index, *row) for index, row in enumerate(rows)])
        self._deltas.clear()
        self._outcomes.clear()
        self._queues.clear()


def hold_key(connection: Connection, book: Book, row: MessageRow) -> bool:
    """Make a message the holder of its ordering key, if the key is free."""
    channel = book.queue(row.place >> sql.N_BITS).channel
    if connection.execute(sql.HOLDER, (channel, row.key)).fetchall():
        return False
    connection.execute(sql.SET_HOLDER, (channel, row.key, row.place))
    return True


def with_line(history: str, line: str) -> str:
    """A history of errors and one more line; the oldest lines go when it becomes too long."""
    line = " ".join(line.split())
    if not line:
        return history
    text = f"{history}\n{line}" if history else line
    return text if len(text) <= MAX_REASON else text[-MAX_REASON:].partition("\n")[2] or text[-MAX_REASON:]
