"""Filling the inbox: the receiver's half of the log-matching rule.

Owns accept, put and heads: message and head in one transaction, so that nothing enters twice.
Must not know peers, frames or consumers.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.inbox_records import PlainJobs, refusal
from dropr_core.contracts.storage import Accepted, Arrival, Job, Put
from dropr_core.errors import StoreError
from dropr_core.model.names import START, Head, MessageId, SourceLane, StoreId, first_rank, priority_of
from dropr_core.storage_kit.group_commit import BatchedJob
from dropr_core.storage_kit.limits import Amount, check_inbox
from dropr_storage_sqlite.engine.bulk import insert, insert_alike
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.rising import Rise
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.ids import find_same, rise_of, set_milestones
from dropr_storage_sqlite.inbox.rows import Book, MessageRow, QueueRow, queue_of


class Acceptor:
    """What the endpoint does with arrivals."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def heads(self, sender: str, store: StoreId | None = None) -> dict[SourceLane, Head]:
        """Every head known for a sender (and one of its store ids), on stable storage: the peer that is told it forgets
        what stands before.
        """
        query, values = (sql.HEADS, (sender,)) if store is None else (sql.HEADS_OF_STORE, (sender, store))
        rows = self._engine.look(query, values)
        self._engine.settle_seen()
        return {
            SourceLane(name, StoreId(kept), channel, priority): Head(seq, MessageId(identity))
            for name, kept, channel, priority, seq, identity in rows
        }

    def accept(
        self, arrivals: Sequence[Arrival], seen: Callable[[Sequence[Accepted]], None] | None = None
    ) -> list[Accepted]:
        """The log-matching rule, all arrivals in one durable transaction. ``seen``: told when others can claim them."""
        if any(arrival.entries for arrival in arrivals):
            self._engine.space.check()
        return self._promised(self._engine.write_flushed(BatchedJob(self._accept_all, arrivals, seen)))

    def accept_together(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """The same, but all arrivals or none."""
        if any(arrival.entries for arrival in arrivals):
            self._engine.space.check()

        def job(connection: Connection) -> list[Accepted]:
            return refusal(arrivals, lambda lane: _head(connection, lane)) or self._accept(connection, arrivals)

        return self._promised(self._engine.write_durable(job))

    def _promised(self, words: list[Accepted]) -> list[Accepted]:
        """A refusal names a head that somebody else may not have flushed yet."""
        if not all([word.taken for word in words]):  # noqa: C419 -- faster
            self._engine.settle_seen()
        return words

    def _accept_all(self, connection: Connection, calls: list[Sequence[Arrival]]) -> list[list[Accepted]]:
        return [self._accept(connection, arrivals) for arrivals in calls]

    def _accept(self, connection: Connection, arrivals: Sequence[Arrival]) -> list[Accepted]:
        connection = self._engine.frugal(connection)
        filling = Filling(connection, self._context)
        results = []
        for arrival in arrivals:
            head = _head(connection, arrival.source)
            if head != arrival.after:
                results.append(Accepted(head, False))
                continue
            source = arrival.source
            if arrival.entries:
                filling.add(source.channel, priority_of(source.priority), source.sender, arrival.entries)
            connection.execute(sql.SET_HEAD, (*source, *arrival.upto))
            results.append(Accepted(arrival.upto, True))
        filling.close()
        return results

    def put_all(self, puts: Sequence[Put]) -> list[Sequence[int]]:
        """Queue jobs that come from this node itself; durable, all or none."""
        if not any(put.jobs for put in puts):
            return [() for _ in puts]
        self._engine.space.check()

        def job(connection: Connection) -> list[Sequence[int]]:
            filling = Filling(connection, self._context)
            numbers = [filling.add(*put) if put.jobs else () for put in puts]
            filling.close()
            return numbers

        return self._engine.write_durable(job)


class Filling:
    """New messages within one transaction."""

    def __init__(self, connection: Connection, context: Context) -> None:
        self._connection, self._context = connection, context
        self._now = context.clock.now()
        self._book = Book(connection, context, self._now)
        self._more: dict[str, Amount] = {}

    def add(self, channel: str, priority: int, sender: str, jobs: Sequence[Job]) -> Sequence[int]:
        """Queue jobs of one sender on one channel. Returns their numbers."""
        connection, now = self._connection, self._now
        queue, end = queue_of(connection, channel, priority)
        source = sender_of(connection, sender)
        number = connection.execute(sql.NUMBERS, (len(jobs),)).fetchall()[0][0] - len(jobs)
        if number > sql.MASK - len(jobs):
            raise StoreError("the inbox has run out of numbers")
        place, size, plain = queue.start + number, 0, 0
        numbers: Sequence[int] = range(number + 1, number + 1 + len(jobs))
        standing = dict[int, int]()
        rows: list[tuple[Any, ...]] = []
        is_first = (None, first_rank(priority)).__contains__
        rise = rise_of(connection, queue.number, end, number, jobs[0].id)
        # In columns: else what is done for each costs more than all the rest.
        if isinstance(jobs, PlainJobs) and self._add_plain(queue, source, place, jobs, rise):
            return numbers
        for at, (message_id, envelope, _, key, receipt, due_in, expires_in, duplicate, rank) in enumerate(jobs):
            place += 1
            if key is None and due_in is None and expires_in is None and not duplicate and is_first(rank):
                length, flags = len(envelope), 1 if receipt else 0
                if not rise.add(place, message_id):
                    flags |= sql.APART
                rows.append((place, message_id, source, now, flags, length, None, None, envelope))
                size += length
                plain += 1
            elif duplicate and (stands := self._stands(queue.number, rise, message_id, envelope, rows)):
                standing[at] = stands
                place -= 1
            else:
                flags = (sql.RECEIPT if receipt else 0) | (sql.DUPLICATE if duplicate else 0)
                if not rise.add(place, message_id):
                    flags |= sql.APART
                expires = None if expires_in is None else now + expires_in
                if not is_first(rank):
                    flags |= sql.RANKED | sql.PARKED
                    connection.execute(sql.RANK, (place, rank))
                row = MessageRow(place, message_id, source, now, flags, len(envelope), key, expires)
                rows.append((*self._place(queue, row, due_in), envelope))
                size += row.size
        self._check_room(channel, len(rows), size)
        insert(connection, sql.INSERT, rows)
        set_milestones(connection, queue.number, queue.frontier, rise)
        self._book.count(queue.number, "ready", plain)
        self._book.count(queue.number, "bytes", size)
        if standing:  # they need no number of their own
            connection.execute(sql.NUMBERS, (-len(standing),)).fetchall()
            fresh = iter(numbers)
            return [standing[at] if at in standing else next(fresh) for at in range(len(numbers))]
        return numbers

    def _add_plain(self, queue: QueueRow, source: int, place: int, jobs: PlainJobs, rise: Rise) -> bool:
        """Those of which there is nothing to say, behind a place. False, and nothing done, if their ids do not rise."""
        apart = rise.add_all(place + 1, jobs.ids)
        if apart is None:
            return False
        sizes, count = list(map(len, jobs.envelopes)), len(jobs)
        self._check_room(queue.channel, count, sum(sizes))
        places = range(place + 1, place + 1 + count)
        flags = sql.RECEIPT if jobs.receipt else 0
        if jobs.rank is not None and jobs.rank != queue.first_rank:
            flags |= sql.RANKED | sql.PARKED
            ranks = [(one, jobs.rank) for one in places]
            self._connection.executemany(sql.READY_RANKED, ranks)
            insert(self._connection, sql.RANK, ranks)
        rows = zip(places, jobs.ids, sizes, jobs.envelopes, strict=True)
        if apart:  # others were faster, and theirs are higher
            common = (source, self._now, flags | sql.APART)
            insert_alike(self._connection, sql.INSERT_PLAIN, common, islice(rows, apart), apart)
        if apart < count:
            insert_alike(self._connection, sql.INSERT_PLAIN, (source, self._now, flags), rows, count - apart)
        set_milestones(self._connection, queue.number, queue.frontier, rise)
        self._book.count(queue.number, "ready", count)
        self._book.count(queue.number, "bytes", sum(sizes))
        return True

    def _stands(self, queue: int, rise: Rise, message_id: bytes, envelope: bytes, rows: list[tuple[Any, ...]]) -> int:
        """The number of this very message, if it is here already, else 0 (same id, other content: keep both)."""
        place = find_same(self._connection, queue, rise, message_id, envelope)
        if place is None:
            place = next((row[0] for row in rows if row[1] == message_id and row[-1] == envelope), 0)
        return place & sql.MASK

    def _place(self, queue: QueueRow, row: MessageRow, due_in: float | None) -> MessageRow:
        """Enter a message with a key, a delay or an expiry into its state; returns it with its flags."""
        flags, due = row.flags, None if due_in is None or due_in <= 0 else row.arrived + due_in
        if row.expires is not None:
            flags |= sql.DATED
            self._book.date(row)
        blocked = False
        if row.key is not None:
            flags |= sql.KEYED
            blocked = bool(self._connection.execute(sql.HOLDER, (queue.channel, row.key)).fetchall())
            if blocked:
                self._book.block(row, due)
            else:
                self._connection.execute(sql.SET_HOLDER, (queue.channel, row.key, row.place))
        if not blocked:
            if due is None and flags & sql.RANKED:
                self._book.ready(row.place, 0, "")
                return row._replace(flags=flags)
            if due is None:
                self._book.count(queue.number, "ready")
                return row._replace(flags=flags)
            self._book.delay(row.place, due, 0, "")
        return row._replace(flags=flags | sql.PARKED)

    def _check_room(self, channel: str, count: int, size: int) -> None:
        before = self._more.get(channel, (0, 0))
        self._more[channel] = (before[0] + count, before[1] + size)
        check_inbox(self._context, self._more, self._kept)

    def _kept(self, _: str, name: str) -> Amount:
        query, values = (sql.TOTAL_OF_CHANNEL, (name,)) if name else (sql.TOTAL, ())
        messages, size = self._connection.execute(query, values).fetchall()[0]
        return messages, size

    def close(self) -> None:
        """Write the counters; the last thing in the transaction."""
        self._book.close()


def _head(connection: Connection, lane: SourceLane) -> Head:
    """The head kept for a lane."""
    found = connection.execute(sql.HEAD, lane).fetchone()
    return START if found is None else Head(found[0], MessageId(found[1]))


def sender_of(connection: Connection, name: str) -> int:
    """The number of a sender, made if it is new."""
    found = connection.execute(sql.SENDER, (name,)).fetchone()
    return int(found[0] if found is not None else connection.execute(sql.NEW_SENDER, (name,)).fetchall()[0][0])
