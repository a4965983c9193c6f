"""The outbox: a log for each lane, in one SQLite file.

Owns how its parts make one object; each part owns one kind of work:

    outbox_append   putting messages in
    outbox_ship     reading lanes and moving heads
    outbox_end      ends: cancel, receipts, sweep, redrive, wipe
    outbox_view     looking, and the hold of a peer
"""

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Outbox
from dropr_core.model.names import StoreId
from dropr_storage_sqlite.engine.engine import Database
from dropr_storage_sqlite.outbox import sql
from dropr_storage_sqlite.outbox.append import AppendPart
from dropr_storage_sqlite.outbox.end import EndPart
from dropr_storage_sqlite.outbox.ship import ShipPart
from dropr_storage_sqlite.outbox.view import ViewPart


class SqliteOutbox(AppendPart, ShipPart, EndPart, ViewPart, Outbox):
    """The sending half of a store."""

    def __init__(self, database: Database, context: Context) -> None:
        self._db, self.context = database, context
        self._end = (0, 0, ("", "", 0), 0, 0, 0)
        self._limited = bool(
            context.max_messages is not None
            or context.max_bytes is not None
            or context.peer_limits
            or context.channel_limits
        )

    @property
    def store_id(self) -> StoreId:
        """The id under which peers know this half now; another process may have changed it."""
        return StoreId(self._db.look(lambda connection: bytes(connection.execute(sql.STORE).fetchall()[0][0])))

    def close(self) -> None:
        """Release everything; safe twice."""
        self._db.close()
