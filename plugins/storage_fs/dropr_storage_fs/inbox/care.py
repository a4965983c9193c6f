"""Outcomes, time, and mending by hand.

Owns the outcome logs, sweep, kick, bury and wipe. Must not know consumers.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Selection
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import MessageId, StoreId, make_store_id
from dropr_storage_fs.engine import compaction as stragglers
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.compaction import Pinned
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.files import shared
from dropr_storage_fs.files.log_recovery import Place
from dropr_storage_fs.inbox.rows import Task
from dropr_storage_fs.inbox.state import InboxState

SWEEP = 1000


class CarePart:
    """What goes on around the queue."""

    _half: Half
    _context: Context
    expire: Any
    end: Any
    move: Any
    find: Any
    chosen: Any
    sender_of: Any

    @property
    def store_id(self) -> StoreId:
        """Names this half and its outcome logs."""
        return self._half.look(lambda: StoreId(self._half.state.store))

    def next_due(self, channels: Sequence[str]) -> float | None:
        """Node time at which the next delayed message of these channels becomes ready."""

        def job() -> float | None:
            state: InboxState = self._half.state
            dues = []
            for channel in channels:
                for due, number in sorted(state.delayed.get(channel, ())):
                    task = state.tasks.get(number)
                    if task is not None and task.state is State.DELAYED and task.due == due:
                        dues.append(due)
                        break
            return min(dues, default=None)

        return self._half.look(job)

    def outcomes(self, sender: str, log: StoreId | None, after: int, limit: int) -> tuple[StoreId, list[Outcome]]:
        """The outcome log of a sender after number ``after``; see the contract."""

        def look() -> tuple[StoreId, list[Outcome]] | None:
            state: InboxState = self._half.state
            rows = state.rows.get(sender, [])
            if log == state.store and (after > state.row_numbers[sender] or (rows and rows[0].number <= after)):
                return None
            flushed = self._half.words[shared.JOURNAL] <= self._half.words[shared.JOURNAL_SYNCED]
            return (StoreId(state.store), rows[:limit]) if flushed or not rows else None

        found = self._half.look(look)
        if found is not None:
            return found

        def job(commit: Commit) -> tuple[StoreId, list[Outcome]]:
            self._half.follow()
            state: InboxState = self._half.state
            commit.journalled = True
            if log == state.store and after > state.row_numbers[sender]:
                commit.do(["meta", make_store_id(), state.number])
            elif log == state.store:
                commit.do(["told", sender, after])
            return StoreId(state.store), list(state.rows.get(sender, ())[:limit])

        return self._half.durable(job, relief=True)

    def sweep(self) -> float | None:
        """End expired messages, forget done and buried ones past their time."""

        def job(commit: Commit) -> float | None:
            self._half.follow()
            self.expire(commit, SWEEP)
            state: InboxState = self._half.state
            return min((task.timer for task in state.tasks.values() if task.timer is not None), default=None)

        due = self._half.lazy(job)
        self._tidy()
        return due

    def _tidy(self) -> None:
        """Remove segments of which nothing is needed any more, once that stands on stable storage."""
        idle = self._half.look(self._idle)
        stragglers.move(self._half, self._half.look(self._pinned))
        if not idle:
            return
        self._half.check_off({number for number, _ in idle})

        def job(_commit: Commit) -> None:
            for number, segment in self._idle():
                if (number, segment) in idle:
                    self._half.log(number).remove(segment)

        self._half.lazy(job)

    def _pinned(self) -> list[Pinned]:
        """Segments that are needed for messages with a state of their own alone."""
        state: InboxState = self._half.state
        kept: dict[int, list[tuple[int, Place, int]]] = {}
        for task in state.tasks.values():
            if task.state is not State.LEASED:
                kept.setdefault(task.queue, []).append((task.number, task.at, task.size))
        busy = {lease.queue for lease in state.leases.values()}
        busy |= {task.queue for task in state.tasks.values() if task.state is State.LEASED}
        out = []
        for number in set(kept) - busy:
            out += stragglers.pinned(self._half.log(number), state.numbers[number].frontier, kept[number])
        return out

    def _idle(self) -> set[tuple[int, int]]:
        """(queue, segment) of which nothing is needed."""
        state: InboxState = self._half.state
        out: set[tuple[int, int]] = set()
        for queue in state.numbers.values():
            names = self._half.log(queue.number).segments()
            if len(names) < 2 or names[1] > queue.frontier + 1:
                continue
            needed = {task.at.segment for task in state.tasks.values() if task.queue == queue.number}
            leases = [lease for lease in state.leases.values() if lease.queue == queue.number and lease.live]
            lowest = min([queue.frontier + 1, *(min(lease.live) for lease in leases)])
            out |= {(queue.number, segment) for segment, following in itertools.pairwise(names)
                    if following <= lowest and segment not in needed}  # fmt: skip
        return out

    def flush(self) -> None:
        """Everything settled so far is on stable storage when this returns."""
        self._half.enter(write=False)
        self._half.flush()

    def kick(self, selection: Selection) -> int:
        """Make buried and delayed messages ready, with fresh attempts. Durable."""

        def job(commit: Commit) -> int:
            self._half.follow()
            state: InboxState = self._half.state
            tasks = [task for task in self.chosen(selection) if task.state in {State.BURIED, State.DELAYED}]
            now = self._context.clock.now()
            for task in tasks:
                to = State.READY
                channel = state.numbers[task.queue].channel
                if task.state is State.BURIED and task.key is not None and state.busy(channel, task.key):
                    to = State.BLOCKED
                self.move(commit, task, to, attempts=0, due=now)
            return len(tasks)

        return self._half.durable(job)

    def bury(self, message_id: MessageId, reason: str) -> bool:
        """Bury a message that is not leased. Durable."""

        def job(commit: Commit) -> bool:
            self._half.follow()
            state: InboxState = self._half.state
            tasks = [state.tasks[number] for number in state.by_id.get(message_id, ())]
            tasks = [task for task in tasks if task.live and task.state is not State.LEASED]
            for queue, record, where in list(self.find(message_id)):
                if record.sequence > queue.frontier:
                    commit.do(["task", record.sequence, queue.number, record.id, self.sender_of(record), "ready",
                               record.flags, len(record.envelope), record.born, None, record.born, None, *where, 0, [],
                               record.born, 0.0, b"", "", True])  # fmt: skip
                    tasks.append(state.tasks[record.sequence])
            for task in tasks:
                self.end(commit, task, State.BURIED, self._context.remember, State.FAILED, reason)
            return bool(tasks)

        return self._half.durable(job, relief=True)

    def wipe(self, selection: Selection) -> int:
        """Remove done and buried messages (never live ones). Returns how many."""

        def job(commit: Commit) -> int:
            self._half.follow()
            tasks: list[Task] = [task for task in self.chosen(selection) if not task.live]
            for task in tasks:
                commit.do(["drop", task.number])
            return len(tasks)

        return self._half.durable(job, relief=True)
