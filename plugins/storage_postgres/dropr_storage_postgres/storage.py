"""The store of one node in one schema of a PostgreSQL database.

Owns how it is opened and closed as a whole. Must not know tables.
"""

from collections.abc import Iterator
from typing import ClassVar, cast

from dropr_core.contracts.context import Context
from dropr_core.contracts.inbox import Inbox
from dropr_core.contracts.outbox import Outbox
from dropr_core.contracts.storage import Finding, Storage
from dropr_core.system.loading import unforked
from dropr_storage_postgres.bodies.store import PostgresBodies
from dropr_storage_postgres.engine.address import Place
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.engine.opening import open_store
from dropr_storage_postgres.inbox.inbox import PostgresInbox
from dropr_storage_postgres.outbox.outbox import PostgresOutbox
from dropr_storage_postgres.shared.shared import PostgresShared


class PostgresStorage(Storage):
    """Both halves in PostgreSQL."""

    abilities: ClassVar[frozenset[str]] = frozenset({"durable", "processes", "ordering_key"})

    def __init__(self, place: Place, context: Context) -> None:
        self.place, self._context = place, context
        if context.checking:  # the database may be in no state to be opened; `check` does it
            self.outbox, self.inbox = cast("Outbox", _Unopened()), cast("Inbox", _Unopened())
            return
        opened = open_store(place, context)
        place = self.place = opened.place
        self.bodies = PostgresBodies(place, opened.times, context)
        self.engines = [Engine(place, half, opened.times, context) for half in ("outbox", "inbox")]
        self.outbox = PostgresOutbox(self.engines[0], context, opened.machine)
        self.inbox = PostgresInbox(self.engines[1], context)
        self.shared = PostgresShared(place, opened.times, context)

    def check(self, *, repair: bool) -> Iterator[Finding]:
        """Compare the tables with each other; see the contract. Others may work meanwhile, also during a repair, which
        makes their writes wait.
        """
        with unforked:
            from dropr_storage_postgres.fsck.fsck import check_store

        return check_store(self.place, self._context, repair=repair)

    def close(self) -> None:
        """Close both halves; safe twice."""
        if self._context.checking:
            return
        try:
            if isinstance(self.shared, PostgresShared):
                self.shared.close()
            self.inbox.close()
        finally:
            if self.bodies is not None:
                self.bodies.close()
            for engine in self.engines:
                engine.close()


class _Unopened:
    """Stands for a half in a store that was opened for `check` alone."""
