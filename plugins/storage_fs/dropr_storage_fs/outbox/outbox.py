"""The outbox of the storage ``fs``.

Owns nothing but the sum of its parts; see contracts/storage.py for what each method promises.
"""

from collections.abc import Mapping, Sequence

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
)
from dropr_core.model.message import Outcome
from dropr_core.model.names import Head, Lane, MessageId, StoreId
from dropr_storage_fs.engine.engine import Engine, Tuning
from dropr_storage_fs.engine.run_files import RunFiles
from dropr_storage_fs.outbox.append import Appender
from dropr_storage_fs.outbox.lane_reader import LaneReader
from dropr_storage_fs.outbox.limits import Limits
from dropr_storage_fs.outbox.matching import Matching
from dropr_storage_fs.outbox.moves import StateMoves
from dropr_storage_fs.outbox.peers import Peers
from dropr_storage_fs.outbox.receipts import Receipts
from dropr_storage_fs.outbox.recovery import OutboxModel
from dropr_storage_fs.outbox.remembered import PastDeliveries
from dropr_storage_fs.outbox.retention import Retention
from dropr_storage_fs.outbox.sweep import Sweeper
from dropr_storage_fs.outbox.take import Shipping
from dropr_storage_fs.outbox.view import Cursor, OutboxView


class FsOutbox(Outbox):
    """See contracts/storage.py."""

    staging = True

    def __init__(self, tuning: Tuning, context: Context) -> None:
        self.context = context
        directory, retention = context.data / "outbox", Retention(context)
        self._remembered = remembered = PastDeliveries(directory, context, retention)
        self.engine = Engine(directory, tuning, context, OutboxModel(retention, remembered))
        lanes = LaneReader(self.engine)
        self._view = OutboxView(self.engine, context, lanes, retention, remembered)
        self._appender = Appender(self.engine, context, Limits(context, lanes), remembered)
        self._shipping = Shipping(self.engine, context, lanes)
        self._matching = Matching(self.engine, context, lanes, remembered)
        self._receipts = Receipts(self.engine, context, lanes, remembered)
        self._moves = StateMoves(self.engine, context, lanes, remembered)
        self._sweeper = Sweeper(self.engine, context, lanes, self._view, retention, remembered)
        self._peers = Peers(self.engine)

    @property
    def store_id(self) -> StoreId:
        """The id under which peers know this half now."""
        return self._view.store_id()

    def append(self, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:
        """Store all messages or none, durably."""
        return self._appender.append(messages)

    def append_staged(self, messages: Sequence[NewMessage], log: str, after: int, upto: int) -> bool:
        """`append`, with a note about a staging log."""
        return self._appender.append_staged(messages, log, after, upto)

    def staged(self) -> Mapping[str, int]:
        """Staging log → how far it is taken in."""
        return self.engine.read(lambda state: dict(state.staged))

    def unstage(self, logs: Sequence[str]) -> None:
        """These logs are gone."""
        self._appender.unstage(logs)

    def lanes(self, peer: str | None = None) -> list[LaneStats]:
        """Every lane with queued deliveries (of one peer)."""
        return self._shipping.lanes(peer)

    def take(self, lane: Lane, max_count: int, max_bytes: int, *, mark_in_flight: bool = True) -> Batch | None:
        """What follows the lane's head."""
        return self._shipping.take(lane, max_count, max_bytes, mark=mark_in_flight)

    def clear_in_flight(self, lane: Lane) -> None:
        """It is certain that nothing after the head reached the peer."""
        self._shipping.clear_in_flight(lane)

    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection] = ()) -> None:
        """The peer has committed up to ``head``."""
        self._shipping.settle(lane, head, rejected)

    def locate(self, lane: Lane, sequence: int) -> MessageId | None:
        """The id at a position."""
        return self._matching.locate(lane, sequence)

    def rewind(self, lane: Lane, head: Head) -> int:
        """The peer lost what followed ``head``."""
        return self._matching.rewind(lane, head)

    def renumber(self) -> StoreId:
        """This half was rolled back or cloned."""
        return self._matching.renumber()

    def receipts(self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int) -> list[MessageId]:
        """Record outcomes that came home and the cursor of the peer's log."""
        return self._receipts.receipts(peer, log, outcomes, upto)

    def peers(self) -> Mapping[str, PeerState]:
        """Every peer that a delivery was ever sent to, or that is held."""
        return self._view.peers()

    def hold(self, peer: str, reason: str | None) -> None:
        """Stop shipping to the peer; None: ship again."""
        self._peers.hold(peer, reason)

    def move(self, moves: Sequence[DeliveryMove]) -> list[bool]:
        """Move each delivery that stands as it is given."""
        return self._moves.move(moves)

    def sweep(self, life: float) -> tuple[list[MessageId], float | None]:
        """End what is due, forget what is past its time."""
        return self._sweeper.sweep(life)

    def wipe(self, selection: Selection) -> int:
        """Forget ended deliveries."""
        return self._sweeper.wipe(selection)

    def scan(self, selection: Selection, after: Cursor = (0, 0), limit: int = 100) -> list[tuple[Cursor, Delivery]]:
        """A page of deliveries and the cursor of each."""
        return self._view.scan(selection, after, limit)

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""
        return self._view.envelope(message_id)

    def counts(self) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """(peer, channel) → state → number, and ``sent`` ever."""
        return self._view.counts()

    def remembered_files(self) -> list[tuple[RunFiles, list[int]]]:
        """Files of what is remembered, for a check."""
        return [(self._remembered.files, self.engine.read(lambda state: list(state.runs)))]

    def close(self) -> None:
        """Flush and close; safe twice."""
        self.engine.close()
        self._remembered.close()
