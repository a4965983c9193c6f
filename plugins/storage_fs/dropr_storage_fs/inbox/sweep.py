"""What time does to the inbox: messages expire, and are forgotten.

Owns `sweep`, and what of a queue's log is still needed. Must not know consumers.
"""

from collections.abc import Iterator, Sequence

from dropr_core.model.message import State
from dropr_storage_fs.engine.compaction import Compaction, Needed, SegmentUse
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.segment import Place
from dropr_storage_fs.inbox.moves import InboxCommit, Moves
from dropr_storage_fs.inbox.operations import AddJob, Advance, MoveRecord
from dropr_storage_fs.inbox.remembered import PastJobs
from dropr_storage_fs.inbox.state import InboxState

SWEEP = 1000
"""Messages that one sweep handles at most."""


class InboxSegments(SegmentUse[InboxState, AddJob]):
    """What the inbox needs of its logs."""

    def lowest(self, state: InboxState, number: int) -> int:
        """What follows the frontier, and what is leased with others."""
        queue = state.numbers[number]
        return min([queue.frontier + 1, *(min(lease.live) for lease in state.leases_of(queue) if lease.live)])

    def needed_segments(self, state: InboxState, number: int) -> set[int]:
        """Where messages with a state of their own stand."""
        mine = {job.at.segment for job in state.jobs.values() if job.queue == number}
        return mine | self.segments_of_runs(state, number)

    def stragglers(self, state: InboxState) -> Iterator[tuple[int, int, Sequence[Needed]]]:
        """Messages with a state of their own, in queues of which nothing is leased."""
        kept: dict[int, list[Needed]] = {}
        busy = {lease.queue for lease in state.leases.values()}
        for job in state.jobs.values():
            if job.state is State.LEASED:
                busy.add(job.queue)
            else:
                kept.setdefault(job.queue, []).append(Needed(job.number, job.at, job.size))
        for number in set(state.numbers) - busy:
            yield number, state.numbers[number].frontier, kept.get(number, [])

    def moved(self, number: int, sequence: int, to: Place) -> MoveRecord:
        """A message stands elsewhere now."""
        return MoveRecord(number, sequence, *to)

    def needed(self, op: AddJob) -> Needed:
        """Of a message in a run."""
        return Needed(op.number, Place(op.segment, op.offset), op.size)


class Sweeper:
    """What time does."""

    def __init__(self, engine: Engine[InboxState], moves: Moves, past: PastJobs) -> None:
        self._engine, self._moves, self._past = engine, moves, past
        self._compaction = Compaction(engine, InboxSegments(past))

    def sweep(self) -> float | None:
        """End expired messages, forget done and buried ones past their time."""

        def job(commit: InboxCommit) -> float | None:
            self._moves.expire(commit, SWEEP)
            self._advance(commit)
            dues = [self._past.sweep(commit, SWEEP), *(job.timer for job in commit.state.jobs.values())]
            return min((due for due in dues if due is not None), default=None)

        due = self._engine.write(job)
        self._compaction.run()
        self._engine.keep_reserve()
        return due

    @staticmethod
    def _advance(commit: InboxCommit) -> None:
        """Where nothing is simply ready, all of the log is behind: claims pass what has a state of its own only
        together with what has none.
        """
        for number, queue in commit.state.numbers.items():
            end = commit.end(number)
            if queue.frontier < end.last and end.count <= queue.taken and commit.is_flushed(number):
                commit.do(Advance(number, end.last))
