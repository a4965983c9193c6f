"""Consumers take messages.

Owns `claim`: which messages are next, and what a claim writes. Must not know how they are settled.
"""

import heapq
import os
from collections.abc import Iterator, Sequence
from itertools import compress, repeat

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Claim
from dropr_core.model.message import State
from dropr_core.model.names import MessageId
from dropr_core.storage_kit.consumers import LockedConsumers
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.layout import DUPLICATE, RECEIPT, Record
from dropr_storage_fs.files.segment import Place
from dropr_storage_fs.inbox.moves import InboxCommit, Moves
from dropr_storage_fs.inbox.operations import Advance, LeasePlain, decode_extra
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.rows import Queue, pack_runs
from dropr_storage_fs.inbox.state import InboxState

Candidate = tuple[int, Queue, Record | None, Place | None]
"""Number, queue; record and place of a message that is simply ready."""


class Claiming:
    """`claim` of the inbox."""

    def __init__(
        self, engine: Engine[InboxState], context: Context, queues: QueueReader, moves: Moves, locks: LockedConsumers
    ) -> None:
        self._engine, self._context, self._queues, self._moves, self._locks = engine, context, queues, moves, locks

    def claim(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:
        """Lease up to ``limit`` messages, by priority, then by arrival."""
        self._engine.guard.enter(write=True)
        self._locks.check(consumer)

        def job(commit: InboxCommit) -> tuple[list[Claim], list[int]]:
            return self._claim(commit, set(channels), limit, consumer)

        claims, behind = self._engine.write(job)
        if not claims and behind:
            # Who appended died before the flush: what stands there is given only after one.
            def flush(commit: Commit[InboxState]) -> None:
                for number in behind:
                    commit.touch(number)

            self._engine.write_durable(flush)
            claims, _ = self._engine.write(job)
        return claims

    def _claim(
        self, commit: InboxCommit, channels: set[str], limit: int, consumer: str
    ) -> tuple[list[Claim], list[int]]:
        self._moves.expire(commit, None)
        self._wake(commit, channels)
        token = os.urandom(8)
        claims: list[Claim] = []
        behind: list[int] = []
        queues = sorted((queue for queue in commit.state.numbers.values() if queue.channel in channels),
                        key=lambda queue: queue.priority)  # fmt: skip
        at = 0
        while at < len(queues) and len(claims) < limit:
            same = [queue for queue in queues[at:] if queue.priority == queues[at].priority]
            at += len(same)
            for queue in same:
                if not commit.is_flushed(queue.number):
                    behind.append(queue.number)
            self._claim_from(commit, same, limit - len(claims), consumer, token, claims)
        return claims, behind

    def _claim_from(
        self, commit: InboxCommit, queues: list[Queue], limit: int, consumer: str, token: bytes, claims: list[Claim]
    ) -> None:
        """Of queues with one priority, in order of arrival."""
        if len(queues) == 1 and queues[0].tally[State.READY] == 0:
            queue = queues[0]
            ready = self._queues.left(queue) > 0
            taken = self._claim_plain(commit, queue, limit, consumer, token, claims) if ready else 0
            if taken >= limit or self._queues.left(queue) <= 0:
                return
            limit -= taken
        rows = self._candidates(commit.state, queues)
        plain: dict[int, list[Record]] = {}
        known: list[int] = []
        for number, queue, record, where in rows:
            if limit <= 0:
                mine = plain.get(queue.number)
                if where is not None and mine:
                    self._queues.read_up_to(queue, mine[-1].sequence, where)
                break
            limit -= 1
            if record is None:
                known.append(number)
                claims.append(self._claim_of(commit.state, number, queue, token))
            else:
                plain.setdefault(queue.number, []).append(record)
                claims.append(Claim(token, number, MessageId(record.id), queue.channel, queue.priority,
                                    self._queues.sender_of(record), record.envelope, 1,
                                    record.flags & DUPLICATE != 0, record.born))  # fmt: skip
        for number in known:
            job = commit.state.jobs[number]
            self._moves.move(commit, job, State.LEASED, attempts=job.attempts + 1, token=token, consumer=consumer)
        for queue_number, records in plain.items():
            numbers = [record.sequence for record in records]
            receipts = [record.sequence for record in records if record.flags & RECEIPT]
            key = lease_key(token, queue_number)
            commit.do(LeasePlain(key, consumer, queue_number, numbers[-1], pack_runs(numbers), receipts))

    def _candidates(self, state: InboxState, queues: list[Queue]) -> Iterator[Candidate]:
        """All that is ready, in order of arrival."""
        sources: list[Iterator[Candidate]] = []
        for queue in queues:
            if queue.tally[State.READY] > 0:
                sources.append(self._ready(state, queue))
            if self._queues.left(queue) > 0:
                sources.append(self._fresh(state, queue))
        return sources[0] if len(sources) == 1 else heapq.merge(*sources, key=lambda row: row[0])

    def _claim_of(self, state: InboxState, number: int, queue: Queue, token: bytes) -> Claim:
        """Of a message with a state of its own."""
        job = state.jobs[number]
        return Claim(token, number, MessageId(job.id), queue.channel, queue.priority, job.sender,
                     self._queues.body(job), job.attempts + 1, bool(job.flags & DUPLICATE), job.arrived)  # fmt: skip

    def _claim_plain(
        self, commit: InboxCommit, queue: Queue, limit: int, consumer: str, token: bytes, claims: list[Claim]
    ) -> int:
        """Of a queue in which everything that is ready is plain, in one sweep. Returns how many."""
        found, following = self._queues.columns(queue, limit)
        if not found.numbers:
            return 0
        last = found.numbers[-1]
        jobs, voids = commit.state.jobs, queue.voids
        if jobs or voids:
            found = found.without(jobs, voids)
        numbers, flags = found.numbers, found.flags
        if not numbers:
            commit.do(Advance(queue.number, last))
        else:
            receipts = list(compress(numbers, map(RECEIPT.__and__, flags)))
            key = lease_key(token, queue.number)
            commit.do(LeasePlain(key, consumer, queue.number, last, pack_runs(numbers), receipts))
        names: dict[bytes, str] = {extra: decode_extra(extra).sender for extra in set(found.extras)}
        # In one sweep, without a line of Python for each: this is done for every message.
        columns = zip(
            repeat(token), numbers, found.ids, repeat(queue.channel), repeat(queue.priority),
            map(names.__getitem__, found.extras), found.envelopes, repeat(1), map(bool, map(DUPLICATE.__and__, flags)),
            found.born,
        )  # fmt: skip
        claims.extend(map(tuple.__new__, repeat(Claim), columns))
        self._queues.read_up_to(queue, last, following)
        return len(numbers)

    def _ready(self, state: InboxState, queue: Queue) -> Iterator[Candidate]:
        """Messages with a state of their own."""
        numbers = sorted({number for number in queue.ready if (job := state.jobs.get(number)) is not None
                          and job.state is State.READY})  # fmt: skip
        queue.ready = numbers
        for number in list(numbers):
            yield number, queue, None, None

    def _fresh(self, state: InboxState, queue: Queue) -> Iterator[Candidate]:
        """Those that are simply ready."""
        flushed = self._engine.log(queue.number).flushed
        for record, where in self._queues.fresh(state, queue, queue.frontier, flushed):
            yield record.sequence, queue, record, where

    def _wake(self, commit: InboxCommit, channels: set[str]) -> None:
        """Move due delayed messages to ready."""
        state = commit.state
        now = self._context.clock.now()
        for channel in channels:
            heap = state.delayed.get(channel, [])
            while heap and heap[0][0] <= now:
                due, number = heapq.heappop(heap)
                job = state.jobs.get(number)
                if job is not None and job.state is State.DELAYED and job.due == due:
                    self._moves.move(commit, job, State.READY)


def lease_key(token: bytes, queue: int) -> bytes:
    """The name of the part of a claim that came from one queue."""
    return token + queue.to_bytes(2, "big")
