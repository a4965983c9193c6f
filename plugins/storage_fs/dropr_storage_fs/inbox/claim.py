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
from dropr_core.model.names import LAST_RANK, LOWEST_PRIORITY, MessageId, first_rank, priority_of_rank
from dropr_core.storage_kit.consumers import LockedConsumers
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.layout import DUPLICATE, RECEIPT, Record
from dropr_storage_fs.files.segment import Place
from dropr_storage_fs.inbox.moves import InboxCommit, Moves
from dropr_storage_fs.inbox.operations import Advance, LeasePlain, decode_extra
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.remembered import PastJobs
from dropr_storage_fs.inbox.rows import JobRecord, Queue, pack_runs
from dropr_storage_fs.inbox.state import InboxState

Candidate = tuple[int, Queue | None, Record | None, Place | None]
"""Number; queue, record and place of a message that is simply ready."""


class Claiming:
    """`claim` of the inbox."""

    def __init__(
        self, engine: Engine[InboxState], context: Context, queues: QueueReader, moves: Moves, locks: LockedConsumers,
        past: PastJobs,
    ) -> None:  # fmt: skip
        self._engine, self._context, self._queues, self._moves, self._locks = engine, context, queues, moves, locks
        self._past = past

    def claim(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:
        """Lease up to ``limit`` messages, by priority, then by rank, then by arrival."""
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
        state = commit.state
        levels: dict[int, list[Queue]] = {}
        for queue in state.numbers.values():
            if queue.channel in channels:
                levels.setdefault(queue.priority, []).append(queue)
        ranked = sorted(channels & state.ranked.keys())  # few have a rank of their own
        for priority in range(LOWEST_PRIORITY + 1) if ranked else sorted(levels):
            if len(claims) >= limit:
                break
            same = levels.get(priority, [])
            for queue in same:
                if not commit.is_flushed(queue.number):
                    behind.append(queue.number)
            if not any(state.first_by_rank(channel) for channel in ranked):
                ranked = []
            if same or ranked:
                self._claim_from(commit, same, ranked, priority, limit - len(claims), consumer, token, claims)
        return claims, behind

    def claim_number(self, number: int, consumer: str) -> Claim | None:
        """Lease one given message that is ready, delayed or buried."""
        self._engine.guard.enter(write=True)
        self._locks.check(consumer)
        return self._engine.write(lambda commit: self._claim_number(commit, number, consumer))

    def _claim_number(self, commit: InboxCommit, number: int, consumer: str) -> Claim | None:
        self._moves.expire(commit, None)
        state = commit.state
        job, attempts = state.jobs.get(number), None
        if job is None and (past := self._past.numbered(state, number)) and past.record.state is State.BURIED:
            self._past.recall(commit, past.found)
            job = state.jobs[number]
        if job is None and (plain := self._queues.numbered(state, number, flushed=True)) is not None:
            job = self._moves.materialise_ready(commit, *plain)
        if job is None or job.state not in {State.READY, State.DELAYED, State.BURIED}:
            return None
        if job.state is State.BURIED:
            if job.key is not None and state.busy(state.numbers[job.queue].channel, job.key):
                return None
            attempts = 0
        if job.state is not State.READY:
            self._moves.move(commit, job, State.READY, attempts=attempts)
        return self._lease(commit, job, os.urandom(8), consumer)

    def _claim_from(
        self, commit: InboxCommit, queues: list[Queue], ranked: list[str], priority: int, limit: int, consumer: str,
        token: bytes, claims: list[Claim],
    ) -> None:  # fmt: skip
        """Of queues with one priority, by rank and arrival. ``ranked``: channels of which messages have another rank
        than the first of their queue.
        """
        state, before, first = commit.state, len(claims), first_rank(priority)
        tops = {channel: state.first_by_rank(channel) for channel in ranked}
        ahead = [channel for channel, top in tops.items() if top is not None and top[0] <= first]
        self._claim_first(commit, queues, ahead, first, limit, consumer, token, claims)
        limit -= len(claims) - before
        while limit > 0 and ranked:
            found = [(*one, channel) for channel in ranked if (one := state.first_by_rank(channel)) is not None]
            rank, number, channel = min(found, default=(LAST_RANK + 1, 0, ""))
            if rank > LAST_RANK or priority_of_rank(rank) != priority:
                break
            state.take_by_rank(channel)
            claims.append(self._lease(commit, state.jobs[number], token, consumer))
            limit -= 1

    def _lease(self, commit: InboxCommit, job: JobRecord, token: bytes, consumer: str) -> Claim:
        claim = self._claim_of(commit.state, job.number, token)
        self._moves.move(commit, job, State.LEASED, attempts=job.attempts + 1, token=token, consumer=consumer)
        return claim

    def _claim_first(
        self, commit: InboxCommit, queues: list[Queue], ranked: list[str], first: int, limit: int, consumer: str,
        token: bytes, claims: list[Claim],
    ) -> None:  # fmt: skip
        """Of queues with one priority, in order of arrival, what has its first rank."""
        if len(queues) == 1 and not (queues[0].ready and queues[0].tally[State.READY]) and not ranked:
            only = queues[0]
            ready = self._queues.left(only) > 0
            taken = self._claim_plain(commit, only, limit, consumer, token, claims) if ready else 0
            if taken >= limit or self._queues.left(only) <= 0:
                return
            limit -= taken
        took: dict[int, str] = {}
        rows = self._candidates(commit.state, queues, ranked, first, took)
        plain: dict[int, list[Record]] = {}
        known: list[int] = []
        for number, queue, record, where in rows:
            if limit <= 0:
                mine = None if queue is None else plain.get(queue.number)
                if queue is not None and where is not None and mine:
                    self._queues.read_up_to(queue, mine[-1].sequence, where)
                break
            limit -= 1
            if record is None or queue is None:
                known.append(number)
                claims.append(self._claim_of(commit.state, number, token))
            else:
                plain.setdefault(queue.number, []).append(record)
                claims.append(Claim(token, number, MessageId(record.id), queue.channel, queue.priority,
                                    self._queues.sender_of(record), record.envelope, 1,
                                    record.flags & DUPLICATE != 0, record.born, first))  # fmt: skip
        for number in took.keys() - set(known):
            commit.state.give_back_by_rank(took[number], first, number)
        for number in known:
            job = commit.state.jobs[number]
            self._moves.move(commit, job, State.LEASED, attempts=job.attempts + 1, token=token, consumer=consumer)
        for queue_number, records in plain.items():
            numbers = [record.sequence for record in records]
            receipts = [record.sequence for record in records if record.flags & RECEIPT]
            key = lease_key(token, queue_number)
            commit.do(LeasePlain(key, consumer, queue_number, numbers[-1], pack_runs(numbers), receipts))

    def _candidates(
        self, state: InboxState, queues: list[Queue], ranked: list[str], first: int, took: dict[int, str]
    ) -> Iterator[Candidate]:
        """All that is ready and has the first rank of a priority, in order of arrival. ``took``: what of it was in
        `InboxState.ranked`, and is not any more.
        """
        sources: list[Iterator[Candidate]] = [self._at_rank(state, channel, first, took) for channel in ranked]
        for queue in queues:
            if queue.ready and queue.tally[State.READY] > 0:
                sources.append(self._ready(state, queue))
            if self._queues.left(queue) > 0:
                sources.append(self._fresh(state, queue))
        return sources[0] if len(sources) == 1 else heapq.merge(*sources, key=lambda row: row[0])

    def _claim_of(self, state: InboxState, number: int, token: bytes) -> Claim:
        """Of a message with a state of its own."""
        job = state.jobs[number]
        channel = state.numbers[job.queue].channel
        return Claim(token, number, MessageId(job.id), channel, state.priority(job), job.sender, self._queues.body(job),
                     job.attempts + 1, bool(job.flags & DUPLICATE), job.arrived, state.rank(job))  # fmt: skip

    @staticmethod
    def _at_rank(state: InboxState, channel: str, rank: int, took: dict[int, str]) -> Iterator[Candidate]:
        """Messages that were given this rank, in order of arrival."""
        while (found := state.first_by_rank(channel)) is not None and found[0] <= rank:
            state.take_by_rank(channel)
            if found[1] not in took:
                took[found[1]] = channel
                yield found[1], None, None, None

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
            found.born, repeat(queue.first_rank),
        )  # fmt: skip
        claims.extend(map(tuple.__new__, repeat(Claim), columns))
        self._queues.read_up_to(queue, last, following)
        return len(numbers)

    def _ready(self, state: InboxState, queue: Queue) -> Iterator[Candidate]:
        """Messages with a state of their own."""
        numbers = sorted({number for number in queue.ready if (job := state.jobs.get(number)) is not None
                          and job.state is State.READY and job.rank is None})  # fmt: skip
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
