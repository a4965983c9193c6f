"""Messages that Celery has in hand, and what becomes of each: acknowledged, given back, buried.

Owns prefetching and settling, as Kombu's `QoS` does. A lease has no time-out: it ends with its settlement, with its
channel, or with its process. Must not know queues or event loops.
"""

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kombu.transport import virtual

from dropr_core.errors import Closed, LeaseLost, StoreError
from dropr_kombu.wire import Raw

if TYPE_CHECKING:
    from dropr_core import Received

log = logging.getLogger("dropr.kombu")


class Message(virtual.Message):
    """A message of Kombu with its lease."""

    def __init__(self, payload: Raw, channel: Any = None, received: "Received | None" = None) -> None:
        super().__init__(payload, channel=channel)
        self.received = received
        self.undecodable = ""
        """Why its body could not be read; Celery acknowledges such a message, and would lose it."""

    def _decode(self) -> Any:
        try:
            return super()._decode()
        except Exception as error:
            self.undecodable = f"undecodable: {type(error).__name__}: {error}"
            raise


class Deliveries:
    """Those of one channel. The consuming thread adds, any thread settles."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        self.channel = channel
        self.prefetch_count = prefetch_count
        self.starving = False
        """Whether somebody waits for room here."""
        self._held: OrderedDict[str, Message] = OrderedDict()
        self._owed: list[tuple[Message, Callable[[], None]]] = []
        """Settled by Celery, but the store could not be written to: they are tried again."""
        self._lock = threading.Lock()

    def can_consume(self) -> bool:
        """Whether one more may be taken."""
        return self.room() != 0

    def can_consume_max_estimate(self) -> int | None:
        """How many more may be taken; None: any number."""
        return self.room()

    def room(self) -> int | None:
        """How many more may be taken; None: any number."""
        return max(0, self.prefetch_count - len(self._held)) if self.prefetch_count else None

    def append(self, message: Message, delivery_tag: str) -> None:
        """One more is in hand."""
        self._held[delivery_tag] = message

    def get(self, delivery_tag: str) -> Message:
        """A message in hand; raises KeyError."""
        return self._held[delivery_tag]

    def ack(self, delivery_tag: str) -> None:
        """Done. What nobody could read is buried instead."""
        message = self._pop(delivery_tag)
        received = message.received if message is not None else None
        if message is None or received is None:
            return
        if message.undecodable:
            self._settle(message, lambda: received.bury(message.undecodable))
        else:
            self._settle(message, received.ack)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Back to the queue, as a failed attempt: with the channel's backoff, and buried after its attempts; or buried
        at once.
        """
        message = self._pop(delivery_tag)
        received = message.received if message is not None else None
        if message is None or received is None:
            return
        if not requeue:
            self._settle(message, lambda: received.bury(message.undecodable or "rejected by Celery's worker"))
            return
        change = received.make_failure(
            None, "given back by Celery's worker: its task or the process of that asked for it"
        )
        log.warning("%s on %s was given back: %s", received.id, received.channel, received.outlook(change))
        self._settle(message, lambda: received.apply(change))

    def settle_owed(self) -> None:
        """Try again what the store refused before."""
        if self._owed:
            with self._lock:
                owed, self._owed = self._owed, []
            for message, settle in owed:
                self._settle(message, settle)

    def restore_unacked(self) -> list[Any]:
        """Give back whatever is in hand; its attempt does not count."""
        held, self._held = list(self._held.values()), OrderedDict()
        for message in held:
            if message.received is not None:
                with contextlib.suppress(StoreError, Closed):  # its consumer is closed next, or was
                    message.received.requeue()
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:  # noqa: ARG002 - Kombu's signature
        """At the end of the channel: the leases end with its consumers."""
        self.settle_owed()
        if self._owed:
            log.error(
                "%d messages were done, but could not be acknowledged: they will be handled again", len(self._owed)
            )
        self._held.clear()

    def _pop(self, delivery_tag: str) -> Message | None:
        message = self._held.pop(delivery_tag, None)
        if message is None:
            log.warning("message %s was settled too late: its lease had ended with its connection", delivery_tag)
        elif self.starving:
            self.channel.connection.look_again()
        return message

    def _settle(self, message: Message, settle: Callable[[], None]) -> None:
        received = message.received
        assert received is not None
        try:
            settle()
        except (LeaseLost, Closed) as error:
            log.warning("%s on %s may be handled again: %s", received.id, received.channel, error)
        except StoreError as error:
            log.error("%s on %s is settled as soon as the store allows it: %s", received.id, received.channel, error)
            with self._lock:
                self._owed.append((message, settle))
