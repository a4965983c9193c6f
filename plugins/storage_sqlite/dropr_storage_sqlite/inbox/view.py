"""Looking at the inbox; changes nothing.

Owns scan, envelope, counts, oldest and next_due.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import JobInfo, Selection
from dropr_core.model.message import State
from dropr_core.model.names import NOT_URGENT, MessageId
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.end import chosen
from dropr_storage_sqlite.inbox.ids import find_rows
from dropr_storage_sqlite.inbox.rows import MessageRow, QueueRow, Standing, queue_rows, standing

T = TypeVar("T")

_STATES = ("ready", "delayed", "leased", "blocked", "buried", "done", "expired")


class View:
    """Read-only views."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def scan(self, selection: Selection, after: int = 0, limit: int = 100) -> list[JobInfo]:
        """A page of messages in order of arrival; the last one's ``number`` is the next cursor."""

        def job(connection: Connection) -> list[JobInfo]:
            now, queues = self._context.clock.now(), queue_rows(connection)
            found = chosen(connection, selection, selection.states, now, after)
            return [
                _info(connection, row, stands, queues[row.place >> sql.N_BITS], now)
                for row, stands in islice(found, limit)
            ]

        return self._settled(job)

    def _settled(self, job: Callable[[Connection], T]) -> T:
        """What is read, on stable storage: its numbers may be told to others, and must not become those of others."""
        found = self._engine.read(job)
        self._engine.settle_seen()
        return found

    def find(self, number: int) -> JobInfo | None:
        """The message with a number."""
        if not 0 < number <= sql.MASK:
            return None

        def job(connection: Connection) -> JobInfo | None:
            found = connection.execute(sql.BY_NUMBER, (number,)).fetchone()
            return None if found is None else self._show(connection, MessageRow._make(found))

        return self._engine.read(job)

    def _show(self, connection: Connection, row: MessageRow) -> JobInfo:
        (queue,) = connection.execute(sql.QUEUE_BY_NUMBER, (row.place >> sql.N_BITS,)).fetchall()
        stands = standing(connection, row, queue[1])
        return _info(connection, row, stands, QueueRow._make(queue), self._context.clock.now())

    def peek(self, channel: str, state: State) -> JobInfo | None:
        """The next ready, delayed or buried message of a channel."""

        def job(connection: Connection) -> JobInfo | None:
            queues = [QueueRow._make(row) for row in connection.execute(sql.QUEUES_OF, (channel,)).fetchall()]
            place = _first(connection, queues, state, self._context.clock.now())
            if place is None:
                return None
            (row,) = connection.execute(sql.MESSAGE, (place,)).fetchall()
            return self._show(connection, MessageRow._make(row))

        return self._settled(job)

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

        def job(connection: Connection) -> bytes | None:
            rows = map(MessageRow._make, find_rows(connection, [message_id]))
            places = [row.place for row in rows if not row.flags & sql.EMPTIED]
            return connection.execute(sql.ENVELOPE_AT, (min(places),)).fetchall()[0][0] if places else None

        return self._engine.read(job)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Channel → state → number, and ``processed`` ever, ``bytes``; kept, not counted."""
        result: dict[str, dict[str, int]] = {}
        for queue in self._engine.read(queue_rows).values():
            into = result.setdefault(queue.channel, {"processed": 0, "bytes": 0})
            into["processed"] += queue.processed
            into["bytes"] += queue.bytes
            for state in _STATES:
                number = getattr(queue, state)
                if number:
                    into[state] = into.get(state, 0) + number
        return result

    def urgent(self) -> Mapping[str, int]:
        """Channel → ready messages of an urgent priority; kept, not counted."""
        found: dict[str, int] = {}
        for queue in self._engine.read(queue_rows).values():
            if queue.ready and queue.priority < NOT_URGENT:
                found[queue.channel] = found.get(queue.channel, 0) + queue.ready
        return found

    def oldest(self) -> Mapping[str, float]:
        """Channel → seconds that its first ready message has waited."""

        def job(connection: Connection) -> dict[str, float]:
            now = self._context.clock.now()
            result: dict[str, float] = {}
            for queue in queue_rows(connection).values():
                if not queue.ready:
                    continue
                fresh = connection.execute(sql.FIRST_FRESH, (queue.start + queue.frontier, queue.end)).fetchall()
                returned = connection.execute(sql.FIRST_RETURNED, (queue.start, queue.end)).fetchall()
                for (arrived,) in (*fresh, *returned):
                    result[queue.channel] = max(result.get(queue.channel, 0.0), now - arrived)
            return result

        return self._engine.read(job)

    def next_due(self, channels: Sequence[str]) -> float | None:
        """Node time at which the next delayed message of these channels becomes ready."""
        look = self._engine.look
        numbers = [row[:1] for one in channels for row in look(sql.QUEUES_OF, (one,))]
        return min((row[0] for number in numbers for row in look(sql.NEXT_DELAYED, number)), default=None)


def _first(connection: Connection, queues: Sequence[QueueRow], state: State, now: float) -> int | None:
    """The place of what `peek` shows."""
    if state is State.BURIED:
        buried = [row for queue in queues if queue.buried
                  for row in connection.execute(sql.BURIED_IN, (queue.start, queue.end, 1)).fetchall()]  # fmt: skip
        return min((place for (place,) in buried), key=lambda place: place & sql.MASK, default=None)
    late = [row for queue in queues if queue.delayed
            for row in connection.execute(sql.FIRST_DELAYED, (queue.number,)).fetchall()]  # fmt: skip
    late.sort(key=lambda row: (row[1], row[0] & sql.MASK))
    if state is State.DELAYED:
        return late[0][0] if late else None
    for queue in queues:  # by priority
        if queue.ready:
            rows = connection.execute(sql.FIRST_PLACE, (queue.start + queue.frontier, queue.end)).fetchall()
            rows += connection.execute(sql.RETURNED_PLACE, (queue.number,)).fetchall()
            if not rows:
                rows = connection.execute(sql.RANKED_PLACE, (queue.number,)).fetchall()
            if rows:
                return int(min(rows)[0])
    return late[0][0] if late and late[0][1] <= now else None


def _info(connection: Connection, row: MessageRow, stands: Standing, queue: QueueRow, now: float) -> JobInfo:
    sender = connection.execute(sql.SENDER_NAME, (row.sender,)).fetchall()[0][0]
    consumer, rank = "", queue.first_rank
    if row.flags & sql.RANKED:
        (rank,) = connection.execute(sql.RANK_AT, (row.place,)).fetchone() or (rank,)
    if stands.consumer is not None:
        for (name,) in connection.execute(sql.CONSUMER_NAME, (stands.consumer,)):
            consumer = name
    return JobInfo(
        row.place & sql.MASK, MessageId(row.id), sender, queue.channel, queue.priority, State(stands.state),
        max(0.0, now - (row.arrived if stands.at is None else stands.at)), row.size, stands.attempts, stands.reason,
        consumer, None if stands.due is None else max(0.0, stands.due - now), bool(row.flags & sql.DUPLICATE),
        stands.token, _until(row, stands), rank,
    )  # fmt: skip


def _until(row: MessageRow, stands: Standing) -> float | None:
    """When it expires or, once it has ended, is forgotten."""
    if stands.forget is not None:
        return stands.forget
    return None if stands.state is State.LEASED else row.expires
