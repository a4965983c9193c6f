"""The inbox of the storage ``fs``.

Owns the sum of its parts, and the consumers' locks; see contracts/storage.py for what each method promises.
"""

import contextlib
from collections.abc import Mapping, Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import (
    Accepted,
    Arrival,
    Claim,
    Inbox,
    Job,
    JobInfo,
    JobMove,
    Put,
    Selection,
    Settlement,
)
from dropr_core.errors import DroprError
from dropr_core.model.limits import RECEIPTS_BYTES
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Head, MessageId, SourceLane, StoreId
from dropr_core.storage_kit.consumers import LockedConsumers
from dropr_storage_fs.engine.engine import Engine, Tuning
from dropr_storage_fs.engine.run_files import RunFiles
from dropr_storage_fs.inbox.accept import Accepting
from dropr_storage_fs.inbox.care import Care
from dropr_storage_fs.inbox.claim import Claiming
from dropr_storage_fs.inbox.consumers import Consumers
from dropr_storage_fs.inbox.limits import Limits
from dropr_storage_fs.inbox.moves import Moves
from dropr_storage_fs.inbox.outcomes import OutcomeLogs
from dropr_storage_fs.inbox.past_outcomes import PastOutcomes
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.recovery import InboxModel
from dropr_storage_fs.inbox.remembered import PastJobs
from dropr_storage_fs.inbox.settle import Settling
from dropr_storage_fs.inbox.sweep import Sweeper
from dropr_storage_fs.inbox.view import InboxView


class FsInbox(Inbox):
    """See contracts/storage.py."""

    checked = True
    consumers: LockedConsumers

    def __init__(self, tuning: Tuning, context: Context) -> None:
        self.context = context
        directory = context.data / "inbox"
        self._past_jobs = past_jobs = PastJobs(directory, context)
        self._past_outcomes = past_outcomes = PastOutcomes(directory, context)
        self.engine = Engine(directory, tuning, context, InboxModel(past_jobs, past_outcomes))
        self.consumers = self.sheets = LockedConsumers(context.data / "consumers", self.engine.guard)
        self.flush_interval = tuning.flush
        queues = QueueReader(self.engine)
        moves = Moves(context, queues)
        self._view = InboxView(self.engine, context, queues, past_jobs)
        self._accepting = Accepting(self.engine, context, queues, Limits(context, queues), past_jobs)
        self._claiming = Claiming(self.engine, context, queues, moves, self.consumers, past_jobs)
        self._settling = Settling(self.engine, context, moves)
        self._consumers = Consumers(self.engine, moves, self.consumers)
        self._outcomes = OutcomeLogs(self.engine, past_outcomes)
        self._sweeper = Sweeper(self.engine, moves, past_jobs)
        self._care = Care(self.engine, context, queues, moves, self._view, past_jobs)

    @property
    def store_id(self) -> StoreId:
        """Names this half and its outcome logs."""
        return self._outcomes.store_id()

    def heads(self, sender: str, store: StoreId | None = None) -> dict[SourceLane, Head]:
        """Every head known for a sender (and one of its store ids)."""
        return self._accepting.heads(sender, store)

    def accept(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """The log-matching rule, all arrivals in one durable transaction."""
        return self._accepting.accept(arrivals)

    def accept_together(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """`accept`, but all arrivals or none."""
        return self._accepting.accept(arrivals, together=True)

    def put(self, channel: str, priority: int, sender: str, jobs: Sequence[Job]) -> Sequence[int]:
        """Queue jobs that come from this node itself; durable."""
        return self._accepting.put_all([Put(channel, priority, sender, jobs)])[0]

    def put_all(self, puts: Sequence[Put]) -> list[Sequence[int]]:
        """`put` for several queues, in one commit."""
        return self._accepting.put_all(puts)

    def retire(self, consumer: str) -> None:
        """The consumer is gone: its leases end."""
        self._consumers.retire(consumer)

    def claim(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:
        """Lease up to ``limit`` messages."""
        return self._claiming.claim(channels, limit, consumer)

    def claim_number(self, number: int, consumer: str) -> Claim | None:
        """Lease one given message."""
        return self._claiming.claim_number(number, consumer)

    def find(self, number: int) -> JobInfo | None:
        """The message with a number."""
        return self._view.find(number)

    def peek(self, channel: str, state: State) -> JobInfo | None:
        """The next ready, delayed or buried message of a channel."""
        return self._view.peek(channel, state)

    def settle(self, changes: Sequence[Settlement]) -> list[bool]:
        """Apply each change whose lease still holds."""
        return self._settling.settle(changes)

    def acknowledge(self, claims: Sequence[Claim], keep: float = 0.0) -> list[bool]:
        """`settle` with an `Ack` for each."""
        return self._settling.acknowledge(claims, keep)

    def holds(self, claim: Claim) -> bool:
        """Whether the lease still holds."""
        return self._settling.holds(claim)

    def reap(self, attempts: Mapping[str, int]) -> tuple[list[str], bool]:
        """End the leases of consumers whose process died."""
        return self._consumers.reap(attempts)

    def next_due(self, channels: Sequence[str]) -> float | None:
        """Node time at which the next delayed message of these channels becomes ready."""
        return self._care.next_due(channels)

    def outcomes(
        self, sender: str, log: StoreId | None, after: int, limit: int, max_bytes: int = RECEIPTS_BYTES
    ) -> tuple[StoreId, list[Outcome]]:
        """The outcome log of a sender after number ``after``."""
        return self._outcomes.outcomes(sender, log, after, limit, max_bytes)

    def sweep(self) -> float | None:
        """End expired messages, forget done and buried ones past their time."""
        return self._sweeper.sweep()

    def flush(self) -> None:
        """Everything settled so far is on stable storage when this returns."""
        self.engine.guard.enter(write=False)
        self.engine.flush()

    def scan(self, selection: Selection, after: int = 0, limit: int = 100) -> list[JobInfo]:
        """A page of messages in order of arrival."""
        return self._view.scan(selection, after, limit)

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""
        return self._view.envelope(message_id)

    def move(self, moves: Sequence[JobMove]) -> list[bool]:
        """Move each message that stands as it is given."""
        return self._care.move(moves)

    def wipe(self, selection: Selection) -> int:
        """Remove done and buried messages."""
        return self._care.wipe(selection)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Channel → state → number, and ``processed`` ever, ``bytes``."""
        return self._view.counts()

    def urgent(self) -> Mapping[str, int]:
        """Channel → ready messages of an urgent priority."""
        return self._view.urgent()

    def oldest(self) -> Mapping[str, float]:
        """Channel → seconds that its first ready message has waited."""
        return self._view.oldest()

    def remembered_files(self) -> list[tuple[RunFiles, list[int]]]:
        """Files of what is remembered, for a check."""
        return self.engine.read(lambda state: [
            (self._past_jobs.files, list(state.runs)), (self._past_outcomes.files, list(state.outcome_runs))
        ])  # fmt: skip

    def close(self) -> None:
        """Close; the leases of its consumers end when somebody reaps. Safe twice."""
        if not self.engine.guard.forked:
            with contextlib.suppress(DroprError):
                for name in self.consumers.names():
                    self.consumers.abandon(name)
        self.engine.close()
        self._past_jobs.close()
        self._past_outcomes.close()
