"""Consumers go, or die.

Owns `retire` and `reap`: what becomes of the leases of a consumer, by what its lease sheet says, on whichever machine
somebody finds it. Must not know what consumers do with messages.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dropr_core.contracts.context import Context
from dropr_core.contracts.inbox import ATTEMPTS
from dropr_core.contracts.lease_sheets import Left, Mark
from dropr_core.contracts.storage import Ack, Bury, Claim, Release, Settlement
from dropr_core.model.names import MessageId
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.engine.inbox_tables import MASK, N_BITS
from dropr_storage_postgres.inbox.consumers import HELD, WAITS, PostgresConsumers
from dropr_storage_postgres.inbox.lease import Batch
from dropr_storage_postgres.inbox.names import Names

KNOWN = (
    f"SELECT c.consumer, c.name, c.machine, {HELD}, {WAITS}, EXISTS (SELECT 1 FROM in_lease l "
    "WHERE l.consumer = c.consumer) FROM in_consumer c"
)
BEREAVE = "SELECT token, place, attempts FROM in_bereave(%b::integer, %b::bool)"
NUMBER = "SELECT consumer FROM in_consumer WHERE name = %b"
HOLDERS = "SELECT name FROM in_consumer c WHERE EXISTS (SELECT 1 FROM in_lease l WHERE l.consumer = c.consumer)"
ANY = "SELECT in_any(%b::text[], %b::float8)"
PATIENCE = 5.0
"""Seconds for which a machine that lives is given time to reap its own dead, whose sheets only it can read."""


class _Lease(NamedTuple):
    token: int
    place: int
    attempts: int


_Decide = Callable[[str, int, _Lease], tuple[Settlement, bool]]


class Gone:
    """The consumers of one inbox that go."""

    def __init__(self, engine: Engine, context: Context, consumers: PostgresConsumers, names: Names) -> None:
        self._engine, self._context, self._consumers, self._names = engine, context, consumers, names
        self._missed: dict[int, float] = {}
        """Dead consumers of other machines that live: when they were first seen dead."""

    def retire(self, consumer: str) -> None:
        """The consumer is gone: its leases end, of what is done as acknowledged, else with the attempt not counted."""
        if not self._consumers.owns(consumer):
            return
        left = self._consumers.left_by(consumer)

        def decide(_: str, __: int, lease: _Lease) -> tuple[Settlement, bool]:
            noted = left.of(lease.token.to_bytes(8, "big"), lease.place & MASK)
            claim = self._claim(lease)
            if noted.mark is Mark.DONE:
                return Ack(claim, noted.result, noted.content_type, noted.keep, noted.reason), False
            return Release(claim, counted=False), True

        try:
            rows = self._engine.query(NUMBER, (consumer,))
            if rows:
                self._engine.relaxed(lambda connection: self._end(connection, consumer, rows[0][0], decide, own=True))
        except BaseException:
            self._consumers.abandon(consumer)
            raise
        self._consumers.release(consumer)

    def reap(self, attempts: Mapping[str, int]) -> tuple[list[str], bool]:
        """End the leases of consumers whose process died; see the contract."""
        known = self._engine.query(KNOWN)
        dead = [row for row in known if not self._spared(row, known)]
        gone = {row[0] for row in dead}
        alive = any(row[5] and row[0] not in gone for row in known)
        self._missed = {number: since for number, since in self._missed.items() if number not in gone}
        if not dead:
            self._consumers.tidy_once(self._holders)
            return [], alive
        freed: set[str] = set()
        for number, name, machine, *_ in dead:
            left = self._consumers.left_by(name, machine)
            freed |= self._engine.relaxed(
                lambda connection, name=name, number=number, machine=machine, left=left: self._end(  # type: ignore[misc]
                    connection, name, number, self._blaming(left, attempts), own=machine == self._consumers.machine
                )
            )
        self._consumers.tidy(self._holders)
        return sorted(freed), alive

    def _spared(self, row: Any, known: list[Any]) -> bool:
        """Whether a consumer is not to be taken for dead (yet)."""
        number, name, machine, held, waits, _ = row
        if machine == self._consumers.machine:  # the kernel knows: the server may not know yet that its process died,
            return self._consumers.lives_here(name)  # and one that lives without a session will have one again at once
        if held or waits:
            return True
        if not any(one[2] == machine and one[3] for one in known):
            return False
        now = self._context.clock.now()
        return now - self._missed.setdefault(number, now) < PATIENCE

    def _blaming(self, left: Left, attempts: Mapping[str, int]) -> _Decide:
        def decide(channel: str, _: int, lease: _Lease) -> tuple[Settlement, bool]:
            noted = left.of(lease.token.to_bytes(8, "big"), lease.place & MASK)
            claim, attempt = self._claim(lease), lease.attempts + 1
            if noted.mark is Mark.DONE:
                return Ack(claim, noted.result, noted.content_type, noted.keep, noted.reason), False
            if noted.mark is Mark.HELD:
                return Release(claim, counted=False), True
            limit, reason = attempts.get(channel, ATTEMPTS), f"attempt {attempt}: the process of its consumer died"
            return (Bury(claim, reason), False) if attempt >= limit else (Release(claim, reason=reason), True)

        return decide

    def _end(self, connection: Connection, name: str, number: int, decide: _Decide, *, own: bool = False) -> set[str]:
        """End every lease of a consumer in one transaction. Returns the channels that have ready messages by it."""
        leases = [_Lease(*row) for row in connection.execute(BEREAVE, (number, own)).fetchall()]
        if not leases:
            return set()
        batch, freed, others, now = Batch(), set[str](), set[str](), self._engine.times.now()
        for at, lease in enumerate(leases):
            channel = self._names.queue(lease.place >> N_BITS)[0]
            change, ready = decide(channel, number, lease)
            (freed if ready else others).add(channel)
            batch.add(at, lease.token, lease.place, change)
        batch.apply(connection, now, self._context.remember)
        for channel in others - freed:  # what was buried or is done may have freed a key
            if connection.execute(ANY, ([channel], now)).fetchall()[0][0]:
                freed.add(channel)
        self._context.log.debug("consumer %s is gone: %d leases ended", name, len(leases))
        return freed

    def _claim(self, lease: _Lease) -> Claim:
        """Enough of one for a settlement."""
        channel, priority, _ = self._names.queue(lease.place >> N_BITS)
        token, number = lease.token.to_bytes(8, "big"), lease.place & MASK
        return Claim(token, number, MessageId(b""), channel, priority, "", b"", lease.attempts + 1, False, 0.0)

    def _holders(self) -> set[str]:
        """The consumers that have leases."""
        return {row[0] for row in self._engine.query(HOLDERS)}
