"""The inbox: a work queue for each channel, in one SQLite file.

Owns how its parts make one object; each part owns one kind of work:

    inbox_accept   putting messages in, and heads
    inbox_lease    claims, settlements, consumers
    inbox_end      outcomes, sweep, kick, bury, wipe
    inbox_view     looking
"""

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Inbox
from dropr_core.errors import DroprError
from dropr_core.model.names import StoreId
from dropr_storage_sqlite.engine.consumers import Consumers
from dropr_storage_sqlite.engine.engine import Database
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.accept import AcceptPart
from dropr_storage_sqlite.inbox.end import EndPart
from dropr_storage_sqlite.inbox.lease import LeasePart
from dropr_storage_sqlite.inbox.view import ViewPart


class SqliteInbox(AcceptPart, LeasePart, EndPart, ViewPart, Inbox):
    """The receiving half of a store."""

    def __init__(self, database: Database, context: Context) -> None:
        self._db, self.context = database, context
        self.consumers: Consumers = Consumers(context.data / "consumers")
        self._names: dict[int, str] = {}

    @property
    def store_id(self) -> StoreId:
        """Names this half and its outcome logs."""
        return StoreId(self._db.look(lambda connection: bytes(connection.execute(sql.STORE).fetchall()[0][0])))

    def close(self) -> None:
        """Give back what this process's consumers hold, then release everything; safe twice."""
        for consumer in self.consumers.names():
            try:
                self.retire(consumer)
            except DroprError as error:  # its leases end with the process all the same
                self.context.log.warning("consumer %s could not give back its leases: %s", consumer, error)
        self._db.close()
