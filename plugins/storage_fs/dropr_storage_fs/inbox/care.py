"""State moves: what stands as it was seen is ready again, ends, or is forgotten.

Owns `move`, `wipe` and `next_due`. Must not know who wants a move, nor why.
"""

from collections.abc import Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import JobInfo, JobMove, Selection
from dropr_core.model.message import State
from dropr_core.model.states import JOB, SETTLED, may_follow
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.inbox.claim import lease_key
from dropr_storage_fs.inbox.moves import InboxCommit, Moves
from dropr_storage_fs.inbox.operations import Drop
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.remembered import PastJobs
from dropr_storage_fs.inbox.rows import JobRecord
from dropr_storage_fs.inbox.state import InboxState
from dropr_storage_fs.inbox.view import InboxView


class Care:
    """What people do with messages."""

    def __init__(
        self, engine: Engine[InboxState], context: Context, queues: QueueReader, moves: Moves, view: InboxView,
        past: PastJobs,
    ) -> None:  # fmt: skip
        self._engine, self._context, self._queues, self._moves, self._view = engine, context, queues, moves, view
        self._past = past

    def next_due(self, channels: Sequence[str]) -> float | None:
        """Node time at which the next delayed message of these channels becomes ready."""

        def job(state: InboxState) -> float | None:
            found = (state.first_delayed(channel) for channel in channels)
            return min((one.due for one in found if one is not None), default=None)

        return self._engine.read(job)

    def move(self, moves: Sequence[JobMove]) -> list[bool]:
        """Move each message that stands as it is given; see the contract."""

        def job(commit: InboxCommit) -> list[bool]:
            return [self._move(commit, one) for one in moves]

        return self._engine.write_durable(job, reserve=all(one.to is not State.READY for one in moves))

    def _move(self, commit: InboxCommit, move: JobMove) -> bool:
        seen, to, state = move.job, move.to, commit.state
        if seen.state not in SETTLED if to is None else not may_follow(JOB, seen.state, to):
            return False
        if to is None and seen.number not in state.jobs:
            found = self._past.numbered(state, seen.number)
            return found is not None and _is(found.record, seen) and self._past.forget(commit, [found.found]) > 0
        one = self._standing(commit, seen)
        if one is None:
            return False
        if to is None:
            commit.do(Drop(one.number))
        elif to is State.BURIED:
            self._moves.bury(commit, one, move.reason)
        elif to is State.EXPIRED:
            self._moves.end(commit, one, to, self._context.remember, to, move.reason)
        else:
            if one.state is State.BURIED and one.key is not None and state.busy(seen.channel, one.key):
                to = State.BLOCKED
            now = self._context.clock.now()
            self._moves.move(commit, one, to, attempts=move.attempts, due=now, reason=move.reason)
        return True

    def _standing(self, commit: InboxCommit, seen: JobInfo) -> JobRecord | None:
        """The message that stands as it was seen, with a state of its own from now on."""
        state = commit.state
        known = state.jobs.get(seen.number)
        if known is not None:
            return known if _is(known, seen) else None
        if seen.state in SETTLED:
            found = self._past.numbered(state, seen.number)
            if found is None or not _is(found.record, seen):
                return None
            self._past.recall(commit, found.found)
            return state.jobs[seen.number]
        queue = state.queues.get((seen.channel, seen.priority))
        if queue is None:
            return None
        if seen.state is State.LEASED:
            lease = state.leases.get(lease_key(seen.token, queue.number))
            if lease is None or seen.number not in lease.live:
                return None
            return next(iter(self._moves.materialise_leased(commit, lease, {seen.number})), None)
        record = next(self._queues.fresh(state, queue, seen.number - 1), None)
        if seen.state is State.READY and record is not None and record[0].sequence == seen.number:
            return self._moves.materialise_ready(commit, queue, *record)
        return None

    def wipe(self, selection: Selection) -> int:
        """Remove done and buried messages (never live ones). Returns how many."""

        def job(commit: InboxCommit) -> int:
            over = [one for one in self._view.chosen(commit.state, selection) if not one.live]
            gone = self._past.forget(commit, (one.found for one in self._view.chosen_past(commit.state, selection)))
            for one in over:
                commit.do(Drop(one.number))
            return len(over) + gone

        return self._engine.write_durable(job, reserve=True)


def _is(one: JobRecord, seen: JobInfo) -> bool:
    """Whether a message stands as it was seen."""
    return (one.state, one.token[:8]) == (seen.state, seen.token)
