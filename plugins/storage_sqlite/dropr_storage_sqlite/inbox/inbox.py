"""The inbox: a work queue for each channel, in one SQLite file.

Owns how its parts make one object; each part owns one kind of work:

    accept     putting messages in, and heads
    lease      claims (with `take`), settlements
    consumers  those that are gone
    end        state moves, outcomes, sweep, wipe
    view       looking
"""

from collections.abc import Callable, Mapping, Sequence

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
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.accept import Acceptor
from dropr_storage_sqlite.inbox.consumers import Consumers
from dropr_storage_sqlite.inbox.end import Ends
from dropr_storage_sqlite.inbox.lease import Leases
from dropr_storage_sqlite.inbox.view import View


class SqliteInbox(Inbox):
    """The receiving half of a store; see the contract for every method."""

    consumers: LockedConsumers

    def __init__(self, engine: Engine, context: Context) -> None:
        self.engine, self.context = engine, context
        self.consumers = self.sheets = LockedConsumers(context.data / "consumers", engine.guard)
        self.flush_interval = engine.tuning.flush
        self._acceptor = Acceptor(engine, context)
        self._leases = Leases(engine, context, self.consumers)
        self._gone = Consumers(engine, context, self.consumers)
        self._ends = Ends(engine, context)
        self._view = View(engine, context)

    @property
    def store_id(self) -> StoreId:
        """Names this half and its outcome logs."""
        return StoreId(bytes(self.engine.look(sql.STORE)[0][0]))

    def heads(self, sender: str, store: StoreId | None = None) -> dict[SourceLane, Head]:  # noqa: D102
        return self._acceptor.heads(sender, store)

    def accept(self, arrivals: Sequence[Arrival]) -> list[Accepted]:  # noqa: D102
        return self._acceptor.accept(arrivals)

    def accept_telling(  # noqa: D102
        self, arrivals: Sequence[Arrival], seen: Callable[[Sequence[Accepted]], None]
    ) -> list[Accepted]:
        return self._acceptor.accept(arrivals, seen)

    def accept_together(self, arrivals: Sequence[Arrival]) -> list[Accepted]:  # noqa: D102
        return self._acceptor.accept_together(arrivals)

    def put(self, channel: str, priority: int, sender: str, jobs: Sequence[Job]) -> Sequence[int]:  # noqa: D102
        return self._acceptor.put_all([Put(channel, priority, sender, jobs)])[0]

    def put_all(self, puts: Sequence[Put]) -> list[Sequence[int]]:  # noqa: D102
        return self._acceptor.put_all(puts)

    def claim(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:  # noqa: D102
        return self._leases.claim(channels, limit, consumer)

    def claim_at_once(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:  # noqa: D102
        return self._leases.claim(channels, limit, consumer, settled=False)

    def claim_number(self, number: int, consumer: str) -> Claim | None:  # noqa: D102
        return self._leases.claim_number(number, consumer)

    def find(self, number: int) -> JobInfo | None:  # noqa: D102
        return self._view.find(number)

    def peek(self, channel: str, state: State) -> JobInfo | None:  # noqa: D102
        return self._view.peek(channel, state)

    def settle(self, changes: Sequence[Settlement]) -> list[bool]:  # noqa: D102
        return self._leases.settle(changes)

    def acknowledge(self, claims: Sequence[Claim], keep: float = 0.0) -> list[bool]:  # noqa: D102
        return super().acknowledge(claims, keep) if keep else self._leases.acknowledge(claims)

    def holds(self, claim: Claim) -> bool:  # noqa: D102
        return self._leases.holds(claim)

    def retire(self, consumer: str) -> None:  # noqa: D102
        self._gone.retire(consumer)

    def reap(self, attempts: Mapping[str, int]) -> tuple[list[str], bool]:  # noqa: D102
        return self._gone.reap(attempts)

    def next_due(self, channels: Sequence[str]) -> float | None:  # noqa: D102
        return self._view.next_due(channels)

    def outcomes(  # noqa: D102
        self, sender: str, log: StoreId | None, after: int, limit: int, max_bytes: int = RECEIPTS_BYTES
    ) -> tuple[StoreId, list[Outcome]]:
        return self._ends.outcomes(sender, log, after, limit, max_bytes)

    def move(self, moves: Sequence[JobMove]) -> list[bool]:  # noqa: D102
        return self._ends.move(moves)

    def sweep(self) -> float | None:  # noqa: D102
        return self._ends.sweep()

    def wipe(self, selection: Selection) -> int:  # noqa: D102
        return self._ends.wipe(selection)

    def flush(self) -> None:  # noqa: D102
        self.engine.flush()

    def scan(self, selection: Selection, after: int = 0, limit: int = 100) -> list[JobInfo]:  # noqa: D102
        return self._view.scan(selection, after, limit)

    def envelope(self, message_id: MessageId) -> bytes | None:  # noqa: D102
        return self._view.envelope(message_id)

    def counts(self) -> Mapping[str, Mapping[str, int]]:  # noqa: D102
        return self._view.counts()

    def urgent(self) -> Mapping[str, int]:  # noqa: D102
        return self._view.urgent()

    def oldest(self) -> Mapping[str, float]:  # noqa: D102
        return self._view.oldest()

    def close(self) -> None:
        """Give back what this process's consumers hold, then release everything; safe twice."""
        for consumer in self.consumers.names():
            try:
                self.retire(consumer)
            except DroprError as error:  # its leases end with the process all the same
                self.context.log.warning("consumer %s could not give back its leases: %s", consumer, error)
        self.engine.close()
