"""Who consumes from a store that machines share, and who of them still lives.

A consumer lives as long as the database session of its process, which holds an advisory lock for it: when the process
dies the session ends, and the lock with it; when the machine dies the server notices within its keep-alive
(`address.py`). Nobody guesses a time-out. Owns the register of consumers (`lock_session.py` has the session itself).
What a consumer noted stands in a file of its machine, its lease sheet, which only processes of that machine can read:
to all others what it held counts as begun. Must not know messages.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

import hashlib
from collections.abc import Callable, Collection, Iterable

from dropr_core.contracts.context import Context
from dropr_core.contracts.lease_sheets import NOTHING_LEFT, LeaseSheet, Left
from dropr_core.storage_kit.consumers import LockedConsumers
from dropr_core.system.clock import boot_id
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.inbox.lock_session import LockSession

RESTARTED = 5.0
"""Seconds that consumers from before a restart of the server have to come back, before they are taken for dead."""
HELD = (
    "c.consumer::bigint = ANY(ARRAY(SELECT l.objid::bigint FROM pg_locks l WHERE l.locktype = 'advisory' AND "
    "l.objsubid = 2 AND l.granted AND l.classid = 'in_consumer'::regclass AND "
    "l.database = (SELECT oid FROM pg_database WHERE datname = current_database())))"
)
"""Asked of all locks at once, whatever the number of consumers."""
WAITS = (
    "(c.since < pg_postmaster_start_time() AND "
    f"clock_timestamp() < pg_postmaster_start_time() + interval '{RESTARTED} s')"
)
LIVES = f"SELECT 1 FROM in_consumer c WHERE c.name = %b AND c.machine <> %b AND ({HELD} OR {WAITS})"


class PostgresConsumers:
    """The consumers of one process, and a look at those of all others."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine = engine
        self._local = LockedConsumers(context.data / "consumers", engine.guard)
        place = hashlib.sha256(str(context.data.resolve()).encode()).hexdigest()[:16]
        self.machine = f"{boot_id()} {place}"
        """Which boot of which machine, and which data directory: who can read a lease sheet."""
        self.session = LockSession(engine, self.machine)

    def register(self, label: str) -> str:
        """A new id, its locks held. Raises Closed, StoreReadOnly, StoreError."""
        self._engine.guard.enter(write=True)
        name = self._local.register(label)
        try:
            self.session.enrol(name)
        except BaseException:
            self._local.release(name)
            raise
        return name

    def number(self, consumer: str) -> int:
        """The number of a consumer of this process."""
        return self.session.number(consumer)

    def recover(self, consumer: str, number: int) -> None:
        """The session was found lost when this consumer, of this number, claimed: enrol everybody anew."""
        self.session.recover(consumer, number)

    def owns(self, consumer: str) -> bool:
        """Whether it was registered here and not yet released."""
        return self._local.owns(consumer)

    def check(self, consumer: str) -> None:
        """Raise Closed if it is none of this process, or was retired."""
        self._local.check(consumer)

    def release(self, consumer: str) -> None:
        """Give its locks up; safe twice. To be called when its leases have ended."""
        self.session.leave(consumer)
        self._local.release(consumer)

    def abandon(self, consumer: str) -> None:
        """Give its locks up as its process would by dying: what stands on its sheet stays; safe twice."""
        self.session.leave(consumer)
        self._local.abandon(consumer)

    def names(self) -> list[str]:
        """Those of this process."""
        return self._local.names()

    def lives(self, consumer: str) -> bool:
        """Whether its process lives, if it is of this machine (without its session it will come back); of another one:
        whether its session lives. Raises StoreError.
        """
        return self.lives_here(consumer) or bool(self._engine.query(LIVES, (consumer, self.machine)))

    def lives_here(self, consumer: str) -> bool:
        """Whether its process lives on this machine."""
        return self._local.lives(consumer)

    def close(self) -> None:
        """Give up the session; safe twice."""
        self.session.close()

    # ── lease sheets ─────────────────────────────────────────────────────────────────────────────

    def sheet(self, consumer: str) -> LeaseSheet | None:
        """That of a consumer of this process; None if the disk has no room for it. Raises Closed."""
        return self._local.sheet(consumer)

    def left_by(self, consumer: str, machine: str | None = None) -> Left:
        """What stands on the sheet of a consumer; nothing if it is of another machine."""
        return NOTHING_LEFT if machine not in {None, self.machine} else self._local.left_by(consumer)

    def tidy(self, holders: Callable[[], Collection[str]]) -> None:
        """Remove the sheets of the dead of this machine who hold no lease any more."""
        self._local.tidy(holders)

    def tidy_once(self, holders: Callable[[], Collection[str]]) -> None:
        """`tidy`, the first time in this process."""
        self._local.tidy_once(holders)

    def dead(self, consumers: Iterable[str]) -> set[str]:
        """Those that do not live any more."""
        return {name for name in consumers if not self.lives(name)}
