"""Messages that arrive.

Owns the log-matching rule, limits, duplicates, and in which state a message begins. Must not know consumers.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import PlainJobs
from dropr_core.contracts.storage import Accepted, Arrival, Job
from dropr_core.errors import QueueFull, StoreError
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, SourceLane, StoreId, priority_of
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.files import shared
from dropr_storage_fs.files.layout import DUPLICATE, RECEIPT, RECORD_SIZE, SPECIAL, Alike, Record, Row, encode
from dropr_storage_fs.files.log_recovery import Place
from dropr_storage_fs.inbox.rows import Queue
from dropr_storage_fs.inbox.state import InboxState


class AcceptPart:
    """What fills the inbox."""

    _half: Half
    _context: Context

    def heads(self, sender: str, store: StoreId | None = None) -> dict[SourceLane, Head]:
        """Every head known for a sender (and one of its store ids)."""

        def job() -> dict[SourceLane, Head]:
            known = self._half.state.heads.items()
            return {at: head for at, head in known if at.sender == sender and store in {None, at.store}}

        return self._half.look(job)

    def accept(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """The log-matching rule, all arrivals in one durable transaction; see the contract."""
        self._half.enter(write=True)
        if any(arrival.entries for arrival in arrivals):
            self._half.space.check()
        return self._half.durable(lambda commit: self._accept(commit, arrivals))

    def _accept(self, commit: Commit, arrivals: Sequence[Arrival]) -> list[Accepted]:
        self._half.follow()
        state: InboxState = self._half.state
        heads: dict[SourceLane, Head] = {}
        words: list[Accepted] = []
        filling = Filling(self, commit, self._half, self._context)
        for arrival in arrivals:
            source = arrival.source
            kept = heads.get(source) or state.heads.get(source, START)
            taken = arrival.after == kept
            if taken:
                kept = heads[source] = arrival.upto
                filling.add(source.channel, priority_of(source.priority), source.sender, arrival.entries, source,
                            arrival.upto)  # fmt: skip
            words.append(Accepted(kept, taken))
        filling.close()
        return words

    def put(self, channel: str, priority: int, sender: str, jobs: Sequence[Job]) -> None:
        """Queue jobs that come from this node itself; durable."""
        self._half.enter(write=True)
        if not jobs:
            return
        self._half.space.check()

        def job(commit: Commit) -> None:
            self._half.follow()
            filling = Filling(self, commit, self._half, self._context)
            filling.add(channel, priority, sender, jobs, None, START)
            filling.close()

        self._half.durable(job)

    def find(self, identity: bytes) -> Iterator[tuple[Queue, Record, Place]]:
        """Every message with an id that is simply ready, or leased with others."""
        state: InboxState = self._half.state
        for queue in state.numbers.values():
            log = self._half.log(queue.number)
            mine = [lease.live for lease in state.leases.values() if lease.queue == queue.number]
            lowest = min([queue.frontier, *(min(live) - 1 for live in mine if live)])
            if log.end.count <= queue.taken and not mine:
                continue
            for record, where in log.find(identity, lowest, log.end):
                if self.stands(queue, record.sequence):
                    yield queue, record, where

    def stands(self, queue: Queue, number: int) -> bool:
        """Whether a message is simply ready, or leased with others."""
        state: InboxState = self._half.state
        if number in state.tasks:
            return False
        if number > queue.frontier and number not in queue.voids:
            return True
        return any(number in lease.live for lease in state.leases.values() if lease.queue == queue.number)


class Filling:
    """New messages within one commit."""

    def __init__(self, inbox: AcceptPart, commit: Commit, half: Half, context: Context) -> None:
        self._inbox, self._commit, self._half, self._context = inbox, commit, half, context
        self._now = context.clock.now()
        self._state: InboxState = half.state
        self._rows: dict[tuple[str, int], Sequence[Row]] = {}
        self._heads: dict[tuple[str, int], list[list[Any]]] = {}
        self._special = False

    def add(
        self, channel: str, priority: int, sender: str, jobs: Sequence[Job], source: SourceLane | None, upto: Head
    ) -> None:
        """Queue jobs of one sender on one channel."""
        key = (channel, priority)
        before = self._rows.get(key, ())
        heads = self._heads.setdefault(key, [])
        if source is not None:
            heads[:] = [one for one in heads if one[:4] != list(source)]  # two parts of one lane leave one head
            heads.append([*source, *upto])
        plain = encode([sender])
        if isinstance(jobs, PlainJobs) and not before:
            self._rows[key] = Alike(jobs.ids, jobs.envelopes, RECEIPT if jobs.receipt else 0, plain)
            return
        rows = self._rows[key] = list(before)
        now = self._now
        for identity, envelope, _, order, receipt, due_in, expires_in, duplicate in jobs:
            flags, extra = RECEIPT if receipt else 0, plain
            if duplicate:
                if self._stands(identity, envelope):
                    continue
                flags |= DUPLICATE
            if order is not None or expires_in is not None or (due_in is not None and due_in > 0):
                flags |= SPECIAL
                self._special = True
                due = now + max(0.0, due_in or 0.0)
                extra = encode([sender, order, due, None if expires_in is None else now + expires_in])
            rows.append((identity, flags, extra, envelope))

    def _stands(self, identity: bytes, envelope: bytes) -> bool:
        """Whether this very message is here already: live, or done and kept."""
        for number in self._state.by_id.get(identity, ()):
            task = self._state.tasks[number]
            if task.state not in {State.BURIED, State.EXPIRED}:
                record = self._half.log(task.queue).record_at(task.at)
                if record is not None and record.envelope == envelope:
                    return True
        if any(row[0] == identity and row[3] == envelope for rows in self._rows.values() for row in rows):
            return True
        return any(record.envelope == envelope for _, record, _ in self._inbox.find(identity))

    def close(self) -> None:
        """Number and write it all."""
        self._check_room()
        half, commit, state = self._half, self._commit, self._state
        parts = {key: rows for key, rows in self._rows.items() if rows or self._heads[key]}
        for key in parts:
            if key not in state.queues:
                if len(state.queues) >= shared.MAX_LOGS:
                    raise StoreError(f"more than {shared.MAX_LOGS} queues: use fewer channels")
                commit.do(["queue", len(state.queues), *key])
        number = int(half.words[shared.NUMBER])
        firsts: dict[tuple[str, int], int] = {}
        for key, rows in parts.items():
            firsts[key] = number + 1
            number += len(rows)
        transaction = os.urandom(8) if len(parts) > 1 else b""
        if transaction:
            for key, rows in parts.items():
                queue = state.queues[key].number
                commit.do(["intent", queue, firsts[key], list(rows), self._now, self._heads[key], transaction])
        commit.write()
        for key, rows in parts.items():
            self._write(state.queues[key], rows, firsts[key], self._heads[key], transaction)
        half.words[shared.NUMBER] = number

    def _write(self, queue: Queue, rows: Sequence[Row], first: int, heads: list[list[Any]], transaction: bytes) -> None:
        now, commit = self._now, self._commit
        log = self._half.log(queue.number)
        extra = encode([heads, transaction]) if heads or transaction else b""
        commit.frame(queue.number, first, now, rows, extra)
        for head in heads:
            commit.note(["head", *head])
        if self._special:
            lengths = [RECORD_SIZE + len(row[2]) + len(row[3]) for row in rows]
            end = log.end
            at = end.written - sum(lengths)
            for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                if row[1] & SPECIAL:
                    commit.note(["arrived", queue.number, first + index, row[0], row[1], now, row[2], len(row[3]),
                                 end.segment, at])  # fmt: skip
                at += length

    def _check_room(self) -> None:
        context = self._context
        if context.max_messages is None and context.max_bytes is None and not context.channel_limits:
            return
        coming: dict[str, list[int]] = {}
        for (channel, _), rows in self._rows.items():
            mine = coming.setdefault(channel, [0, 0])
            mine[0] += len(rows)
            mine[1] += sum(len(row[3]) for row in rows)
        if not any(more[0] for more in coming.values()):
            return
        if context.max_messages is not None or context.max_bytes is not None:
            total = [sum(more[index] for more in coming.values()) for index in (0, 1)]
            self._check(f"the inbox of {context.node}", (context.max_messages, context.max_bytes), None, total)
        for channel in set(coming) & set(context.channel_limits):
            self._check(f"channel {channel}", context.channel_limits[channel], channel, coming[channel])

    def _check(self, what: str, limit: tuple[int | None, int | None], channel: str | None, more: list[int]) -> None:
        have = [0, 0]
        for queue in self._state.numbers.values():
            if channel in {None, queue.channel}:
                end = self._half.log(queue.number).end
                live = sum(count for state, count in queue.tally.items() if state in
                           {State.READY, State.BLOCKED, State.DELAYED, State.LEASED})  # fmt: skip
                have[0] += end.count - queue.taken + live + queue.leased
                have[1] += end.bytes - queue.gone_bytes - queue.dead_bytes
        for unit, most, now, new in zip(("messages", "bytes"), limit, have, more, strict=True):
            if most is not None and now + new > most:
                raise QueueFull(
                    f"{what}: {now} {unit} are waiting, {new} more would be over the limit of {most}; "
                    "try again when some were processed, or raise the limit"
                )
