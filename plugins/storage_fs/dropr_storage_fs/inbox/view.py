"""Looking into the inbox.

Owns what people and the node ask for: status, list, counts, ages. Changes nothing.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import JobInfo, Selection
from dropr_core.model.message import State
from dropr_core.model.names import NOT_URGENT, MessageId
from dropr_core.model.states import SETTLED
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.layout import DUPLICATE, Record
from dropr_storage_fs.files.segment import Place
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.remembered import PastJob, PastJobs
from dropr_storage_fs.inbox.rows import JobRecord, Lease, Queue
from dropr_storage_fs.inbox.state import InboxState


class _Shown(NamedTuple):
    """One message as it is shown, and where it stands if that is its place in the queue."""

    number: int
    info: JobInfo
    where: tuple[int, Place] | None


class InboxView:
    """What does not change anything."""

    def __init__(self, engine: Engine[InboxState], context: Context, queues: QueueReader, past: PastJobs) -> None:
        self._engine, self._context, self._queues, self._past = engine, context, queues, past
        self._seen: dict[MessageId, tuple[int, Place]] = {}
        """Where the messages of the last page stand: who walks through all of them asks for each one's bytes."""

    # ── one message ──────────────────────────────────────────────────────────────────────────────

    def _show(self, state: InboxState, job: JobRecord) -> JobInfo:
        now = self._context.clock.now()
        queue = state.numbers[job.queue]
        return JobInfo(
            job.number, MessageId(job.id), job.sender, queue.channel, state.priority(job), job.state,
            max(0.0, now - (job.arrived if job.live else job.changed)), job.size, job.attempts, "\n".join(job.reasons),
            job.consumer, job.due - now if job.state is State.DELAYED else None, bool(job.flags & DUPLICATE),
            job.token[:8], job.timer, state.rank(job),
        )  # fmt: skip

    def _show_plain(self, queue: Queue, record: Record, lease: Lease | None) -> JobInfo:
        consumer, token = ("", b"") if lease is None else (lease.consumer, lease.token[:8])
        return JobInfo(
            record.sequence, MessageId(record.id), self._queues.sender_of(record), queue.channel, queue.priority,
            State.LEASED if consumer else State.READY, max(0.0, self._context.clock.now() - record.born),
            len(record.envelope), 1 if consumer else 0, "", consumer, None, bool(record.flags & DUPLICATE),
            token, None, queue.first_rank,
        )  # fmt: skip

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

        def job(state: InboxState) -> bytes | None:
            for number in reversed(state.by_id.get(message_id, [])):
                return self._queues.body(state.jobs[number])
            for past in reversed(self._past.named(state, message_id)):
                return self._queues.body(past.record)
            seen = self._seen.get(message_id)
            if seen is not None and (queue := state.numbers.get(seen[0])) is not None:
                record = self._engine.log(seen[0]).reader.record_at(seen[1])
                if record is not None and record.id == message_id and state.stands(queue, record.sequence):
                    return record.envelope
            return next((record.envelope for _, record, _ in self._queues.find(state, message_id)), None)

        return self._engine.read(job)

    def find(self, number: int) -> JobInfo | None:
        """The message with a number."""

        def job(state: InboxState) -> JobInfo | None:
            if (known := state.jobs.get(number)) is not None:
                return self._show(state, known)
            if (past := self._past.numbered(state, number)) is not None:
                return self._show(state, past.record)
            if (lease := _lease(state, number)) is not None:
                queue = state.numbers[lease.queue]
                found = self._queues.at(queue, number)
                return None if found is None else self._show_plain(queue, found[0], lease)
            plain = self._queues.numbered(state, number)
            return None if plain is None else self._show_plain(plain[0], plain[1], None)

        return self._engine.read(job)

    def peek(self, channel: str, state: State) -> JobInfo | None:
        """The next ready, delayed or buried message of a channel; see the contract."""

        def job(known: InboxState) -> JobInfo | None:
            if state is State.READY and (found := self._first_ready(known, channel)) is not None:
                return found
            if state is State.BURIED:
                return self._first_buried(known, channel)
            late = known.first_delayed(channel)
            if late is None or (state is State.READY and late.due > self._context.clock.now()):
                return None
            return self._show(known, late)

        return self._engine.read(job)

    def _first_ready(self, state: InboxState, channel: str) -> JobInfo | None:
        queues = sorted((queue for queue in state.numbers.values() if queue.channel == channel),
                        key=lambda queue: queue.priority)  # fmt: skip
        found: list[JobInfo] = []
        if (ranked := state.first_by_rank(channel)) is not None:
            found.append(self._show(state, state.jobs[ranked[1]]))
        for queue in queues:
            if (ready := state.first_ready(queue)) is not None:
                found.append(self._show(state, ready))
            if self._queues.left(queue) > 0:
                fresh = itertools.islice(self._queues.fresh(state, queue, queue.frontier), 1)
                found += [self._show_plain(queue, record, None) for record, _ in fresh]
            if found and min(one.priority for one in found) <= queue.priority:
                break
        return min(found, key=lambda one: (one.priority, one.rank, one.number), default=None)

    def _first_buried(self, state: InboxState, channel: str) -> JobInfo | None:
        if not any(queue.tally[State.BURIED] for queue in state.numbers.values() if queue.channel == channel):
            return None
        wanted = Selection(channel=channel, states=frozenset({State.BURIED}))
        known = self.chosen(state, wanted)[:1]
        found = [self._show(state, one) for one in known]
        found += [self._show(state, past.record) for past in itertools.islice(self.chosen_past(state, wanted), 1)]
        return min(found, key=lambda one: one.number, default=None)

    # ── many ─────────────────────────────────────────────────────────────────────────────────────

    def chosen(self, state: InboxState, selection: Selection) -> list[JobRecord]:
        """The messages with a state of their own that are meant; inside a job."""
        pool: Iterable[JobRecord] = state.jobs.values()
        if selection.ids:
            pool = [state.jobs[number] for key in selection.ids for number in state.by_id.get(key, ())]
        meant = [job for job in pool if selection.means(self._show(state, job))]
        return sorted(meant, key=lambda job: job.number)

    def chosen_past(self, state: InboxState, selection: Selection) -> Iterator[PastJob]:
        """Those that are meant of the messages that are not in memory; inside a job."""
        pool: Iterable[PastJob] = self._past.beyond(state, 0)
        if selection.ids:
            pool = [past for identity in selection.ids for past in self._past.named(state, identity)]
        return (past for past in pool if selection.means(self._show(state, past.record)))

    def scan(self, selection: Selection, after: int, limit: int) -> list[JobInfo]:
        """A page of messages in order of arrival; the last one's ``number`` is the next cursor."""

        def job(state: InboxState) -> list[JobInfo]:
            if selection.ids:
                named = (info for info in self._named(state, selection) if info.number > after)
                return list(itertools.islice(named, limit))
            self._seen.clear()
            out: list[JobInfo] = []
            for _, info, where in heapq.merge(*self._sources(state, selection, after), key=lambda row: row[0]):
                if selection.means(info):
                    out.append(info)
                    if where is not None:
                        self._seen[info.id] = where
                    if len(out) >= limit:
                        break
            return out

        return self._engine.read(job)

    def _named(self, state: InboxState, selection: Selection) -> list[JobInfo]:
        """Those of the ids that a selection names, which are looked up."""
        found = []
        for identity in dict.fromkeys(selection.ids):
            found += [self._show(state, state.jobs[number]) for number in state.by_id.get(identity, ())]
            found += [self._show(state, past.record) for past in self._past.named(state, identity)]
            for queue, record, _ in self._queues.find(state, identity):
                found.append(self._show_plain(queue, record, _lease(state, record.sequence)))
        return sorted(filter(selection.means, found), key=lambda info: info.number)

    def _sources(self, state: InboxState, selection: Selection, after: int) -> list[Iterator[_Shown]]:
        """Everything beyond a number, each part of it in order."""
        sources: list[Iterator[_Shown]] = [self._jobs(state, after)]
        if not selection.states or selection.states & SETTLED:
            sources.append(self._past_jobs(state, after))
        for queue in state.numbers.values():
            if selection.channel in {None, queue.channel}:
                sources += [self._leased(queue, lease, after) for lease in state.leases_of(queue)]
                wanted = not selection.states or State.READY in selection.states
                if wanted and self._queues.left(queue) > 0:
                    sources.append(self._fresh(state, queue, after))
        return sources

    def _jobs(self, state: InboxState, after: int) -> Iterator[_Shown]:
        for number in sorted(number for number in state.jobs if number > after):
            job = state.jobs[number]
            yield _Shown(number, self._show(state, job), None)

    def _past_jobs(self, state: InboxState, after: int) -> Iterator[_Shown]:
        for past in self._past.beyond(state, after):
            yield _Shown(past.found.key, self._show(state, past.record), None)

    def _leased(self, queue: Queue, lease: Lease, after: int) -> Iterator[_Shown]:
        for record, where in self._queues.leased(queue, {number for number in lease.live if number > after}):
            info = self._show_plain(queue, record, lease)
            yield _Shown(record.sequence, info, (queue.number, where))

    def _fresh(self, state: InboxState, queue: Queue, after: int) -> Iterator[_Shown]:
        for record, where in self._queues.fresh(state, queue, after):
            yield _Shown(record.sequence, self._show_plain(queue, record, None), (queue.number, where))

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Channel → state → number, and ``processed`` ever, ``bytes``; kept, not counted."""

        def job(state: InboxState) -> dict[str, Counter[str]]:
            out: dict[str, Counter[str]] = {}
            for channel, number in state.processed.items():
                out[channel] = Counter(processed=number)
            for queue in state.numbers.values():
                mine = out.setdefault(queue.channel, Counter())
                mine["ready"] += self._queues.left(queue)
                mine["leased"] += queue.leased
                mine["bytes"] += self._engine.end(queue.number).bytes - queue.gone_bytes
                for name, count in queue.tally.items():
                    mine[str(name)] += count
            return out

        return self._engine.read(job)

    def urgent(self) -> Mapping[str, int]:
        """Channel → ready messages of an urgent priority; kept, not counted."""

        def job(state: InboxState) -> Counter[str]:
            out: Counter[str] = Counter()
            for queue in state.numbers.values():
                if queue.priority < NOT_URGENT:
                    out[queue.channel] += self._queues.left(queue) + queue.tally[State.READY]
            return +out

        return self._engine.read(job)

    def oldest(self) -> Mapping[str, float]:
        """Channel → seconds that its first ready message has waited."""

        def job(state: InboxState) -> dict[str, float]:
            now = self._context.clock.now()
            out: dict[str, float] = {}
            for queue in state.numbers.values():
                born = [one.arrived for number in queue.ready
                        if (one := state.jobs.get(number)) is not None and one.state is State.READY]  # fmt: skip
                born += [state.jobs[number].arrived for _, number in state.ranked.get(queue.channel, ())
                         if (one := state.jobs.get(number)) is not None and one.state is State.READY]  # fmt: skip
                if self._queues.left(queue) > 0:
                    first = next(self._queues.fresh(state, queue, queue.frontier), None)
                    born += [] if first is None else [first[0].born]
                if born:
                    out[queue.channel] = max(out.get(queue.channel, 0.0), now - min(born))
            return out

        return self._engine.read(job)


def _lease(state: InboxState, number: int) -> Lease | None:
    """The lease of a plain message."""
    return next((lease for lease in state.leases.values() if number in lease.live), None)
