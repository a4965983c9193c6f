"""How deliveries end by what the peer says became of them.

Owns `receipts`. Must not know how long anything is kept.
"""

from collections.abc import Sequence

from dropr_core.contracts.context import Context
from dropr_core.model.message import Outcome
from dropr_core.model.names import MessageId, StoreId
from dropr_core.model.states import DELIVERY, may_follow
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.outbox.changes import add_queued, change
from dropr_storage_fs.outbox.lane_reader import LaneReader
from dropr_storage_fs.outbox.operations import AddDelivery, ChangeDelivery, MoveCursor
from dropr_storage_fs.outbox.remembered import PastDeliveries
from dropr_storage_fs.outbox.state import OutboxState


class Receipts:
    """What comes home."""

    def __init__(
        self, engine: Engine[OutboxState], context: Context, lanes: LaneReader, remembered: PastDeliveries
    ) -> None:
        self._engine, self._context, self._lanes, self._remembered = engine, context, lanes, remembered

    def receipts(self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int) -> list[MessageId]:
        """Record outcomes that came home and the cursor of the peer's log; durable."""

        def nothing_new(state: OutboxState) -> bool:
            kept = state.peers.get(peer)
            return kept is not None and kept.log == log and kept.cursor >= upto

        if not outcomes and self._engine.read(nothing_new):
            return []

        def job(commit: Commit[OutboxState]) -> list[MessageId]:
            kept = commit.state.peers.get(peer)
            cursor = kept.cursor if kept is not None and kept.log == log else 0
            now = self._context.clock.now()
            ended: dict[bytes, None] = {}
            for outcome in outcomes:
                if outcome.number <= cursor:
                    continue  # recorded before; the delivery may have been sent again since
                mine = self._changes(commit, peer, outcome, now)
                for op in mine:  # at once: the next one may be of the same message, buried and then kicked
                    commit.do(op)
                    ended[outcome.id] = None
            commit.do(MoveCursor(peer, log, max(cursor, upto)))
            return [MessageId(identity) for identity in ended]

        return self._engine.write_durable(job, reserve=True)

    def _changes(
        self, commit: Commit[OutboxState], peer: str, outcome: Outcome, now: float
    ) -> Sequence[AddDelivery | ChangeDelivery]:
        """What an outcome changes."""
        state, to = commit.state, outcome.state
        values = (outcome.reason, outcome.result, outcome.content_type)
        mine = [known for known in state.by_id.get(outcome.id, ()) if state.numbers[known.number].lane.peer == peer]
        if not mine:
            past = self._remembered.named(state, outcome.id)
            past = [one for one in past if state.numbers[one.record.number].lane.peer == peer]
            late = [one for one in past if may_follow(DELIVERY, one.record.state, to)]
            if past and not late:
                return []  # it ended long ago
            mine = [self._remembered.back(commit, one) for one in late]
        if mine:
            return [change(known, to, now, *values) for known in mine if may_follow(DELIVERY, known.state, to)]
        # Also a delivery that stands as queued: the peer had it, and the answer to the push was lost.
        found = [row for row in self._lanes.find_queued(state, outcome.id) if row[0].lane.peer == peer]
        return [add_queued(lane, record, where, to, now, *values) for lane, record, where in found]
