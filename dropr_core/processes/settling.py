"""Writing down how a handled message ended, also while the store fails.

Owns the one thing that must not be given up lightly: the work is done, and only this keeps it from being done again.
When the next try is, and what the log says of the store, is decided in store_trouble.py. Must not know handlers.
"""

import logging
import threading
from functools import partial

from dropr_core.api.failures import describe
from dropr_core.api.received import Received
from dropr_core.api.store_trouble import WRITE, StoreTrouble
from dropr_core.contracts.storage import Bury, Settlement
from dropr_core.errors import LeaseLost, StoreError
from dropr_core.system.clock import Clock
from dropr_core.system.log_fields import about


class Settler:
    """Settles the messages of one worker. Safe to use from many threads."""

    def __init__(self, trouble: StoreTrouble, clock: Clock, stopping: threading.Event, log: logging.Logger) -> None:
        """``stopping``: set when the worker has to end, and nothing may wait for the store any longer."""
        self._trouble, self._clock, self._stopping, self._log = trouble, clock, stopping, log

    def settle(self, received: Received, change: Settlement) -> None:
        """Settle it; while the store fails again and again, until the worker is told to stop. Raises LeaseLost."""
        if self._trouble.well:  # as nearly always: this way costs a third
            try:
                received.apply(change)
            except LeaseLost:
                raise
            except (StoreError, OSError) as error:
                self._trouble.failed((WRITE, "settle", received.id), error)
            except Exception:  # what is to be done about it stands below
                self._log.debug("the first try to settle %s failed", received.id, exc_info=True,
                                extra=about(message=received.id, channel=received.channel))  # fmt: skip
            else:
                return
        self._settle(received, change)

    def _settle(self, received: Received, change: Settlement) -> None:
        thing = (WRITE, "settle", received.id)
        said = False
        while not self._done(thing, received, change):
            if not said:
                said = True
                self._log.warning("%s is handled, but the store cannot take that in now: tried again until it does, "
                                  "the handler is not called again", received.id,
                                  extra=about(message=received.id, channel=received.channel))  # fmt: skip
            if self._stopping.wait(max(0.0, self._trouble.until(thing) - self._clock.now())):
                with self._trouble.guard(thing):
                    # Counted, so that a message which can never be settled ends as a dead letter.
                    received.requeue()
                return

    def _done(self, thing: tuple[str, ...], received: Received, change: Settlement) -> bool:
        try:
            return self._trouble.attempt(thing, partial(received.apply, change))
        except LeaseLost:
            self._trouble.worked(thing)
            raise
        except Exception as error:  # a storage that cannot take it is at fault; the other messages are not
            if isinstance(change, Bury):
                raise
            self._log.exception("%s is buried: its settlement cannot be stored", received.id,
                                extra=about(message=received.id, channel=received.channel))  # fmt: skip
            self.settle(received, Bury(received.claim, f"its settlement cannot be stored: {describe(error)}"))
            return True
