"""Looking into the inbox.

Owns what people and the node ask for: status, list, counts, ages. Changes nothing.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import JobInfo, Selection
from dropr_core.model.message import State
from dropr_core.model.names import MessageId
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.files.layout import DUPLICATE, Record
from dropr_storage_fs.files.log_recovery import Place
from dropr_storage_fs.inbox.rows import Queue, Task
from dropr_storage_fs.inbox.state import InboxState

_Row = tuple[int, JobInfo, float, tuple[int, Place] | None]
"""Number, what is shown, since when, and where it stands if that is its place in the queue."""


class ViewPart:
    """What does not change anything."""

    _half: Half
    _context: Context
    find: Any
    fresh: Any
    left: Any
    leased_records: Any
    sender_of: Any
    body: Any
    stands: Any
    _seen: dict[MessageId, tuple[int, Place]]
    """Where the messages of the last page stand: who walks through all of them asks for each one's bytes."""

    def _show(self, task: Task) -> JobInfo:
        now = self._context.clock.now()
        queue = self._half.state.numbers[task.queue]
        return JobInfo(
            task.number, MessageId(task.id), task.sender, queue.channel, queue.priority, task.state,
            max(0.0, now - (task.arrived if task.live else task.changed)), task.size, task.attempts,
            "\n".join(task.reasons), task.consumer, task.due - now if task.state is State.DELAYED else None,
            bool(task.flags & DUPLICATE),
        )  # fmt: skip

    def _show_plain(self, queue: Queue, record: Record, consumer: str) -> JobInfo:
        return JobInfo(
            record.sequence, MessageId(record.id), self.sender_of(record), queue.channel, queue.priority,
            State.LEASED if consumer else State.READY, max(0.0, self._context.clock.now() - record.born),
            len(record.envelope), 1 if consumer else 0, "", consumer, None, bool(record.flags & DUPLICATE),
        )  # fmt: skip

    def _consumer(self, number: int) -> str:
        leases = self._half.state.leases.values()
        return next((lease.consumer for lease in leases if number in lease.live), "")

    def _meant(self, selection: Selection, info: JobInfo, since: float) -> bool:
        return (
            (not selection.ids or info.id in selection.ids)
            and (not selection.states or info.state in selection.states)
            and selection.channel in {None, info.channel}
            and selection.peer in {None, info.sender}
            and (selection.older_than is None or self._context.clock.now() - since >= selection.older_than)
        )

    def chosen(self, selection: Selection) -> list[Task]:
        """The messages with a state of their own that are meant."""
        state: InboxState = self._half.state
        pool = state.tasks.values()
        if selection.ids:
            pool = [state.tasks[one] for key in selection.ids for one in state.by_id.get(key, ())]  # type: ignore[assignment]
        return sorted((task for task in pool if self._meant(selection, self._show(task), task.changed)),
                      key=lambda task: task.number)  # fmt: skip

    def status(self, message_id: MessageId) -> JobInfo | None:
        """What is known of a message."""

        def job() -> JobInfo | None:
            state: InboxState = self._half.state
            found = [self._show(state.tasks[number]) for number in state.by_id.get(message_id, ())]
            found += [self._show_plain(queue, record, self._consumer(record.sequence))
                      for queue, record, _ in self.find(message_id)]  # fmt: skip
            return max(found, key=lambda info: info.number, default=None)

        return self._half.look(job)

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

        def job() -> bytes | None:
            state: InboxState = self._half.state
            for number in reversed(state.by_id.get(message_id, [])):
                return bytes(self.body(state.tasks[number]))
            seen = self._seen.get(message_id)
            if seen is not None and (queue := state.numbers.get(seen[0])) is not None:
                record = self._half.log(seen[0]).record_at(seen[1])
                if record is not None and record.id == message_id and self.stands(queue, record.sequence):
                    return record.envelope
            return next((record.envelope for _, record, _ in self.find(message_id)), None)

        return self._half.look(job)

    def scan(self, selection: Selection, after: int = 0, limit: int = 100) -> list[JobInfo]:
        """A page of messages in order of arrival; the last one's ``number`` is the next cursor."""

        def job() -> list[JobInfo]:
            state: InboxState = self._half.state
            self._seen.clear()
            sources: list[Iterator[_Row]] = [self._tasks(after)]
            for queue in state.numbers.values():
                if selection.channel in {None, queue.channel}:
                    for lease in state.leases.values():
                        if lease.queue == queue.number:
                            sources.append(self._leased(queue, lease.live, after, lease.consumer))
                    if (not selection.states or State.READY in selection.states) and self.left(queue) > 0:
                        sources.append(self._fresh_infos(queue, after))
            out: list[JobInfo] = []
            for _, info, since, where in heapq.merge(*sources, key=lambda row: row[0]):
                if self._meant(selection, info, since):
                    out.append(info)
                    if where is not None:
                        self._seen[info.id] = where
                    if len(out) >= limit:
                        break
            return out

        return self._half.look(job)

    def _tasks(self, after: int) -> Iterator[_Row]:
        tasks = self._half.state.tasks
        for number in sorted(number for number in tasks if number > after):
            yield number, self._show(tasks[number]), tasks[number].changed, None

    def _leased(self, queue: Queue, live: set[int], after: int, consumer: str) -> Iterator[_Row]:
        for record, where in self.leased_records(queue, {number for number in live if number > after}):
            yield record.sequence, self._show_plain(queue, record, consumer), record.born, (queue.number, where)

    def _fresh_infos(self, queue: Queue, after: int) -> Iterator[_Row]:
        for record, where in self.fresh(queue, after, self._half.log(queue.number).end):
            yield record.sequence, self._show_plain(queue, record, ""), record.born, (queue.number, where)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Channel → state → number, and ``processed`` ever, ``bytes``; kept, not counted."""

        def job() -> dict[str, Counter[str]]:
            state: InboxState = self._half.state
            out: dict[str, Counter[str]] = {}
            for channel, number in state.processed.items():
                out[channel] = Counter(processed=number)
            for queue in state.numbers.values():
                mine = out.setdefault(queue.channel, Counter())
                mine["ready"] += self.left(queue)
                mine["leased"] += queue.leased
                mine["bytes"] += self._half.log(queue.number).end.bytes - queue.gone_bytes
                for name, count in queue.tally.items():
                    mine[str(name)] += count
            return out

        return self._half.look(job)

    def oldest(self) -> Mapping[str, float]:
        """Channel → seconds that its first ready message has waited."""

        def job() -> dict[str, float]:
            state: InboxState = self._half.state
            now = self._context.clock.now()
            out: dict[str, float] = {}
            for queue in state.numbers.values():
                born = [task.arrived for number in queue.ready
                        if (task := state.tasks.get(number)) is not None and task.state is State.READY]  # fmt: skip
                if self.left(queue) > 0:
                    first = next(self.fresh(queue, queue.frontier, self._half.log(queue.number).end), None)
                    born += [] if first is None else [first[0].born]
                if born:
                    out[queue.channel] = max(out.get(queue.channel, 0.0), now - min(born))
            return out

        return self._half.look(job)
