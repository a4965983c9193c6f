"""Which messages one claim gets.

Owns `Taking`: ready messages of several queues in the right order, out of the two places where ready
messages are (behind the frontier, and the table of returned ones). Must not know consumers' rules.
"""

import os
from collections import Counter
from operator import itemgetter
from typing import Any

from dropr_core.errors import StoreError
from dropr_storage_sqlite.engine.bulk import insert
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.rows import Book, MessageRow, QueueRow

DUE = 1000
"""Delayed messages that one claim moves at most for each queue."""

MANY = 16
"""From so many on it pays to see whether a claim is a common one."""

TakenRow = tuple[Any, ...]
"""place, id, sender, arrived, flags, expires, envelope, attempts, reason, rank"""


FreshRow = tuple[Any, ...]
"""place, id, sender, arrived, flags, envelope"""


class Taking:
    """One claim within one transaction."""

    def __init__(self, connection: Connection, book: Book, limit: int) -> None:
        self._connection, self._book, self._limit = connection, book, limit
        self.token = os.urandom(8)
        self.rows: list[TakenRow] = []
        self.fresh: list[FreshRow] = []
        """Instead of rows: all that was taken, first tries of one queue that have no life, behind ``after``."""
        self.after = 0
        self.queues: dict[int, QueueRow] = {}
        self._returned: list[tuple[int]] = []

    def level(self, queues: list[QueueRow]) -> None:
        """Take from queues of the same priority: what has no rank in order of arrival, then the others by rank."""
        self.queues.update((queue.number, queue) for queue in queues if queue.ready)
        frontiers = {queue.number: queue.frontier for queue in queues if queue.ready}
        while (room := self._limit - len(self.rows)) > 0 and frontiers:
            returned, fresh = self._find(frontiers, room)
            rows = self._merge(returned, fresh)[:room] if returned or len(frontiers) > 1 else fresh
            self._advance(frontiers, {row[0] for row in returned}, rows, all_taken=len(rows) < room)
            self._keep(rows)
            if len(rows) < room:
                self._by_rank([queue for queue in queues if queue.ready])
                return

    def all_fresh(self, queues: list[QueueRow]) -> bool:
        """Take what the common claim of many takes: from one queue, where nothing was returned, has a rank or may
        expire. In any other case nothing is taken.
        """
        ready = [queue for queue in queues if queue.ready]
        if self._limit < MANY or len(ready) != 1:
            return False
        queue, execute = ready[0], self._connection.execute
        if execute(sql.NEXT_EXPIRED).fetchall() or execute(sql.RETURNED, (queue.number, 1)).fetchall():
            return False
        rows = execute(sql.FRESH_PLAIN, (queue.start + queue.frontier, queue.end, self._limit)).fetchall()
        if not rows or len(rows) < min(self._limit, queue.ready):
            return False
        self.queues[queue.number], self.fresh, self.after = queue, rows, queue.start + queue.frontier
        self._advance({queue.number: queue.frontier}, set(), rows, all_taken=len(rows) < self._limit)
        return True

    def _by_rank(self, queues: list[QueueRow]) -> None:
        taken = Counter(row[0] >> sql.N_BITS for row in self.rows) if queues else Counter[int]()
        queues = [queue for queue in queues if taken[queue.number] < queue.ready]
        while queues and (room := self._limit - len(self.rows)) > 0:
            found = [
                row for queue in queues
                for row in self._connection.execute(sql.BY_RANK, (queue.number, room)).fetchall()
            ]  # fmt: skip
            if len(queues) > 1:
                found.sort(key=lambda row: (row[9], row[0] & sql.MASK))
            rows = found[:room]
            self._returned = [(row[0],) for row in rows]
            self._keep(rows)
            if len(rows) < room:
                return

    def _find(self, frontiers: dict[int, int], room: int) -> tuple[list[TakenRow], list[TakenRow]]:
        execute, returned, fresh = self._connection.execute, [], []
        for number, frontier in frontiers.items():
            queue = self.queues[number]
            returned += execute(sql.RETURNED, (number, room)).fetchall()
            fresh += execute(sql.FRESH, (queue.start + frontier, queue.end, room)).fetchall()
        return returned, fresh

    def _merge(self, returned: list[TakenRow], fresh: list[TakenRow]) -> list[TakenRow]:
        return sorted(returned + fresh, key=lambda row: row[0] & sql.MASK)

    def _advance(self, frontiers: dict[int, int], returned: set[int], rows: list[TakenRow], *, all_taken: bool) -> None:
        """Move the frontiers past what is taken; past everything, parked ones too, where nothing is left."""
        new = dict(frontiers)
        if all_taken:
            last = self._connection.execute(sql.LAST).fetchall()[0][0]
            new = dict.fromkeys(frontiers, last)
        elif not returned and len(frontiers) == 1:
            new = dict.fromkeys(frontiers, rows[-1][0] & sql.MASK)
        else:
            for row in rows:
                if row[0] not in returned:
                    new[row[0] >> sql.N_BITS] = row[0] & sql.MASK
        for number, frontier in new.items():
            if frontier != frontiers[number]:
                self._connection.execute(sql.ADVANCE, (frontier, number))
                frontiers[number] = frontier
        self._returned = [(row[0],) for row in rows if row[0] in returned] if returned else []

    def _keep(self, rows: list[TakenRow]) -> None:
        if self._returned:
            self._connection.executemany(sql.UNREADY, self._returned)
        now = self._book.now
        if not any(map(itemgetter(5), rows)):
            self.rows += rows
            return
        for row in rows:
            if row[5] is None or row[5] > now:
                self.rows.append(row)
                if row[5] is not None:
                    self._connection.execute(sql.UNEXPIRE, (row[5], row[0]))
            else:
                self._book.expire(self._book.message(row[0]))

    def take(self, queue: QueueRow, row: MessageRow, attempts: int, reason: str) -> None:
        """Take one given message, which stands in no state any more."""
        execute = self._connection.execute
        self.queues[queue.number] = queue
        (envelope,) = execute(sql.ENVELOPE_AT, (row.place,)).fetchall()[0]
        rank = execute(sql.RANK_AT, (row.place,)).fetchone() if row.flags & sql.RANKED else None
        taken = (row.place, row.id, row.sender, row.arrived, row.flags, row.expires, envelope, attempts, reason)
        self.rows.append((*taken, None if rank is None else rank[0]))

    def close(self, consumer: int) -> None:
        """Write the leases and the counters."""
        if self.fresh:
            self._lease_fresh(consumer)
        if not self.rows:
            return
        token, counts = self.token, dict.fromkeys(self.queues, 0)
        leases = []
        for place, _, _, _, flags, _, _, attempts, reason, _ in self.rows:
            leases.append((place, token, consumer, attempts + 1, flags, reason))
            counts[place >> sql.N_BITS] += 1
        insert(self._connection, sql.LEASE, leases)
        self._connection.execute(sql.LEASES, (len(leases), consumer))
        for queue, count in counts.items():
            if count:
                self._book.count(queue, "ready", -count)
                self._book.count(queue, "leased", count)

    def _lease_fresh(self, consumer: int) -> None:
        """By the places between the first and the last one: a row for each would cost more than all the rest."""
        count, last, (number,) = len(self.fresh), self.fresh[-1][0], self.queues
        before = self._connection.total_changes()
        self._connection.execute(sql.LEASE_FRESH, (self.token, consumer, self.after, last))
        leased = self._connection.total_changes() - before
        if leased != count:
            raise StoreError(f"{leased} leases for {count} messages of a claim; keep a copy and tell the authors")
        self._connection.execute(sql.LEASES, (count, consumer))
        self._book.count(number, "ready", -count)
        self._book.count(number, "leased", count)
