"""The flush interval of what consumers have done.

Owns the one thread by which a process settles what its consumers have only noted as done on their lease sheets, while
their loop bodies and handlers run on. It sleeps while nothing is noted and nothing is held. Must not know sheets, nor
how something is settled.
"""

import logging
from typing import Protocol

from dropr_core.api.store_trouble import WRITE, StoreTrouble
from dropr_core.contracts.storage import Inbox
from dropr_core.errors import StoreError
from dropr_core.system.flusher import Flusher
from dropr_core.system.loading import unforked


class Settling(Protocol):
    """A consumer that notes before it settles."""

    def tick(self) -> bool:
        """Settle what is done. Whether to come again after another interval. Raises StoreError."""
        ...


class Settler:
    """Calls `tick` of each consumer within a flush interval after `mark`, and flushes; less often while that fails."""

    def __init__(self, inbox: Inbox, trouble: StoreTrouble, log: logging.Logger) -> None:
        self._inbox, self._trouble, self._log = inbox, trouble, log
        self._consumers: set[Settling] = set()
        self._flusher = Flusher(inbox.flush_interval, self._tick, log, "dropr-settle")
        self.mark = self._flusher.mark
        """Something was noted, or is held. Costs next to nothing."""

    def join(self, consumer: Settling) -> None:
        """Care for a consumer until it leaves."""
        self._consumers.add(consumer)

    def leave(self, consumer: Settling) -> None:
        """It is closed; safe twice."""
        self._consumers.discard(consumer)

    def _tick(self) -> None:
        self._flusher.clean()
        again = False

        def settle() -> None:
            nonlocal again
            again = self._settle()

        if not self._trouble.attempt((WRITE, "settle"), settle) or again:
            self._flusher.mark()

    def _settle(self) -> bool:
        """Settle what all have done; whether to come again."""
        trouble: StoreError | None = None
        again = False
        for consumer in list(self._consumers):
            try:
                again = consumer.tick() or again
            except StoreError as error:
                trouble = error
            except Exception as error:  # a storage that does not keep its contract; what others did is settled
                with unforked:
                    from dropr_core.api.failures import describe  # only for a failure

                trouble = StoreError(f"the storage cannot settle what was done: {describe(error)}")
                trouble.__cause__ = error
        if trouble is not None:
            raise trouble
        # What was noted since the last time, and settled since, is on stable storage within one interval, too.
        self._inbox.flush()
        return again

    def close(self) -> None:
        """Settle once more, and stop. Safe twice."""
        self._flusher.close()
        for consumer in list(self._consumers):
            try:
                consumer.tick()
            except StoreError as error:  # it stands on a sheet: whoever reaps settles it
                self._log.warning("what was done last is settled later: %s", error)
            self.leave(consumer)
