"""Consumers go, or die.

Owns `retire` and `reap`: what becomes of the leases of a consumer, by what its lease sheet says. Must not know what
consumers do with messages.
"""

from collections.abc import Mapping

from dropr_core.contracts.context import Context
from dropr_core.contracts.lease_sheets import Mark
from dropr_core.storage_kit.consumers import LockedConsumers
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.lease import acknowledge, end_lease
from dropr_storage_sqlite.inbox.rows import Book, MessageRow, find_consumer, with_line


class Consumers:
    """The consumers of one inbox."""

    def __init__(self, engine: Engine, context: Context, consumers: LockedConsumers) -> None:
        self._engine, self._context, self._consumers = engine, context, consumers

    def retire(self, consumer: str) -> None:
        """The consumer is gone: its leases end, of what is done as acknowledged, else with the attempt not counted."""
        if not self._consumers.owns(consumer):
            return
        left = self._consumers.left_by(consumer)

        def job(connection: Connection) -> None:
            number = find_consumer(connection, consumer)
            if number is not None:
                book = Book(connection, self._context, self._context.clock.now())
                for place, attempts, token, reason in connection.execute(sql.LEASES_OF, (number,)).fetchall():
                    row = end_lease(connection, book, place)
                    noted = left.of(token, place & sql.MASK)
                    if noted.mark is Mark.DONE:
                        book.undate(row)
                        acknowledge(book, row, noted, attempts, reason)
                    else:
                        book.ready(place, attempts - 1, reason)
                connection.execute(sql.NO_CONSUMER, (number,))
                book.close()

        def known(connection: Connection) -> bool:
            return find_consumer(connection, consumer) is not None

        try:
            if self._engine.read(known):
                self._engine.write(job)
        except BaseException:
            self._consumers.abandon(consumer)
            raise
        self._consumers.release(consumer)

    def reap(self, attempts: Mapping[str, int]) -> tuple[list[str], bool]:
        """End the leases of consumers whose process died; see the contract."""
        known = self._engine.read(lambda connection: connection.execute(sql.CONSUMERS).fetchall())
        gone = self._consumers.dead(row[1] for row in known)
        dead = [(number, self._consumers.left_by(name)) for number, name, _ in known if name in gone]
        alive = any(leases > 0 and name not in gone for _, name, leases in known)
        if not dead:
            self._consumers.tidy_once(self._holders)
            return [], alive

        def job(connection: Connection) -> list[str]:
            book = Book(connection, self._context, self._context.clock.now())
            for number, left in dead:
                for place, attempt, token, reason in connection.execute(sql.LEASES_OF, (number,)).fetchall():
                    row = end_lease(connection, book, place)
                    noted = left.of(token, place & sql.MASK)
                    if noted.mark is Mark.BEGUN:
                        limit = attempts.get(book.queue(place >> sql.N_BITS).channel, 10)
                        _blame(book, row, attempt, limit, reason)
                    elif noted.mark is Mark.DONE:
                        book.undate(row)
                        acknowledge(book, row, noted, attempt, reason)
                    else:
                        book.ready(place, attempt - 1, reason)
                connection.execute(sql.NO_CONSUMER, (number,))
            book.close()
            return sorted(book.readied)

        readied = self._engine.write(job)
        self._consumers.tidy(self._holders)
        return readied, alive

    def _holders(self) -> set[str]:
        """The consumers that have leases."""
        return self._engine.read(lambda connection: {row[0] for row in connection.execute(sql.HOLDERS)})


def _blame(book: Book, row: MessageRow, attempt: int, limit: int, reason: str) -> None:
    """It was begun by a consumer that died."""
    history = with_line(reason, f"attempt {attempt}: the process of its consumer died")
    if attempt >= limit:
        book.bury(row, attempt, history, f"its consumer died at attempt {attempt} of {limit}")
    else:
        book.ready(row.place, attempt, history)
