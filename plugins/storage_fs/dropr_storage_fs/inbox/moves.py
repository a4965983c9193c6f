"""One message from state to state, within a commit.

Owns what goes with a change: an outcome for a sender that asked, the next message of an ordering key. Must not know
who wants the change, nor why.
"""

from dropr_core.contracts.context import Context
from dropr_core.model.message import State
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.files.layout import RECEIPT, Record
from dropr_storage_fs.files.segment import Place
from dropr_storage_fs.inbox.operations import AddJob, Drop, MoveJob, Unlease
from dropr_storage_fs.inbox.outcome_operations import AddOutcome
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.rows import JobRecord, Lease, Queue, pack_runs
from dropr_storage_fs.inbox.state import InboxState

InboxCommit = Commit[InboxState]


class Moves:
    """Changes of single messages."""

    def __init__(self, context: Context, queues: QueueReader) -> None:
        self._context, self._queues = context, queues

    def move(
        self, commit: InboxCommit, job: JobRecord, to: State, *, attempts: int | None = None, due: float | None = None,
        reason: str = "", keep: float = 0.0, token: bytes = b"", consumer: str = "", rank: int | None = None,
    ) -> None:  # fmt: skip
        """A message changes its state, and its rank if one is given."""
        attempts = job.attempts if attempts is None else attempts
        due = job.due if due is None else due
        now = self._context.clock.now()
        commit.do(MoveJob(job.number, to, now, attempts, due, token, consumer, reason, keep,
                          None if rank == commit.state.rank(job) else rank))  # fmt: skip

    def end(
        self, commit: InboxCommit, job: JobRecord, to: State, keep: float, outcome: State, reason: str = "",
        result: bytes | None = None, content_type: str = "", rank: int | None = None,
    ) -> None:  # fmt: skip
        """Done, buried or expired: frees its key, and tells a sender that asked."""
        self.move(commit, job, to, keep=keep, reason=reason if to is State.BURIED else "", rank=rank)
        if job.flags & RECEIPT:
            self.tell(commit, job.sender, job.id, outcome, reason, result, content_type)
        self._unblock(commit, job)

    def bury(self, commit: InboxCommit, job: JobRecord, reason: str, rank: int | None = None) -> None:
        """Into the dead letters."""
        self.end(commit, job, State.BURIED, self._context.remember, State.FAILED, reason, rank=rank)

    def expire(self, commit: InboxCommit, limit: int | None) -> None:
        """End what is past its time and not leased, and with a ``limit`` forget what ended long ago."""
        state = commit.state
        now = self._context.clock.now()
        while state.timers and state.timers[0][0] <= now and (limit is None or limit > 0):
            moment, number = state.timers[0]
            job = state.jobs.get(number)
            if job is None or job.timer != moment:
                state.next_timer()
                continue
            if not job.live:
                if limit is None:
                    break  # `sweep` forgets it
                state.next_timer()
                commit.do(Drop(number))
            else:
                state.next_timer()
                self.end(commit, job, State.EXPIRED, self._context.remember, State.EXPIRED, "expired")
            if limit is not None:
                limit -= 1

    @staticmethod
    def tell(
        commit: InboxCommit, sender: str, identity: bytes, outcome: State, reason: str, result: bytes | None,
        content_type: str,
    ) -> None:  # fmt: skip
        """A row in the outcome log of a sender."""
        number = commit.state.outcome_numbers[sender] + 1
        commit.do(AddOutcome(sender, number, identity, outcome, reason, result, content_type))

    def _unblock(self, commit: InboxCommit, ended: JobRecord) -> None:
        """The next message of a key may go."""
        if ended.key is None:
            return
        state = commit.state
        key = (state.numbers[ended.queue].channel, ended.key)
        waiting = [number for number in state.keys.get(key, ()) if state.jobs[number].state is State.BLOCKED]
        if waiting and not state.busy(*key):
            job = state.jobs[min(waiting)]
            self.move(commit, job, State.DELAYED if job.due > self._context.clock.now() else State.READY)

    # ── plain messages get a state of their own ──────────────────────────────────────────────────

    def materialise_leased(self, commit: InboxCommit, lease: Lease, numbers: set[int]) -> list[JobRecord]:
        """Messages leased with others."""
        state, now = commit.state, self._context.clock.now()
        queue = state.numbers[lease.queue]
        found = list(self._queues.leased(queue, numbers))
        commit.do(Unlease(lease.token, pack_runs(sorted(numbers))))
        for record, where in found:
            commit.do(AddJob(
                record.sequence, queue.number, record.id, self._queues.sender_of(record), State.LEASED, record.flags,
                len(record.envelope), record.born, None, record.born, None, *where, 1, [], now, 0.0, lease.token,
                lease.consumer, False,
            ))  # fmt: skip
        return [state.jobs[record.sequence] for record, _ in found]

    def materialise_ready(self, commit: InboxCommit, queue: Queue, record: Record, where: Place) -> JobRecord:
        """A message that is simply ready."""
        commit.do(AddJob(
            record.sequence, queue.number, record.id, self._queues.sender_of(record), State.READY, record.flags,
            len(record.envelope), record.born, None, record.born, None, *where, 0, [], record.born, 0.0, b"", "", True,
        ))  # fmt: skip
        return commit.state.jobs[record.sequence]
