"""Queues and senders by number and by name.

Owns the look-up, which is remembered: neither ever changes. Must not know messages.
"""

from dropr_core.model.names import first_rank
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.engine.inbox_tables import N_BITS

QUEUES = "SELECT queue, channel, priority FROM in_queue"
QUEUE = QUEUES + " WHERE channel = %s AND priority = %s"
SENDER = "SELECT name FROM in_sender WHERE sender = %s"


class Names:
    """Those of one inbox."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queues: dict[int, tuple[str, int, int]] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._senders: dict[int, str] = {}

    def queue(self, number: int) -> tuple[str, int, int]:
        """Channel, priority and first rank of a queue."""
        if number not in self._queues:
            for found, channel, priority in self._engine.query(QUEUES):
                self._queues[found] = (channel, priority, first_rank(priority))
                self._numbers[channel, priority] = found
        return self._queues[number]

    def place(self, channel: str, priority: int, number: int) -> int | None:
        """Where a message stands; None if there is no such queue."""
        found = self._numbers.get((channel, priority))
        if found is None:
            rows = self._engine.query(QUEUE, (channel, priority))
            if not rows:
                return None
            found = self._numbers[channel, priority] = rows[0][0]
        return (found << N_BITS) | number

    def sender(self, number: int) -> str:
        """The name of a sender."""
        if number not in self._senders:
            self._senders[number] = self._engine.query(SENDER, (number,))[0][0]
        return self._senders[number]
