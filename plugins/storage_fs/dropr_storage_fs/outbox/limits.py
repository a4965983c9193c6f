"""How many messages and bytes may wait in the outbox: in all, for a peer, on a channel.

Owns the check before anything is stored. Must not know how it is stored.
"""

from collections.abc import Callable, Mapping, Sequence

from dropr_core.contracts.context import Context
from dropr_core.errors import QueueFull
from dropr_core.model.names import Lane
from dropr_storage_fs.files.layout import Row
from dropr_storage_fs.outbox.lane_reader import LaneReader
from dropr_storage_fs.outbox.state import OutboxState

Limit = tuple[int | None, int | None]
Rows = Mapping[Lane, Sequence[Row]]


class Limits:
    """The user's limits on one outbox."""

    def __init__(self, context: Context, lanes: LaneReader) -> None:
        self._context, self._lanes = context, lanes
        self._total: Limit = (context.max_messages, context.max_bytes)
        self.any = self._total != (None, None) or bool(context.peer_limits or context.channel_limits)

    def check(self, state: OutboxState, rows: Rows) -> None:
        """Raise QueueFull if these would be too many."""
        if self._total != (None, None):
            self._check(state, rows, f"the outbox of {self._context.node}", self._total, lambda _lane: True)
        for name in {lane.peer for lane in rows} & set(self._context.peer_limits):
            self._check(state, rows, f"peer {name}", self._context.peer_limits[name], _of_peer(name))
        for name in {lane.channel for lane in rows} & set(self._context.channel_limits):
            self._check(state, rows, f"channel {name}", self._context.channel_limits[name], _of_channel(name))

    def _check(self, state: OutboxState, rows: Rows, what: str, limit: Limit, counts: Callable[[Lane], bool]) -> None:
        depths = [self._lanes.depth(one) for one in state.numbers.values() if counts(one.lane)]
        coming = [part for lane, part in rows.items() if counts(lane)]
        have = (sum(messages for messages, _ in depths), sum(size for _, size in depths))
        more = (sum(map(len, coming)), sum(len(row[3]) for part in coming for row in part))
        for unit, most, now, new in zip(("messages", "bytes"), limit, have, more, strict=True):
            if most is not None and now + new > most:
                raise QueueFull(
                    f"{what}: {now} {unit} are waiting, {new} more would be over the limit of {most}; "
                    "try again when some were delivered, or raise the limit"
                )


def _of_peer(name: str) -> Callable[[Lane], bool]:
    return lambda lane: lane.peer == name


def _of_channel(name: str) -> Callable[[Lane], bool]:
    return lambda lane: lane.channel == name
