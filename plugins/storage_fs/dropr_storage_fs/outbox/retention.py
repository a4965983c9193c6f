"""How long what is known of a delivery is kept, and whether its body is.

Owns the rule for deliveries with a state of their own. Must not know where they stand.
"""

from dropr_core.contracts.context import Context
from dropr_core.contracts.outbox import REDRIVABLE
from dropr_core.model.message import State
from dropr_storage_fs.outbox.rows import DeliveryRecord, LaneState


class Retention:
    """What one outbox keeps."""

    def __init__(self, context: Context) -> None:
        self._keep_sent, self._remember = context.keep_sent, context.remember

    def body_is_kept(self, lane: LaneState, record: DeliveryRecord) -> bool:
        """Whether it may be sent again (by a redrive, or because the peer loses what it accepted), or is kept on
        purpose.
        """
        if record.state in REDRIVABLE:
            return True
        if record.state is State.ACCEPTED and record.receipt:
            return True
        return record.state in {State.ACCEPTED, State.PROCESSED} and self._keep(lane) > 0

    def remembered_until(self, moment: float) -> float:
        """Node time until which it is remembered what ended, or was sent with an own id, at a moment."""
        return moment + self._remember

    def forgotten_at(self, lane: LaneState, record: DeliveryRecord) -> float:
        """Node time from which nothing has to be known of one that is over."""
        return record.changed + (self._keep(lane) if record.state is State.ACCEPTED else self._remember)

    def _keep(self, lane: LaneState) -> float:
        return self._keep_sent.get(lane.lane.channel, 0.0)
