"""Receipts to give, things that are due, and what an operator does to messages.

Owns outcomes, state moves, sweep and wipe. Must not know consumers' rules.
"""

import contextlib
import heapq
from collections.abc import Iterator, Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import JobInfo, JobMove, Selection
from dropr_core.model.limits import RECEIPTS_BYTES
from dropr_core.model.message import Outcome, State, first_page
from dropr_core.model.names import MessageId, StoreId, make_store_id
from dropr_core.model.states import JOB, SETTLED, may_follow
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.engine.wal import FLUSH
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.ids import find_rows
from dropr_storage_sqlite.inbox.rows import (
    Book,
    MessageRow,
    QueueRow,
    Standing,
    hold_key,
    queue_rows,
    standing,
    with_line,
)

SWEEP = 1000
"""Rows that one sweep handles at most of each kind."""
PAGE = 500

_TABLES = {
    State.LEASED: (sql.LEASES_IN,),
    State.DELAYED: (sql.DELAYED_IN,),
    State.BURIED: (sql.BURIED_IN,),
    State.DONE: (sql.ENDED_IN,),
    State.EXPIRED: (sql.ENDED_IN,),
}


def _outcome(row: tuple[Any, ...]) -> Outcome:
    number, message_id, state, reason, result, content_type = row
    return Outcome(number, MessageId(message_id), State(state), reason, result, content_type)


class Ends:
    """Ends of messages, and new beginnings."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def outcomes(
        self, sender: str, log: StoreId | None, after: int, limit: int, max_bytes: int = RECEIPTS_BYTES
    ) -> tuple[StoreId, list[Outcome]]:
        """The outcome log of a sender after number ``after``, from stable storage."""

        def look(connection: Connection) -> tuple[StoreId, int | None, bool, bool]:
            store = StoreId(bytes(connection.execute(sql.STORE).fetchall()[0][0]))
            number, last = connection.execute(sql.SENDER_LOG, (sender,)).fetchone() or (None, 0)
            kept = number is not None and bool(connection.execute(sql.OUTCOMES, (number, 0, 1)).fetchall())
            return store, number, kept, log == store and after > last

        store, number, any_kept, restored = self._engine.read(look)
        if restored:
            # The sender knows more of this log than we do: we came out of a backup. A new log begins.
            store = make_store_id()
            self._engine.write_durable(lambda connection: connection.execute(sql.SET_STORE, (store,)), relief=True)
        if number is None or not any_kept:
            return store, []
        known = after if log == store else 0

        def job(connection: Connection) -> list[Outcome]:
            if known > 0:
                connection.execute(sql.OUTCOMES_KNOWN, (number, known))
            with contextlib.closing(connection.execute(sql.OUTCOMES, (number, known, max(1, limit)))) as rows:
                page = first_page((_outcome(row) for row in rows), limit, max_bytes)
            # Other processes commit acknowledgements without a flush: this commit flushes them all.
            connection.execute(FLUSH)
            return page

        return store, self._engine.write_durable(job, relief=True)

    def sweep(self) -> float | None:
        """End expired messages, forget what is past its time; bounded work a call."""
        due = self._engine.read(self._next)
        if due is None or due > self._context.clock.now():
            return due

        def job(connection: Connection) -> float | None:
            book = self._book(connection)
            for (place,) in connection.execute(sql.EXPIRED, (book.now, SWEEP)).fetchall():
                book.expire(book.message(place))
            for (place,) in connection.execute(sql.FORGETTABLE, (book.now, SWEEP)).fetchall():
                _forget(book, book.message(place))
            for sender, _ in connection.execute(sql.SENDERS).fetchall():
                old = [
                    number
                    for number, at in connection.execute(sql.OLDEST_OUTCOME, (sender, SWEEP)).fetchall()
                    if at <= book.now - self._context.remember
                ]
                if old:
                    connection.execute(sql.OUTCOMES_KNOWN, (sender, old[-1]))
            book.close()
            return self._next(connection)

        result = self._engine.write(job)
        self._engine.space.keep_reserve()
        return result

    def _next(self, connection: Connection) -> float | None:
        times = [row[0] for query in (sql.NEXT_EXPIRED, sql.NEXT_FORGET) for row in connection.execute(query)]
        for sender, _ in connection.execute(sql.SENDERS).fetchall():
            oldest = connection.execute(sql.OLDEST_OUTCOME, (sender, 1)).fetchall()
            times += [at + self._context.remember for _, at in oldest]
        return min(times, default=None)

    def move(self, moves: Sequence[JobMove]) -> list[bool]:
        """Move each message that stands as it is given; see the contract."""

        def job(connection: Connection) -> list[bool]:
            book = self._book(connection)
            done = [_move(connection, book, move) for move in moves]
            book.close()
            return done

        return self._engine.write_durable(job, relief=all(move.to is not State.READY for move in moves))

    def wipe(self, selection: Selection) -> int:
        """Remove done and buried messages (never live ones)."""
        wanted = frozenset({State.DONE, State.BURIED, State.EXPIRED})

        def job(connection: Connection) -> int:
            book, gone = self._book(connection), 0
            if selection.states and not selection.states & wanted:
                return 0
            for row, _ in chosen(connection, selection, selection.states & wanted or wanted, book.now):
                _forget(book, row)
                gone += 1
            book.close()
            return gone

        return self._engine.write_durable(job, relief=True)

    def _book(self, connection: Connection) -> Book:
        return Book(connection, self._context, self._context.clock.now())


def _move(connection: Connection, book: Book, move: JobMove) -> bool:
    row = _find(connection, move.job)
    if row is None:
        return False
    stands, to = standing(connection, row, move.job.channel), move.to
    if (stands.state, stands.token) != (move.job.state, move.job.token):
        return False
    if to is None:
        if stands.state in SETTLED:
            _forget(book, row)
        return stands.state in SETTLED
    if not may_follow(JOB, stands.state, to):
        return False
    if to is State.EXPIRED:
        book.expire(row)
        return True
    attempts = stands.attempts if move.attempts is None else move.attempts
    history = with_line(stands.reason, move.reason)
    if stands.consumer is not None:
        connection.execute(sql.LEASES, (-1, stands.consumer))
    book.leave(row, to)
    if to is State.BURIED:
        book.bury(row, attempts, history, move.reason)
        return True
    if stands.state in {State.BURIED, State.LEASED}:
        book.date(row)
    if stands.state is State.BURIED and row.key is not None and not hold_key(connection, book, row):
        book.block(row, None)
    else:
        book.ready(row.place, attempts, history)
    return True


def _find(connection: Connection, job: JobInfo) -> MessageRow | None:
    found = connection.execute(sql.OF_CHANNEL, (job.channel, job.number)).fetchone()
    return MessageRow._make(found) if found is not None and found[1] == job.id else None


def _forget(book: Book, row: MessageRow) -> None:
    book.leave(row, State.DONE)
    book.remove(row)


def chosen(
    connection: Connection, selection: Selection, states: frozenset[State], now: float, after: int = 0
) -> Iterator[tuple[MessageRow, Standing]]:
    """Messages with a number above ``after`` that a selection means and that stand in one of
    ``states`` (empty: any), in order of arrival. They may be moved while this runs.
    """
    queues = queue_rows(connection)
    senders = None if selection.peer is None else [row[0] for row in connection.execute(sql.SENDER, (selection.peer,))]
    for row in _candidates(connection, selection, states, queues, after):
        if senders is not None and row.sender not in senders:
            continue
        channel = queues[row.place >> sql.N_BITS].channel
        if selection.channel is not None and channel != selection.channel:
            continue
        stands = standing(connection, row, channel)
        since = row.arrived if stands.at is None else stands.at
        if (not states or stands.state in states) and (
            selection.older_than is None or now - since >= selection.older_than
        ):
            yield row, stands


def _candidates(
    connection: Connection, selection: Selection, states: frozenset[State], queues: dict[int, QueueRow], after: int
) -> Iterator[MessageRow]:
    if selection.ids:
        rows = list(map(MessageRow._make, find_rows(connection, selection.ids)))
        yield from sorted((row for row in rows if row.place & sql.MASK > after), key=_number)
        return
    if states and states <= _TABLES.keys():  # few rows: read the tables of these states, not all messages
        queries: Sequence[str] = list(dict.fromkeys(query for state in states for query in _TABLES[state]))
    else:
        queries = (sql.MESSAGES,)
    wanted = [queue for queue in queues.values() if selection.channel in {None, queue.channel}]
    before = -1
    for row in heapq.merge(
        *(_walk(connection, query, queue, after) for queue in wanted for query in queries), key=_number
    ):
        if _number(row) != before:  # in two of the tables: what is buried has ended, and what moves meanwhile
            before = _number(row)
            yield row


def _walk(connection: Connection, query: str, queue: QueueRow, after: int) -> Iterator[MessageRow]:
    place = queue.start + after
    while page := connection.execute(query, (place, queue.end, PAGE)).fetchall():
        place = page[-1][0]
        for row in page:
            found = [row] if query is sql.MESSAGES else connection.execute(sql.MESSAGE, row).fetchall()
            yield from map(MessageRow._make, found)


def _number(row: MessageRow) -> int:
    return row.place & sql.MASK
