"""Emptying the inbox: claims and what becomes of them.

Owns claim, settle and holds. Every change of a leased message compares its token first; a stale
token changes nothing. Must not know what a consumer does with a message.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import repeat
from operator import itemgetter

from dropr_core.contracts.context import Context
from dropr_core.contracts.lease_sheets import Noted
from dropr_core.contracts.storage import Ack, Claim, Release, Settlement
from dropr_core.model.message import State
from dropr_core.storage_kit.consumers import LockedConsumers
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.rows import Book, MessageRow, QueueRow, hold_key, standing, with_line
from dropr_storage_sqlite.inbox.take import DUE, Taking

_SPECIAL = sql.RECEIPT | sql.KEYED | sql.RANKED
LOOKS = 16
"""So many claims look before they write after one that did not look, and found nothing: others were faster."""
_CLAIMABLE = frozenset({State.READY, State.DELAYED, State.BURIED})

_Held = tuple[int, int, int, str, int]
"""place, attempts, flags, reason, consumer"""


class Leases:
    """What consumers do with messages."""

    def __init__(self, engine: Engine, context: Context, consumers: LockedConsumers) -> None:
        self._engine, self._context, self._consumers = engine, context, consumers
        self._names: dict[int, str] = {}
        self._arrivals = -1
        """How many there had been before the last claim."""
        self._looks_left = 0
        """So many claims more look before they write."""

    def claim(self, channels: Sequence[str], limit: int, consumer: str, *, settled: bool = True) -> list[Claim]:
        """Lease up to ``limit`` messages, by priority, then by rank, then by arrival; ``settled``: which are on stable
        storage.
        """
        if limit <= 0:
            return []
        self._engine.guard.enter(write=True)
        self._consumers.check(consumer)

        if self._looks_first() and not any(map(self._waits, dict.fromkeys(channels))):
            return []
        if settled:
            claims, owed = self._engine.write(
                lambda connection: (self._claim(connection, channels, limit, consumer), self._engine.owed())
            )
            self._engine.settle(owed)
        else:
            claims = self._engine.write(lambda connection: self._claim(connection, channels, limit, consumer))
        if not claims:
            self._looks_left = LOOKS
        return claims

    def _looks_first(self) -> bool:
        """An empty queue is looked at often; it must not cost a write. But what has arrived since the last claim is
        most likely what somebody was woken for.
        """
        before, self._arrivals = self._arrivals, self._engine.company.arrivals()
        if self._looks_left:
            self._looks_left -= 1
            return True
        return before == self._arrivals

    def _waits(self, channel: str) -> bool:
        """Whether there is something to claim."""
        queues = list(map(QueueRow._make, self._engine.look(sql.QUEUES_OF, (channel,))))
        if any([queue.ready for queue in queues]):  # noqa: C419 -- faster
            return True
        now = self._context.clock.now()
        due = [row[0] for queue in queues if queue.delayed for row in self._engine.look(sql.NEXT_DELAYED, queue[:1])]
        return any(when <= now for when in due)

    def _claim(self, writer: Connection, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:
        connection = self._engine.frugal(writer)
        book = Book(connection, self._context, self._context.clock.now())
        queues = _queues_of(connection, channels)
        if any(queue.delayed for queue in queues):
            self._return_due(connection, book, queues)
            queues = _queues_of(connection, channels)
        taking = Taking(connection, book, limit, writer.total_changes)
        if not taking.all_fresh(queues):
            levels: dict[int, list[QueueRow]] = {}
            for queue in queues:
                levels.setdefault(queue.priority, []).append(queue)
            for priority in sorted(levels):
                taking.level(levels[priority])
        taking.close(consumer)
        book.close()
        return self._claims(connection, taking)

    @staticmethod
    def _return_due(connection: Connection, book: Book, queues: Sequence[QueueRow]) -> None:
        """Make delayed messages ready whose time has come."""
        for queue in queues:
            if queue.delayed:
                for place, attempts, reason in connection.execute(
                    sql.DELAYED_DUE, (queue.number, book.now, DUE)
                ).fetchall():
                    connection.execute(sql.UNDELAY, (place,))
                    book.count(queue.number, "delayed", -1)
                    book.ready(place, attempts, reason)
        book.close()

    def claim_number(self, number: int, consumer: str) -> Claim | None:
        """Lease one given message that is ready, delayed or buried."""
        self._engine.guard.enter(write=True)
        self._consumers.check(consumer)
        if not 0 < number <= sql.MASK:
            return None

        def job(connection: Connection) -> Claim | None:
            found = connection.execute(sql.BY_NUMBER, (number,)).fetchone()
            if found is None:
                return None
            row, book = MessageRow._make(found), Book(connection, self._context, self._context.clock.now())
            queue = book.queue(row.place >> sql.N_BITS)
            stands = standing(connection, row, queue.channel)
            expired = row.expires is not None and row.expires <= book.now and stands.state is not State.BURIED
            if stands.state not in _CLAIMABLE or expired:
                return None
            attempts = stands.attempts
            if stands.state is State.BURIED:
                if row.key is not None and not hold_key(connection, book, row):
                    return None
                attempts = 0
            book.leave(row, State.READY if stands.state is not State.READY else State.LEASED)
            book.undate(row)
            taking = Taking(connection, book, 1, connection.total_changes)
            taking.take(queue, row, attempts, stands.reason)
            taking.close(consumer)
            book.count(queue.number, "ready")  # `close` counts it out of there
            book.close()
            return self._claims(connection, taking)[0]

        return self._engine.write(job)

    def _fresh_claims(self, connection: Connection, taking: Taking) -> list[Claim]:
        """In columns: what is done for every message costs more than all the rest."""
        (queue,), count, rows = taking.queues.values(), len(taking.fresh), taking.fresh
        if count == 1:  # where somebody waits for it
            place, identity, sender, arrived, flag, envelope = rows[0]
            name, doubtful = self._name(connection, sender), flag & sql.DUPLICATE != 0
            return [Claim(taking.token, place - queue.start, identity, queue.channel, queue.priority, name, envelope, 1,
                          doubtful, arrived, queue.first_rank)]  # fmt: skip
        # Picked, which is faster than to transpose it with `zip`.
        places, ids, senders, arrived, flags, envelopes = (list(map(itemgetter(at), rows)) for at in range(6))
        taking.fresh = rows = []  # the fewer objects are alive, the less often Python looks for cycles among them
        names: Iterable[str] = repeat(self._name(connection, senders[0]))
        if senders.count(senders[0]) < count:
            names = [self._name(connection, sender) for sender in senders]
        doubled: Iterable[bool] = repeat(False)
        if max(flags) >= sql.DUPLICATE:
            doubled = [flag & sql.DUPLICATE != 0 for flag in flags]
        start = queue.start
        columns = zip(
            repeat(taking.token), [place - start for place in places], ids, repeat(queue.channel),
            repeat(queue.priority), names, envelopes, repeat(1), doubled, arrived, repeat(queue.first_rank),
        )  # fmt: skip
        return list(map(tuple.__new__, repeat(Claim), columns))

    def _name(self, connection: Connection, sender: int) -> str:
        name = self._names.get(sender)
        if name is None:
            name = self._names[sender] = connection.execute(sql.SENDER_NAME, (sender,)).fetchall()[0][0]
        return name

    def _claims(self, connection: Connection, taking: Taking) -> list[Claim]:
        if taking.fresh:
            return self._fresh_claims(connection, taking)
        token, duplicate, mask = taking.token, sql.DUPLICATE, sql.MASK
        make = tuple.__new__  # a third of the time of the named way, and this is done for every message
        first_ranks = {number: queue.first_rank for number, queue in taking.queues.items()}
        claims = []
        for place, message_id, sender, arrived, flags, _, envelope, attempts, _, own in taking.rows:
            queue = taking.queues[place >> sql.N_BITS]
            name = self._name(connection, sender)
            rank = first_ranks[queue.number] if own is None else own
            claims.append(
                make(Claim, (token, place & mask, message_id, queue.channel, queue.priority, name, envelope,
                             attempts + 1, flags & duplicate != 0, arrived, rank))
            )  # fmt: skip
        return claims

    def settle(self, changes: Sequence[Settlement]) -> list[bool]:
        """Apply each change whose lease still holds (True); the others change nothing (False)."""
        if not changes:
            return []
        return self._engine.write(
            lambda connection: self._settle_whole(connection, changes) or self._settle(connection, changes)
        )

    def acknowledge(self, claims: Sequence[Claim]) -> list[bool]:
        """`settle` with an `Ack` without result and retention for each; most often all that one claim gave."""
        if not claims:
            return []
        return self._engine.write(
            lambda connection: (
                self._acknowledge_whole(connection, claims)
                or self._settle(connection, [Ack(claim, None, "", 0.0) for claim in claims])
            )
        )

    def _settle_whole(self, connection: Connection, changes: Sequence[Settlement]) -> list[bool]:
        """`_acknowledge_whole`, if nothing but plain acknowledgements is asked for."""
        if any([type(change) is not Ack or change.keep for change in changes]):  # noqa: C419 -- faster
            return []
        return self._acknowledge_whole(connection, [change.claim for change in changes])

    def _acknowledge_whole(self, connection: Connection, claims: Sequence[Claim]) -> list[bool]:
        """The common case, without a look at each row: all that one claim gave of one queue is plainly
        acknowledged. Empty if it is another case; nothing was changed then.
        """
        (token, _, _, channel, priority, *_), count = claims[0], len(claims)
        # Compared in columns: this is done for every message.
        for at, value in ((0, token), (3, channel), (4, priority)):
            if list(map(itemgetter(at), claims)).count(value) < count:
                return []
        column = list(map(itemgetter(1), claims))
        size = sum(map(len, map(itemgetter(6), claims)))
        run = column == list(range(column[0], column[0] + count))  # as most often: in order, without gaps
        numbers: Collection[int] = column if run else set(column)
        queue = connection.execute(sql.QUEUE, (channel, priority)).fetchone()
        if queue is None or len(numbers) != count:
            return []
        low, high = sql.pack(queue[0], min(column)), sql.pack(queue[0], max(column))
        held, special, consumer, ranked = connection.execute(sql.HELD_SUM, (low, high, token)).fetchall()[0]
        if held != count or special:
            return []
        # Without gaps, so many leases are these very messages. With gaps another of the same claim may be meant.
        if high - low + 1 != count:
            places = {row[0] for row in connection.execute(sql.HELD, (low, high, token))}
            if places != {sql.pack(queue[0], number) for number in numbers}:
                return []
        book = Book(connection, self._context, self._context.clock.now())
        connection.execute(sql.UNLEASE_RANGE, (low, high, token))
        connection.execute(sql.LEASES, (-count, consumer))
        book.count(queue[0], "leased", -count)
        if high - low + 1 == count:
            connection.execute(sql.REMOVE_RANGE, (low, high))
        else:
            connection.executemany(sql.REMOVE, [(sql.pack(queue[0], number),) for number in numbers])
        if ranked:
            connection.executemany(sql.UNRANK, [(sql.pack(queue[0], number),) for number in numbers])
        book.count(queue[0], "processed", count)
        book.count(queue[0], "bytes", -size)
        book.close()
        return [True] * count

    def _settle(self, connection: Connection, changes: Sequence[Settlement]) -> list[bool]:
        results = [False] * len(changes)
        queues: dict[tuple[str, int], int | None] = {}
        tokens: dict[bytes, list[tuple[int, int]]] = {}
        for index, change in enumerate(changes):
            claim = change.claim
            key = (claim.channel, claim.priority)
            if key not in queues:
                found = connection.execute(sql.QUEUE, key).fetchone()
                queues[key] = None if found is None else found[0]
            queue = queues[key]
            if queue is not None:
                tokens.setdefault(claim.token, []).append(((queue << sql.N_BITS) | claim.number, index))
        book = Book(connection, self._context, self._context.clock.now())
        for token, places in tokens.items():
            low, high = min(places)[0], max(places)[0]
            held: dict[int, _Held] = {row[0]: row for row in connection.execute(sql.HELD, (low, high, token))}
            all_held, changed = len(held), []
            plain: dict[int, list[tuple[int, int]]] = {}
            for place, index in places:
                row = held.pop(place, None)
                if row is None:
                    continue
                results[index] = True
                changed.append(row)
                change = changes[index]
                if type(change) is Ack and not row[2] & _SPECIAL and not change.keep:
                    plain.setdefault(place >> sql.N_BITS, []).append((place, len(change.claim.envelope)))
                else:
                    self._settle_one(book, change, row)
            if not changed:
                continue
            if len(changed) == all_held:
                connection.execute(sql.UNLEASE_RANGE, (low, high, token))
            else:
                connection.executemany(sql.UNLEASE, [(row[0],) for row in changed])
            connection.execute(sql.LEASES, (-len(changed), changed[0][4]))
            for row in changed:
                book.count(row[0] >> sql.N_BITS, "leased", -1)
            for queue, rows in plain.items():
                _remove(connection, book, queue, rows)
        book.close()
        return results

    def _settle_one(self, book: Book, change: Settlement, held: _Held) -> None:
        place, attempts, _, history, _ = held
        row = book.message(place)
        if not isinstance(change, Ack) and change.rank is not None:
            row = book.rerank(row, change.rank)
            place = row.place
        if isinstance(change, Release):
            attempts -= not change.counted
            book.delay(place, book.now + max(0.0, change.delay), attempts, with_line(history, change.reason))
            book.date(row)
        elif isinstance(change, Ack):
            acknowledge(book, row, change, attempts, history)
        else:
            book.bury(row, attempts, with_line(history, change.reason), change.reason)

    def holds(self, claim: Claim) -> bool:
        """Whether the lease still holds."""

        def job(connection: Connection) -> bool:
            queue = connection.execute(sql.QUEUE, (claim.channel, claim.priority)).fetchone()
            if queue is None:
                return False
            found = connection.execute(sql.LEASE_AT, (sql.pack(queue[0], claim.number),)).fetchone()
            return found is not None and bytes(found[3]) == claim.token

        return self._engine.read(job)


def acknowledge(book: Book, row: MessageRow, change: Ack | Noted, attempts: int, history: str) -> None:
    """Done, by the word of its consumer or of its lease sheet."""
    book.outcome(row, State.PROCESSED, change.reason, change.result, change.content_type)
    book.count(row.place >> sql.N_BITS, "processed")
    book.free_key(row)
    if change.keep > 0:
        book.keep_done(row, change.keep, attempts, history)
    else:
        book.remove(row)


def end_lease(connection: Connection, book: Book, place: int) -> MessageRow:
    """Take a message out of its lease without a look at the token; the caller gives it its next state."""
    row = book.message(place)
    connection.execute(sql.UNLEASE, (place,))
    book.count(place >> sql.N_BITS, "leased", -1)
    book.date(row)
    return row


def _queues_of(connection: Connection, channels: Sequence[str]) -> list[QueueRow]:
    return [
        QueueRow._make(row)
        for channel in dict.fromkeys(channels)
        for row in connection.execute(sql.QUEUES_OF, (channel,)).fetchall()
    ]


def _remove(connection: Connection, book: Book, queue: int, rows: list[tuple[int, int]]) -> None:
    """Delete acknowledged messages that nobody asked a receipt for."""
    first, last = min(rows)[0], max(rows)[0]
    if last - first + 1 == len(rows):
        connection.execute(sql.REMOVE_RANGE, (first, last))
    else:
        connection.executemany(sql.REMOVE, [(place,) for place, _ in rows])
    book.count(queue, "processed", len(rows))
    book.count(queue, "bytes", -sum(size for _, size in rows))
