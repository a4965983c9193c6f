"""Consumers take messages.

Owns claim: which messages are next, and what a claim writes. Must not know how they are settled.
"""

import heapq
import os
from collections.abc import Iterator, Sequence
from itertools import compress, repeat
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Claim
from dropr_core.model.message import State
from dropr_core.model.names import MessageId
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.consumers import Consumers
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.files.column_reader import Reader
from dropr_storage_fs.files.layout import DUPLICATE, RECEIPT, Record, loads
from dropr_storage_fs.files.log_recovery import Place
from dropr_storage_fs.inbox.rows import Queue, Task, pack_runs
from dropr_storage_fs.inbox.state import InboxState


class ClaimPart:
    """`claim` of the inbox."""

    _half: Half
    _context: Context
    _consumers: Consumers
    _cursors: dict[int, tuple[int, Place]]
    _senders: dict[bytes, str]
    fresh: Any
    left: Any
    sender_of: Any
    move: Any
    end: Any

    def claim(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:
        """Lease up to ``limit`` messages, by priority, then by arrival."""
        self._half.enter(write=True)
        self._consumers.check(consumer)

        def job(commit: Commit) -> tuple[list[Claim], list[int]]:
            self._half.follow()
            return self._claim(commit, set(channels), limit, consumer)

        claims, behind = self._half.lazy(job)
        if not claims and behind:
            # Who appended died before the flush: what stands there is given only after one.
            def flush(commit: Commit) -> None:
                commit.touched.update({number: self._half.log(number) for number in behind})

            self._half.durable(flush)
            claims, _ = self._half.lazy(job)
        return claims

    def _claim(self, commit: Commit, channels: set[str], limit: int, consumer: str) -> tuple[list[Claim], list[int]]:
        state: InboxState = self._half.state
        self.expire(commit, None)
        self._wake(commit, channels)
        token = os.urandom(8)
        claims: list[Claim] = []
        behind: list[int] = []
        queues = sorted((queue for queue in state.numbers.values() if queue.channel in channels),
                        key=lambda queue: queue.priority)  # fmt: skip
        at = 0
        while at < len(queues) and len(claims) < limit:
            same = [queue for queue in queues[at:] if queue.priority == queues[at].priority]
            at += len(same)
            for queue in same:
                log = self._half.log(queue.number)
                if log.end[:2] > log.flushed[:2]:
                    behind.append(queue.number)
            self._claim_from(commit, same, limit - len(claims), consumer, token, claims)
        return claims, behind

    def _claim_from(
        self, commit: Commit, queues: list[Queue], limit: int, consumer: str, token: bytes, claims: list[Claim]
    ) -> None:
        """Of queues with one priority, in order of arrival."""
        if len(queues) == 1 and queues[0].tally[State.READY] == 0:
            queue = queues[0]
            taken = self._claim_plain(commit, queue, limit, consumer, token, claims) if self.left(queue) > 0 else 0
            if taken >= limit or self.left(queue) <= 0:
                return
            limit -= taken
        sources: list[Iterator[tuple[int, Queue, Record | None, Place | None]]] = []
        for queue in queues:
            if queue.tally[State.READY] > 0:
                sources.append(self._ready(queue))
            if self.left(queue) > 0:
                sources.append(self._fresh(queue))
        rows: Iterator[tuple[int, Queue, Record | None, Place | None]]
        rows = sources[0] if len(sources) == 1 else heapq.merge(*sources, key=lambda row: row[0])
        plain: dict[int, list[Record]] = {}
        known: list[int] = []
        places: dict[int, tuple[int, Place]] = {}
        state: InboxState = self._half.state
        for number, queue, record, where in rows:
            if limit <= 0:
                if where is not None:
                    mine = plain.get(queue.number)
                    if mine:
                        places[queue.number] = (mine[-1].sequence, where)
                break
            limit -= 1
            if record is None:
                known.append(number)
                task = state.tasks[number]
                envelope = self.body(task)
                again = bool(task.flags & DUPLICATE)
                claims.append(Claim(token, number, MessageId(task.id), queue.channel, queue.priority, task.sender,
                                    envelope, task.attempts + 1, again, task.arrived))  # fmt: skip
            else:
                plain.setdefault(queue.number, []).append(record)
                claims.append(Claim(token, number, MessageId(record.id), queue.channel, queue.priority,
                                    self._senders.get(record.extra) or self.sender_of(record), record.envelope, 1,
                                    record.flags & DUPLICATE != 0, record.born))  # fmt: skip
        for number in known:
            task = state.tasks[number]
            self.move(commit, task, State.LEASED, attempts=task.attempts + 1, token=token, consumer=consumer)
        for queue_number, records in plain.items():
            numbers = [record.sequence for record in records]
            receipts = [record.sequence for record in records if record.flags & RECEIPT]
            commit.do(["claim", token + queue_number.to_bytes(2, "big"), consumer, queue_number, numbers[-1],
                       pack_runs(numbers), receipts])  # fmt: skip
            self._cursors.update({queue_number: places[queue_number]} if queue_number in places else {})

    def _claim_plain(
        self, commit: Commit, queue: Queue, limit: int, consumer: str, token: bytes, claims: list[Claim]
    ) -> int:
        """Of a queue in which everything that is ready is plain, in one sweep. Returns how many."""
        log, after = self._half.log(queue.number), queue.frontier
        cursor = self._cursors.get(queue.number)
        start = cursor[1] if cursor is not None and cursor[0] == after else log.start(after + 1)
        found, following = self._reader.read(log, start, log.flushed, after, limit, 1 << 62)
        if not found.numbers:
            return 0
        last = found.numbers[-1]
        tasks, voids = self._half.state.tasks, queue.voids
        if tasks or voids:
            found = found.without(tasks, voids)
        numbers, flags = found.numbers, found.flags
        if not numbers:
            commit.do(["front", queue.number, last])
        else:
            receipts = list(compress(numbers, map(RECEIPT.__and__, flags)))
            key = token + queue.number.to_bytes(2, "big")
            commit.do(["claim", key, consumer, queue.number, last, pack_runs(numbers), receipts])
        names: dict[bytes, str] = {extra: loads(extra)[0] for extra in set(found.extras)}
        # In one sweep, without a line of Python for each: this is done for every message.
        columns = zip(
            repeat(token), numbers, found.ids, repeat(queue.channel), repeat(queue.priority),
            map(names.__getitem__, found.extras), found.envelopes, repeat(1), map(bool, map(DUPLICATE.__and__, flags)),
            found.born,
        )  # fmt: skip
        claims.extend(map(tuple.__new__, repeat(Claim), columns))
        self._cursors[queue.number] = (last, following)
        return len(numbers)

    _reader: Reader

    def body(self, task: Task) -> bytes:
        """The envelope of a message with a state of its own."""
        record = self._half.log(task.queue).record_at(task.at)
        return b"" if record is None else record.envelope

    def _ready(self, queue: Queue) -> Iterator[tuple[int, Queue, Record | None, Place | None]]:
        tasks = self._half.state.tasks
        numbers = sorted({number for number in queue.ready if (task := tasks.get(number)) is not None
                          and task.state is State.READY})  # fmt: skip
        queue.ready = numbers
        for number in list(numbers):
            yield number, queue, None, None

    def _fresh(self, queue: Queue) -> Iterator[tuple[int, Queue, Record | None, Place | None]]:
        for record, where in self.fresh(queue, queue.frontier, self._half.log(queue.number).flushed):
            yield record.sequence, queue, record, where

    def _wake(self, commit: Commit, channels: set[str]) -> None:
        """Move due delayed messages to ready."""
        state: InboxState = self._half.state
        now = self._context.clock.now()
        for channel in channels:
            heap = state.delayed.get(channel, [])
            while heap and heap[0][0] <= now:
                due, number = heapq.heappop(heap)
                task = state.tasks.get(number)
                if task is not None and task.state is State.DELAYED and task.due == due:
                    self.move(commit, task, State.READY)

    def expire(self, commit: Commit, limit: int | None) -> None:
        """End what is past its time and not leased."""
        state: InboxState = self._half.state
        now = self._context.clock.now()
        while state.timers and state.timers[0][0] <= now and (limit is None or limit > 0):
            moment, number = state.timers[0]
            task = state.tasks.get(number)
            if task is None or task.timer != moment:
                heapq.heappop(state.timers)
                continue
            if not task.live:
                if limit is None:
                    break  # `sweep` forgets it
                heapq.heappop(state.timers)
                commit.do(["drop", number])
            else:
                heapq.heappop(state.timers)
                self.end(commit, task, State.EXPIRED, self._context.remember, State.EXPIRED, "expired")
            if limit is not None:
                limit -= 1
