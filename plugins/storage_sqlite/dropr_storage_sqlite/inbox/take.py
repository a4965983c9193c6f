"""Which messages one claim gets.

Owns `Taking`: ready messages of several queues in the right order, out of the two places where ready
messages are (behind the frontier, and the table of returned ones). Must not know consumers' rules.
"""

import os
from collections import Counter
from operator import itemgetter
from typing import Any

from dropr_storage_sqlite.engine.bulk import insert
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.rows import Book, MessageRow, QueueRow

DUE = 1000
"""Delayed messages that one claim moves at most for each queue."""

TakenRow = tuple[Any, ...]
"""place, id, sender, arrived, flags, expires, envelope, attempts, reason, rank"""


class Taking:
    """One claim within one transaction."""

    def __init__(self, connection: Connection, book: Book, limit: int) -> None:
        self._connection, self._book, self._limit = connection, book, limit
        self.token = os.urandom(8)
        self.rows: list[TakenRow] = []
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
