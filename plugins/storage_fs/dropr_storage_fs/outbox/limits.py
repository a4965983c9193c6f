"""How many messages and bytes wait in the outbox, for the limits of the user.

Owns the sums before anything is stored. Must not know how it is stored.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from dropr_core.contracts.context import Context
from dropr_core.model.names import Lane
from dropr_core.storage_kit.limits import Amount, check_outbox, limited
from dropr_storage_fs.files.layout import Row
from dropr_storage_fs.outbox.lane_reader import LaneReader
from dropr_storage_fs.outbox.state import OutboxState


class Limits:
    """The user's limits on one outbox."""

    def __init__(self, context: Context, lanes: LaneReader) -> None:
        self._context, self._lanes = context, lanes
        self.any = limited(context)

    def check(self, state: OutboxState, rows: Mapping[Lane, Sequence[Row]]) -> None:
        """Raise QueueFull if these would be too many."""
        if not self.any:
            return
        more: dict[tuple[str, str], Amount] = {}
        for lane, part in rows.items():
            before = more.get((lane.peer, lane.channel), (0, 0))
            size = sum(len(row[3]) for row in part)
            more[lane.peer, lane.channel] = (before[0] + len(part), before[1] + size)

        def waiting(kind: Literal["all", "peer", "channel"], name: str) -> Amount:
            depths = [
                self._lanes.depth(one)
                for one in state.numbers.values()
                if kind == "all" or name == (one.lane.peer if kind == "peer" else one.lane.channel)
            ]
            return sum(messages for messages, _ in depths), sum(size for _, size in depths)

        check_outbox(self._context, more, waiting)
