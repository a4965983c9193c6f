"""Messages that arrive.

Owns the log-matching rule, duplicates, and in which state a message begins. Must not know consumers.
"""

import os
from collections.abc import Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.inbox_records import refusal
from dropr_core.contracts.records import PlainJobs
from dropr_core.contracts.storage import Accepted, Arrival, Job, Put
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, SourceLane, StoreId, first_rank, priority_of
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files import shared
from dropr_storage_fs.files.layout import DUPLICATE, RECEIPT, RECORD_SIZE, SPECIAL, Row, UniformRows, encode
from dropr_storage_fs.inbox.limits import Limits
from dropr_storage_fs.inbox.operations import Arrive, HeadRow, Intent, MakeQueue, MoveHead, TrueHead, encode_frame_extra
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.remembered import PastJobs
from dropr_storage_fs.inbox.rows import Queue
from dropr_storage_fs.inbox.state import InboxState

QueueKey = tuple[str, int]
"""Channel and priority."""


class Accepting:
    """What fills the inbox."""

    def __init__(
        self, engine: Engine[InboxState], context: Context, queues: QueueReader, limits: Limits, past: PastJobs
    ) -> None:
        self._engine, self._context, self._queues, self._limits, self._past = engine, context, queues, limits, past

    def heads(self, sender: str, store: StoreId | None) -> dict[SourceLane, Head]:
        """Every head known for a sender (and one of its store ids). Who reads it forgets what stands before, so it is
        told only when it is on stable storage.
        """

        def find(state: InboxState) -> dict[SourceLane, Head]:
            known = state.heads.items()
            return {at: head for at, head in known if at.sender == sender and store in {None, at.store}}

        def look(state: InboxState) -> dict[SourceLane, Head] | None:
            found = find(state)
            if self._context.read_only or not any(self._is_behind(state, source) for source in found):
                return found
            return None

        def job(commit: Commit[InboxState]) -> dict[SourceLane, Head]:
            found = find(commit.state)
            for source in found:
                self._rely_on(commit, source)
            return found

        found = self._engine.read(look)
        return self._engine.write_durable(job, reserve=True) if found is None else found

    def _is_behind(self, state: InboxState, source: SourceLane) -> bool:
        """Whether the head of a lane may be undone yet."""
        queue = state.queues.get((source.channel, priority_of(source.priority)))
        return not (self._engine.journal_is_flushed() if queue is None else self._engine.is_flushed(queue.number))

    def _rely_on(self, commit: Commit[InboxState], source: SourceLane) -> None:
        """Flush the head of a lane with this commit, whoever wrote it: another may be about to, and fail."""
        if self._is_behind(commit.state, source):
            queue = commit.state.queues.get((source.channel, priority_of(source.priority)))
            if queue is None:
                commit.journalled = True
            else:
                commit.touch(queue.number)

    def accept(self, arrivals: Sequence[Arrival], *, together: bool = False) -> list[Accepted]:
        """The log-matching rule, all arrivals in one durable transaction; ``together``: all or none."""
        self._engine.guard.enter(write=True)
        if any(arrival.entries for arrival in arrivals):
            self._engine.space.check()
        return self._engine.write_durable(
            lambda commit: (self._refuse(commit, arrivals) if together else None) or self._accept(commit, arrivals)
        )

    def _refuse(self, commit: Commit[InboxState], arrivals: Sequence[Arrival]) -> list[Accepted] | None:
        refused = refusal(arrivals, lambda source: commit.state.heads.get(source, START))
        if refused is not None:
            for arrival in arrivals:
                self._rely_on(commit, arrival.source)
        return refused

    def _accept(self, commit: Commit[InboxState], arrivals: Sequence[Arrival]) -> list[Accepted]:
        heads: dict[SourceLane, Head] = {}
        answers: list[Accepted] = []
        filling = Filling(self._engine, self._context, self._queues, self._limits, self._past, commit)
        for arrival in arrivals:
            source = arrival.source
            kept = heads.get(source) or commit.state.heads.get(source, START)
            taken = arrival.after == kept
            if taken:
                kept = heads[source] = arrival.upto
                filling.add(source.channel, priority_of(source.priority), source.sender, arrival.entries)
                filling.head(source, arrival.upto)
            else:
                self._rely_on(commit, source)
            answers.append(Accepted(kept, taken))
        filling.write()
        return answers

    def put_all(self, puts: Sequence[Put]) -> list[Sequence[int]]:
        """Queue jobs that come from this node itself; durable, all or none."""
        self._engine.guard.enter(write=True)
        if not any(put.jobs for put in puts):
            return [() for _ in puts]
        self._engine.space.check()

        def job(commit: Commit[InboxState]) -> list[Sequence[int]]:
            filling = Filling(self._engine, self._context, self._queues, self._limits, self._past, commit)
            spots = [filling.add(*put) for put in puts]
            filling.write()
            return [filling.numbers((put.channel, put.priority), mine) for put, mine in zip(puts, spots, strict=True)]

        return self._engine.write_durable(job)


class Filling:
    """New messages within one commit."""

    def __init__(
        self, engine: Engine[InboxState], context: Context, queues: QueueReader, limits: Limits, past: PastJobs,
        commit: Commit[InboxState],
    ) -> None:  # fmt: skip
        self._engine, self._queues, self._limits, self._past, self._commit = engine, queues, limits, past, commit
        self._now = context.clock.now()
        self._rows: dict[QueueKey, Sequence[Row]] = {}
        self._heads: dict[QueueKey, list[HeadRow]] = {}
        self._special = False
        self._firsts: dict[QueueKey, int] = {}

    def head(self, source: SourceLane, upto: Head) -> None:
        """The head that an arrival leaves."""
        heads = self._heads.setdefault((source.channel, priority_of(source.priority)), [])
        heads[:] = [one for one in heads if one[:4] != source]  # two parts of one lane leave one head
        heads.append(HeadRow(*source, *upto))

    def add(self, channel: str, priority: int, sender: str, jobs: Sequence[Job]) -> Sequence[int]:
        """Queue jobs of one sender on one channel. Returns for `numbers` which of their queue each is, or with a minus
        the number of the message that it already is.
        """
        key = (channel, priority)
        before = self._rows.get(key, ())
        plain = encode((sender,))
        first = first_rank(priority)
        if isinstance(jobs, PlainJobs) and not before and jobs.rank in {None, first}:
            self._rows[key] = UniformRows(jobs.ids, jobs.envelopes, RECEIPT if jobs.receipt else 0, plain)
            return range(len(jobs))
        rows = self._rows[key] = list(before)
        now, standing = self._now, dict[int, int]()
        for at, (identity, envelope, _, order, receipt, due_in, expires_in, duplicate, rank) in enumerate(jobs):
            flags, extra = RECEIPT if receipt else 0, plain
            if duplicate:
                stands = self._stands(identity, envelope)
                if stands >= 0:
                    self._rely_on_all()
                    standing[at] = -stands
                    continue
                flags |= DUPLICATE
            own_rank = rank is not None and rank != first
            if order is not None or expires_in is not None or (due_in is not None and due_in > 0) or own_rank:
                flags |= SPECIAL
                self._special = True
                due = now + max(0.0, due_in or 0.0)
                expires = None if expires_in is None else now + expires_in
                extra = encode((sender, order, due, expires, rank) if own_rank else (sender, order, due, expires))
            rows.append((identity, flags, extra, envelope))
        fresh = range(len(before), len(rows))
        if not standing:
            return fresh
        following = iter(fresh)
        return [standing[at] if at in standing else next(following) for at in range(len(jobs))]

    def _rely_on_all(self) -> None:
        """What is told to be here is flushed with this commit: whoever put it may be about to, and fail."""
        for number in self._commit.state.logs():
            if not self._commit.is_flushed(number):
                self._commit.touch(number)

    def _stands(self, identity: bytes, envelope: bytes) -> int:
        """The number of this very message, if it is here already: live, or done and kept; 0 if it comes in this very
        commit; else -1.
        """
        state = self._commit.state
        here = [state.jobs[number] for number in state.by_id.get(identity, ())]
        here += [past.record for past in self._past.named(state, identity)]
        for job in here:
            if job.state not in {State.BURIED, State.EXPIRED}:
                record = self._commit.log(job.queue).reader.record_at(job.at)
                if record is not None and record.envelope == envelope:
                    return job.number
        if any(row[0] == identity and row[3] == envelope for rows in self._rows.values() for row in rows):
            return 0
        found = (record for _, record, _ in self._queues.find(state, identity) if record.envelope == envelope)
        return next((record.sequence for record in found), -1)

    def write(self) -> None:
        """Number and write it all."""
        commit, state = self._commit, self._commit.state
        self._limits.check(state, self._rows)
        alone = [key for key in self._heads if not self._rows.get(key) and key not in state.queues]
        for key in alone:
            # Nothing came on a channel that nothing ever came on: it gets no queue, the journal alone has the head.
            for head in self._heads.pop(key):
                commit.do(TrueHead(*head))
        keys = {**self._rows, **self._heads}
        parts = {key: self._rows.get(key, ()) for key in keys if self._rows.get(key) or self._heads.get(key)}
        for key in parts:
            if key not in state.queues:
                if len(state.queues) >= shared.MAX_LOGS:
                    raise StoreError(f"more than {shared.MAX_LOGS} queues: use fewer channels")
                commit.do(MakeQueue(len(state.queues), *key))
        number = self._engine.last_number()
        firsts = self._firsts
        for key, rows in parts.items():
            firsts[key] = number + 1
            number += len(rows)
        # The journal is written first: what it has already, the rest of this call must follow, whoever is killed.
        transaction = os.urandom(8) if len(parts) + bool(alone) > 1 else b""
        if transaction:
            for key, rows in parts.items():
                queue, heads = state.queues[key].number, self._heads.get(key, [])
                commit.intend(Intent(queue, firsts[key], list(rows), self._now, heads, transaction))
        commit.write()
        for key, rows in parts.items():
            self._write(state.queues[key], rows, firsts[key], self._heads.get(key, []), transaction)
        self._engine.set_last_number(number)

    def numbers(self, key: QueueKey, spots: Sequence[int]) -> Sequence[int]:
        """The numbers of what `add` told, once it is written."""
        first = self._firsts.get(key, 0)
        if isinstance(spots, range):
            return range(first + spots.start, first + spots.stop)
        return [-spot if spot < 0 else first + spot for spot in spots]

    def _write(self, queue: Queue, rows: Sequence[Row], first: int, heads: list[HeadRow], transaction: bytes) -> None:
        now, commit = self._now, self._commit
        commit.frame(queue.number, first, now, rows, encode_frame_extra(heads, transaction))
        for head in heads:
            commit.note(MoveHead(*head))
        if self._special:
            lengths = [RECORD_SIZE + len(row[2]) + len(row[3]) for row in rows]
            end = commit.end(queue.number)
            at = end.written - sum(lengths)
            for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                if row[1] & SPECIAL:
                    commit.note(Arrive(queue.number, first + index, row[0], row[1], now, row[2], len(row[3]),
                                       end.segment, at))  # fmt: skip
                at += length
