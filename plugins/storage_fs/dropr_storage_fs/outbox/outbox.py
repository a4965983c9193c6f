"""The outbox of the storage ``fs``: a log for each lane, and a journal of what is not simply queued.

Owns nothing but the sum of its parts; see contracts/storage.py for what each method promises.
"""

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Outbox
from dropr_storage_fs.engine.engine import Half, Tuning
from dropr_storage_fs.files.column_reader import Reader
from dropr_storage_fs.outbox.append import AppendPart
from dropr_storage_fs.outbox.end import EndPart
from dropr_storage_fs.outbox.ship import ShipPart
from dropr_storage_fs.outbox.state import OutboxState
from dropr_storage_fs.outbox.view import ViewPart


class FsOutbox(AppendPart, ShipPart, EndPart, ViewPart, Outbox):
    """See contracts/storage.py."""

    def __init__(self, tuning: Tuning, context: Context) -> None:
        self._context = context
        self._limited = bool(
            context.max_messages is not None
            or context.max_bytes is not None
            or context.peer_limits
            or context.channel_limits
        )
        self._cursors, self._next, self._born, self._sums, self._seen = {}, {}, {}, {}, {}
        self._reader = Reader()
        self._half = Half(context.data / "outbox", tuning, context, OutboxState)

    def close(self) -> None:
        """Flush and close; safe twice."""
        self._half.close()
