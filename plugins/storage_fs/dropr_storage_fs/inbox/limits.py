"""How many messages and bytes may wait in the inbox: in all, on a channel.

Owns the check before anything is stored. Must not know how it is stored.
"""

from collections.abc import Mapping, Sequence

from dropr_core.contracts.context import Context
from dropr_core.errors import QueueFull
from dropr_storage_fs.files.layout import Row
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.state import InboxState

Limit = tuple[int | None, int | None]


class Limits:
    """The user's limits on one inbox."""

    def __init__(self, context: Context, queues: QueueReader) -> None:
        self._context, self._queues = context, queues
        self._total: Limit = (context.max_messages, context.max_bytes)
        self._any = self._total != (None, None) or bool(context.channel_limits)

    def check(self, state: InboxState, rows: Mapping[tuple[str, int], Sequence[Row]]) -> None:
        """Raise QueueFull if these, by channel and priority, would be too many."""
        if not self._any:
            return
        coming: dict[str, list[int]] = {}
        for (channel, _), part in rows.items():
            mine = coming.setdefault(channel, [0, 0])
            mine[0] += len(part)
            mine[1] += sum(len(row[3]) for row in part)
        if not any(more[0] for more in coming.values()):
            return
        if self._total != (None, None):
            total = [sum(more[index] for more in coming.values()) for index in (0, 1)]
            self._check(state, f"the inbox of {self._context.node}", self._total, None, total)
        for channel in set(coming) & set(self._context.channel_limits):
            limit = self._context.channel_limits[channel]
            self._check(state, f"channel {channel}", limit, channel, coming[channel])

    def _check(self, state: InboxState, what: str, limit: Limit, channel: str | None, more: list[int]) -> None:
        queues = [queue for queue in state.numbers.values() if channel in {None, queue.channel}]
        waiting = [self._queues.waiting(queue) for queue in queues]
        have = (sum(messages for messages, _ in waiting), sum(size for _, size in waiting))
        for unit, most, now, new in zip(("messages", "bytes"), limit, have, more, strict=True):
            if most is not None and now + new > most:
                raise QueueFull(
                    f"{what}: {now} {unit} are waiting, {new} more would be over the limit of {most}; "
                    "try again when some were processed, or raise the limit"
                )
