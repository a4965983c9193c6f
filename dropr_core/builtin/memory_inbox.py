"""The inbox of the storage ``memory``.

Owns the jobs of each channel as one dict of number → job. Written to be read beside
contracts/storage.py: each method does what its contract says and nothing clever.
"""

import itertools
import os
import threading
from collections.abc import Iterable, Mapping, Sequence

import attrs

from dropr_core.builtin.memory_data import InboxData, Task
from dropr_core.builtin.memory_gate import Gate
from dropr_core.contracts.context import Context
from dropr_core.contracts.inbox_records import refusal
from dropr_core.contracts.storage import (
    Accepted,
    Ack,
    Arrival,
    Claim,
    Inbox,
    Job,
    JobInfo,
    JobMove,
    Put,
    Release,
    Selection,
    Settlement,
)
from dropr_core.errors import Closed
from dropr_core.model.limits import RECEIPTS_BYTES
from dropr_core.model.message import Outcome, State, first_page
from dropr_core.model.names import (
    START,
    Head,
    MessageId,
    SourceLane,
    StoreId,
    first_rank,
    make_store_id,
    priority_of,
    priority_of_rank,
)
from dropr_core.model.states import JOB, may_follow
from dropr_core.storage_kit.limits import Amount, check_inbox


class MemoryConsumers:
    """Those of one inbox object; the medium knows all that live."""

    def __init__(self, living: set[str], gate: Gate) -> None:
        self._living, self._gate = living, gate
        self._mine: set[str] = set()

    def register(self, label: str) -> str:
        with self._gate.writing():
            consumer = f"{label}{'.' if label else ''}{os.urandom(6).hex()}"
            self._living.add(consumer)
            self._mine.add(consumer)
            return consumer

    def release(self, consumer: str) -> None:
        self._living.discard(consumer)
        self._mine.discard(consumer)

    def owns(self, consumer: str) -> bool:
        return consumer in self._mine

    def lives(self, consumer: str) -> bool:
        return consumer in self._living

    def close(self) -> None:
        """As when their process ends."""
        for consumer in list(self._mine):
            self.release(consumer)


class MemoryInbox(Inbox):
    """See contracts/storage.py."""

    def __init__(self, data: InboxData, lock: "threading.RLock", context: Context) -> None:
        self._data, self.context = data, context
        self._gate = Gate(lock, context, "inbox")
        self.consumers: MemoryConsumers = MemoryConsumers(data.consumers, self._gate)

    def _now(self) -> float:
        return self.context.clock.now()

    @property
    def store_id(self) -> StoreId:  # noqa: D102
        with self._gate.reading():
            return self._data.store_id

    # ── arriving ─────────────────────────────────────────────────────────────────────────────────

    def heads(self, sender: str, store: StoreId | None = None) -> dict[SourceLane, Head]:  # noqa: D102
        with self._gate.reading():
            known = self._data.heads.items()
            return {at: head for at, head in known if at.sender == sender and store in {None, at.store}}

    def accept(self, arrivals: Sequence[Arrival]) -> list[Accepted]:  # noqa: D102
        return self._accept(arrivals, together=False)

    def accept_together(self, arrivals: Sequence[Arrival]) -> list[Accepted]:  # noqa: D102
        return self._accept(arrivals, together=True)

    def _accept(self, arrivals: Sequence[Arrival], *, together: bool) -> list[Accepted]:
        with self._gate.writing():
            refused = refusal(arrivals, lambda at: self._data.heads.get(at, START)) if together else None
            if refused is not None:
                return refused
            heads = dict(self._data.heads)
            words: list[Accepted] = []
            for arrival in arrivals:
                kept = heads.get(arrival.source, START)
                taken = arrival.after == kept
                if taken:
                    kept = heads[arrival.source] = arrival.upto
                words.append(Accepted(kept, taken))
            coming = [a for a, word in zip(arrivals, words, strict=True) if word.taken]
            self._check_limits([(a.source.channel, len(job.envelope)) for a in coming for job in a.entries])
            for arrival in coming:
                for job in arrival.entries:
                    if job.possible_duplicate and self._stands(job):
                        continue
                    self._add(arrival.source.channel, priority_of(arrival.source.priority), arrival.source.sender, job)
            self._data.heads = heads
            return words

    def put(self, channel: str, priority: int, sender: str, jobs: Sequence[Job]) -> Sequence[int]:  # noqa: D102
        return self.put_all([Put(channel, priority, sender, jobs)])[0]

    def put_all(self, puts: Sequence[Put]) -> list[Sequence[int]]:  # noqa: D102
        with self._gate.writing():
            self._check_limits([(put.channel, len(job.envelope)) for put in puts for job in put.jobs])
            return [self._put(put) for put in puts]

    def _put(self, put: Put) -> list[int]:
        numbers = []
        for job in put.jobs:
            standing = self._stands(job) if job.possible_duplicate else None
            item = standing or self._add(put.channel, put.priority, put.sender, job)
            numbers.append(item.number)
        return numbers

    def _stands(self, job: Job) -> Task | None:
        """This very message, if it is here already: live, or done and kept."""
        return next((
            item for item in self._of(job.id)
            if (item.job.id, item.job.envelope) == (job.id, job.envelope) and (item.live or item.state is State.DONE)
        ), None)  # fmt: skip

    def _add(self, channel: str, priority: int, sender: str, job: Job) -> Task:
        now = self._now()
        self._data.number += 1
        due = now + max(0.0, job.due_in or 0.0)
        expires = None if job.expires_in is None else now + job.expires_in
        item = Task(self._data.number, job, channel, priority, sender, now, due, expires,
                    first_rank(priority) if job.rank is None else job.rank)  # fmt: skip
        self._data.items[item.number] = item
        self._data.by_id.setdefault(job.id, []).append(item)
        self._unblock(item)
        return item

    def _check_limits(self, coming: Sequence[tuple[str, int]]) -> None:
        more: dict[str, Amount] = {}
        for channel, size in coming:
            before = more.get(channel, (0, 0))
            more[channel] = (before[0] + 1, before[1] + size)

        def kept(_: str, name: str) -> Amount:
            sizes = [len(i.job.envelope) for i in self._data.items.values() if i.live and name in {"", i.channel}]
            return len(sizes), sum(sizes)

        check_inbox(self.context, more, kept)

    # ── ordering keys ────────────────────────────────────────────────────────────────────────────

    def _unblock(self, item: Task) -> None:
        """A blocked or returning job: to ready or delayed, unless its key is busy."""
        item.state = State.BLOCKED if self._busy(item) else State.DELAYED if item.due > self._now() else State.READY
        item.changed = self._now()

    def _busy(self, item: Task) -> bool:
        """Whether another one of its key stands before it."""
        return item.job.key is not None and any(
            other.job.key == item.job.key and other.channel == item.channel and other is not item
            and other.state in {State.READY, State.DELAYED, State.LEASED}
            for other in self._data.items.values()
        )  # fmt: skip

    def _move(self, item: Task, state: State) -> None:
        assert may_follow(JOB, item.state, state), f"{item.state} to {state}"
        item.state, item.changed, item.token, item.consumer = state, self._now(), b"", ""

    def _end(self, item: Task, state: State, keep: float, outcome: Outcome | None) -> None:
        """Done, buried or expired: frees its key, and tells a sender that asked."""
        self._move(item, state)
        item.keep = keep
        if item.job.receipt and outcome is not None:
            self._data.outcome_numbers[item.sender] += 1
            number = self._data.outcome_numbers[item.sender]
            self._data.outcomes.setdefault(item.sender, []).append(attrs.evolve(outcome, number=number))
        if item.job.key is None:
            return
        waiting = [
            other for _, other in sorted(self._data.items.items())
            if other.state is State.BLOCKED and (other.channel, other.job.key) == (item.channel, item.job.key)
        ]  # fmt: skip
        if waiting:
            self._unblock(waiting[0])

    def _bury(self, item: Task, reason: str) -> None:
        if reason:
            item.reasons.append(reason)
        outcome = Outcome(0, item.job.id, State.FAILED, reason)
        self._end(item, State.BURIED, self.context.remember, outcome)

    def _forget(self, item: Task) -> None:
        del self._data.items[item.number]
        self._data.by_id[item.job.id].remove(item)
        if not self._data.by_id[item.job.id]:
            del self._data.by_id[item.job.id]

    # ── consumers ────────────────────────────────────────────────────────────────────────────────

    def claim(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:  # noqa: D102
        with self._gate.writing():
            if not self.consumers.owns(consumer):
                raise Closed(f"consumer {consumer} is retired or unknown; register a new one")
            self._end_expired()
            now = self._now()
            mine = [item for item in self._data.items.values() if item.channel in channels]
            for item in mine:
                if item.state is State.DELAYED and item.due <= now:
                    self._move(item, State.READY)
            ready = [item for item in mine if item.state is State.READY]
            ready.sort(key=lambda item: item.order)
            return [self._lease(item, consumer) for item in ready[: max(0, limit)]]

    def claim_number(self, number: int, consumer: str) -> Claim | None:  # noqa: D102
        with self._gate.writing():
            if not self.consumers.owns(consumer):
                raise Closed(f"consumer {consumer} is retired or unknown; register a new one")
            self._end_expired()
            item = self._data.items.get(number)
            if item is None:
                return None
            if item.state is State.BURIED and not self._busy(item):
                self._move(item, State.READY)
                item.attempts = 0
            elif item.state is State.DELAYED:
                self._move(item, State.READY)
            return self._lease(item, consumer) if item.state is State.READY else None

    def _lease(self, item: Task, consumer: str) -> Claim:
        self._move(item, State.LEASED)
        item.attempts += 1
        item.token, item.consumer = os.urandom(8), consumer
        job = item.job
        return Claim(
            item.token, item.number, job.id, item.channel, item.priority, item.sender, job.envelope,
            item.attempts, job.possible_duplicate, item.arrived, item.rank,
        )  # fmt: skip

    def _held(self, claim: Claim) -> Task | None:
        item = self._data.items.get(claim.number)
        return item if item is not None and item.state is State.LEASED and item.token == claim.token else None

    def settle(self, changes: Sequence[Settlement]) -> list[bool]:  # noqa: D102
        with self._gate.writing():
            return [self._settle(change) for change in changes]

    def _settle(self, change: Settlement) -> bool:
        item = self._held(change.claim)
        if item is None:
            return False
        if not isinstance(change, Ack) and change.rank is not None:
            item.rank, item.priority = change.rank, priority_of_rank(change.rank)
        if isinstance(change, Ack):
            outcome = Outcome(0, item.job.id, State.PROCESSED, change.reason, change.result, change.content_type)
            self._data.processed[item.channel] += 1
            self._end(item, State.DONE, change.keep, outcome)
            if change.keep <= 0:
                self._forget(item)
        elif isinstance(change, Release):
            if change.reason:
                item.reasons.append(change.reason)
            item.attempts -= not change.counted
            item.due = self._now() + max(0.0, change.delay)
            self._move(item, State.DELAYED if change.delay > 0 else State.READY)
        else:
            self._bury(item, change.reason)
        return True

    def outcomes(  # noqa: D102
        self, sender: str, log: StoreId | None, after: int, limit: int, max_bytes: int = RECEIPTS_BYTES
    ) -> tuple[StoreId, list[Outcome]]:
        with self._gate.reading():
            rows = self._data.outcomes.get(sender, [])
            if log == self._data.store_id and after > self._data.outcome_numbers[sender]:
                self._data.store_id = make_store_id()
            if log == self._data.store_id:
                rows = [row for row in rows if row.number > after]
                self._data.outcomes[sender] = rows
            return self._data.store_id, first_page(rows, limit, max_bytes)

    # ── care ─────────────────────────────────────────────────────────────────────────────────────

    def _end_expired(self) -> None:
        now = self._now()
        due = [
            item for item in self._data.items.values()
            if item.expires is not None and item.expires <= now and item.live and item.state is not State.LEASED
        ]  # fmt: skip
        for item in due:
            self._end(item, State.EXPIRED, self.context.remember, Outcome(0, item.job.id, State.EXPIRED, "expired"))

    def move(self, moves: Sequence[JobMove]) -> list[bool]:  # noqa: D102
        with self._gate.writing():
            return [self._do(move) for move in moves]

    def _do(self, move: JobMove) -> bool:
        item, to = self._data.items.get(move.job.number), move.to
        if item is None or (item.state, item.token) != (move.job.state, move.job.token):
            return False
        if to is None:
            if not item.live:
                self._forget(item)
            return not item.live
        if not may_follow(JOB, item.state, to):
            return False
        if move.attempts is not None:
            item.attempts = move.attempts
        if to is State.BURIED:
            self._bury(item, move.reason)
        elif to is State.EXPIRED:
            self._end(item, to, self.context.remember, Outcome(0, item.job.id, to, move.reason))
        else:
            item.reasons += [move.reason] if move.reason else []
            item.due = self._now()
            if item.state is State.BURIED:
                self._unblock(item)
            else:
                self._move(item, to)
        return True

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def _of(self, message_id: MessageId) -> list[Task]:
        return self._data.by_id.get(message_id, [])

    def _show(self, item: Task) -> JobInfo:
        now = self._now()
        return JobInfo(
            item.number, item.job.id, item.sender, item.channel, item.priority, item.state,
            now - (item.arrived if item.live else item.changed), len(item.job.envelope), item.attempts,
            "\n".join(item.reasons), item.consumer, item.due - now if item.state is State.DELAYED else None,
            item.job.possible_duplicate, item.token, self._until(item), item.rank,
        )  # fmt: skip

    def _until(self, item: Task) -> float | None:
        """When it expires or, once it has ended, is forgotten."""
        if not item.live:
            return item.changed + item.keep
        return None if item.state is State.LEASED else item.expires

    def scan(self, selection: Selection, after: int = 0, limit: int = 100) -> list[JobInfo]:  # noqa: D102
        with self._gate.reading():
            pool: Iterable[Task] = self._data.items.values()
            if selection.ids:
                pool = (item for identity in set(selection.ids) for item in self._of(identity))
                selection = attrs.evolve(selection, ids=())
            mine = sorted((item for item in pool if item.number > after), key=lambda item: item.number)
            rest = (self._show(item) for item in mine)
            return list(itertools.islice(filter(selection.means, rest), limit))

    def envelope(self, message_id: MessageId) -> bytes | None:  # noqa: D102
        with self._gate.reading():
            found = self._of(message_id)
            return found[-1].job.envelope if found else None

    def totals(self) -> Mapping[str, int]:  # noqa: D102
        with self._gate.reading():
            return dict(self._data.processed)

    def close(self) -> None:
        """Close; its consumers count as dead, as when their process ends. Safe twice."""
        self._gate.closed = True
        self.consumers.close()


__all__ = ["MemoryInbox"]
