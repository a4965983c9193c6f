"""How many messages and bytes wait in the inbox, for the limits of the user.

Owns the sums before anything is stored. Must not know how it is stored.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from dropr_core.contracts.context import Context
from dropr_core.storage_kit.limits import Amount, check_inbox, limited
from dropr_storage_fs.files.layout import Row
from dropr_storage_fs.inbox.queue_reader import QueueReader
from dropr_storage_fs.inbox.state import InboxState


class Limits:
    """The user's limits on one inbox."""

    def __init__(self, context: Context, queues: QueueReader) -> None:
        self._context, self._queues = context, queues
        self._any = limited(context)

    def check(self, state: InboxState, rows: Mapping[tuple[str, int], Sequence[Row]]) -> None:
        """Raise QueueFull if these, by channel and priority, would be too many."""
        if not self._any:
            return
        more: dict[str, Amount] = {}
        for (channel, _), part in rows.items():
            if part:
                before = more.get(channel, (0, 0))
                more[channel] = (before[0] + len(part), before[1] + sum(len(row[3]) for row in part))

        def waiting(kind: Literal["all", "peer", "channel"], name: str) -> Amount:
            queues = [queue for queue in state.numbers.values() if kind == "all" or queue.channel == name]
            amounts = [self._queues.waiting(queue) for queue in queues]
            return sum(messages for messages, _ in amounts), sum(size for _, size in amounts)

        check_inbox(self._context, more, waiting)
