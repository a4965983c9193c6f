"""The outbox: a log for each lane, in one SQLite file.

Owns how its parts make one object; each part owns one kind of work:

    append   putting messages in
    ship     reading lanes and moving heads
    end      state moves, receipts, sweep, wipe
    view     looking, and the hold of a peer
"""

from collections.abc import Callable, Mapping, Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import (
    AppendResult,
    Batch,
    Delivery,
    DeliveryMove,
    LaneStats,
    NewMessage,
    Outbox,
    PeerState,
    Rejection,
    Selection,
    Standing,
)
from dropr_core.model.message import Outcome
from dropr_core.model.names import Head, Lane, MessageId, StoreId
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.outbox import sql
from dropr_storage_sqlite.outbox.append import Appender
from dropr_storage_sqlite.outbox.end import Ends
from dropr_storage_sqlite.outbox.ship import Shipper
from dropr_storage_sqlite.outbox.view import View


class SqliteOutbox(Outbox):
    """The sending half of a store; see the contract for every method."""

    staging = True

    def __init__(self, engine: Engine, context: Context) -> None:
        self.engine, self.context = engine, context
        self.appender = Appender(engine, context)
        self._shipper = Shipper(engine, context)
        self._ends = Ends(engine, context)
        self._view = View(engine, context)

    @property
    def store_id(self) -> StoreId:
        """The id under which peers know this half now; another process may have changed it."""
        return StoreId(bytes(self.engine.look(sql.STORE)[0][0]))

    def append(self, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:  # noqa: D102
        return self.appender.append(messages)

    def append_telling(  # noqa: D102
        self, messages: Sequence[NewMessage], seen: Callable[[], None]
    ) -> Sequence[AppendResult]:
        return self.appender.append(messages, lambda _placed: seen())

    def append_staged(self, messages: Sequence[NewMessage], log: str, after: int, upto: int) -> bool:  # noqa: D102
        return self.appender.append_staged(messages, log, after, upto)

    def staged(self) -> Mapping[str, int]:  # noqa: D102
        return self._view.staged()

    def unstage(self, logs: Sequence[str]) -> None:  # noqa: D102
        keys = [(sql.STAGED + log,) for log in logs]
        self.engine.write_durable(
            lambda connection: connection.executemany(sql.FORGET_STAGED, keys) and None, relief=True
        )

    def lanes(self, peer: str | None = None) -> list[LaneStats]:  # noqa: D102
        return self._shipper.lanes(peer)

    def standing(self) -> Standing:  # noqa: D102
        return self._shipper.standing()

    def take(  # noqa: D102
        self, lane: Lane, max_count: int, max_bytes: int, *, mark_in_flight: bool = True
    ) -> Batch | None:
        return self._shipper.take(lane, max_count, max_bytes, mark_in_flight=mark_in_flight)

    def clear_in_flight(self, lane: Lane) -> None:  # noqa: D102
        self._shipper.clear_in_flight(lane)

    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection] = ()) -> None:  # noqa: D102
        self._shipper.settle(lane, head, rejected)

    def locate(self, lane: Lane, sequence: int) -> MessageId | None:  # noqa: D102
        return self._shipper.locate(lane, sequence)

    def rewind(self, lane: Lane, head: Head) -> int:  # noqa: D102
        return self._shipper.rewind(lane, head)

    def renumber(self) -> StoreId:  # noqa: D102
        return self._shipper.renumber()

    def receipts(  # noqa: D102
        self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int
    ) -> list[MessageId]:
        return self._ends.receipts(peer, log, outcomes, upto)

    def move(self, moves: Sequence[DeliveryMove]) -> list[bool]:  # noqa: D102
        return self._ends.move(moves)

    def sweep(self, life: float) -> tuple[list[MessageId], float | None]:  # noqa: D102
        return self._ends.sweep(life)

    def wipe(self, selection: Selection) -> int:  # noqa: D102
        return self._ends.wipe(selection)

    def scan(  # noqa: D102
        self, selection: Selection, after: tuple[int, int] = (0, 0), limit: int = 100
    ) -> list[tuple[tuple[int, int], Delivery]]:
        return self._view.scan(selection, after, limit)

    def envelope(self, message_id: MessageId) -> bytes | None:  # noqa: D102
        return self._view.envelope(message_id)

    def counts(self) -> Mapping[tuple[str, str], Mapping[str, int]]:  # noqa: D102
        return self._view.counts()

    def peers(self) -> Mapping[str, PeerState]:  # noqa: D102
        return self._view.peers()

    def hold(self, peer: str, reason: str | None) -> None:  # noqa: D102
        self._view.hold(peer, reason)

    def close(self) -> None:  # noqa: D102
        try:
            self.engine.close()
        finally:
            self.appender.close()
