"""Mending by hand: buried and delayed messages go again, others are buried or forgotten.

Owns `kick`, `bury`, `wipe` and `next_due`. Must not know consumers.
"""

from collections.abc import Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Selection
from dropr_core.model.message import State
from dropr_core.model.names import MessageId
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.inbox.moves import InboxCommit, Moves
from dropr_storage_fs.inbox.operations import Drop
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.state import InboxState
from dropr_storage_fs.inbox.view import InboxView


class Care:
    """What people do with messages."""

    def __init__(
        self, engine: Engine[InboxState], context: Context, queues: QueueReader, moves: Moves, view: InboxView
    ) -> None:
        self._engine, self._context, self._queues, self._moves, self._view = engine, context, queues, moves, view

    def next_due(self, channels: Sequence[str]) -> float | None:
        """Node time at which the next delayed message of these channels becomes ready."""

        def job(state: InboxState) -> float | None:
            dues = []
            for channel in channels:
                for due, number in sorted(state.delayed.get(channel, ())):
                    one = state.jobs.get(number)
                    if one is not None and one.state is State.DELAYED and one.due == due:
                        dues.append(due)
                        break
            return min(dues, default=None)

        return self._engine.read(job)

    def kick(self, selection: Selection) -> int:
        """Make buried and delayed messages ready, with fresh attempts. Durable."""

        def job(commit: InboxCommit) -> int:
            state, now = commit.state, self._context.clock.now()
            chosen = self._view.chosen(state, selection)
            jobs = [one for one in chosen if one.state in {State.BURIED, State.DELAYED}]
            for one in jobs:
                to = State.READY
                channel = state.numbers[one.queue].channel
                if one.state is State.BURIED and one.key is not None and state.busy(channel, one.key):
                    to = State.BLOCKED
                self._moves.move(commit, one, to, attempts=0, due=now)
            return len(jobs)

        return self._engine.write_durable(job)

    def bury(self, message_id: MessageId, reason: str) -> bool:
        """Bury a message that is not leased. Durable."""

        def job(commit: InboxCommit) -> bool:
            state = commit.state
            jobs = [state.jobs[number] for number in state.by_id.get(message_id, ())]
            jobs = [one for one in jobs if one.live and one.state is not State.LEASED]
            for queue, record, where in list(self._queues.find(state, message_id)):
                if record.sequence > queue.frontier:
                    jobs.append(self._moves.materialise_ready(commit, queue, record, where))
            for one in jobs:
                self._moves.bury(commit, one, reason)
            return bool(jobs)

        return self._engine.write_durable(job, reserve=True)

    def wipe(self, selection: Selection) -> int:
        """Remove done and buried messages (never live ones). Returns how many."""

        def job(commit: InboxCommit) -> int:
            over = [one for one in self._view.chosen(commit.state, selection) if not one.live]
            for one in over:
                commit.do(Drop(one.number))
            return len(over)

        return self._engine.write_durable(job, reserve=True)
