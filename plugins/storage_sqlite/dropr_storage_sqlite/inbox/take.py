"""Which messages one claim gets.

Owns `Taking`: ready messages of several queues in the right order, out of the two places where ready
messages are (behind the frontier, and the table of returned ones). Must not know consumers' rules.
"""

import os
from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from dropr_core.errors import StoreError
from dropr_storage_sqlite.engine.bulk import insert
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.rows import Book, MessageRow, QueueRow, consumer_of

DUE = 1000
"""Delayed messages that one claim moves at most for each queue."""

TakenRow = tuple[Any, ...]
"""place, id, sender, arrived, flags, expires, envelope, attempts, reason, rank"""


FreshRow = tuple[Any, ...]
"""place, id, sender, arrived, flags, envelope"""


class Taking:
    """One claim within one transaction."""

    def __init__(self, connection: Connection, book: Book, limit: int, count_changes: Callable[[], int]) -> None:
        """``count_changes``: how many rows were ever changed through this connection."""
        self._connection, self._book, self._limit = connection, book, limit
        self._count_changes = count_changes
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
        """Take what the common claim takes: from one queue, where nothing was returned, has a rank or may expire. In
        any other case nothing is taken.
        """
        ready = [queue for queue in queues if queue.ready]
        if len(ready) != 1:
            return False
        queue, after = ready[0], ready[0].start + ready[0].frontier
        values = (queue.number, after, queue.end, self._limit)
        rows = self._connection.execute(sql.FRESH_PLAIN, values).fetchall()
        if not rows or len(rows) < min(self._limit, queue.ready):
            return False
        self.queues[queue.number], self.fresh, self.after = queue, rows, after
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

    def close(self, name: str) -> None:
        """Write the leases of a consumer, and the counters."""
        if self.fresh:
            self._lease_fresh(name)
        if not self.rows:
            return
        token, counts, consumer = self.token, dict.fromkeys(self.queues, 0), consumer_of(self._connection, name)
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

    def _lease_fresh(self, name: str) -> None:
        """By the places between the first and the last one: a row for each would cost more than all the rest."""
        execute, count, last = self._connection.execute, len(self.fresh), self.fresh[-1][0]
        (queue,) = self.queues.values()
        found = execute(sql.LEASES_OF_NAME, (count, name)).fetchall()
        if not found:
            consumer_of(self._connection, name)
            found = execute(sql.LEASES_OF_NAME, (count, name)).fetchall()
        before = self._count_changes()
        execute(sql.LEASE_FRESH, (self.token, found[0][0], self.after, last))
        leased = self._count_changes() - before
        if leased != count:
            raise StoreError(f"{leased} leases for {count} messages of a claim; keep a copy and tell the authors")
        frontier = last & sql.MASK
        if count < self._limit and (queue.delayed or queue.blocked or queue.buried or queue.done or queue.expired):
            # Nothing is left but what is parked: past that, too, so that it is not looked at again and again.
            frontier = execute(sql.LAST).fetchall()[0][0]
        execute(sql.LEASED, (frontier, count, queue.number))
