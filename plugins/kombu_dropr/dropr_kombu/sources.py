"""What a channel of Kombu reads from: one queue, looked at and waited for in the same way whichever kind it is.

Owns the two kinds: a channel of the node's inbox, whose messages come with a lease, and a mailbox. Must not know Celery
or event loops.
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

from dropr_core.errors import ProtocolError
from dropr_core.system.notifier import LOOK_AGAIN
from dropr_kombu.mailboxes import Mailboxes
from dropr_kombu.wire import Raw, decode

if TYPE_CHECKING:
    from dropr_core import Node, Received


class Delivery(NamedTuple):
    """A message that was taken."""

    raw: Raw
    received: "Received | None"
    """Its lease; None: it has none, and there is nothing to acknowledge."""


class Source(Protocol):
    """One queue to read from. For one thread."""

    queue: str

    def fileno(self) -> int:
        """Readable when there may be something new since `prepare`."""
        ...

    def prepare(self) -> None:
        """Ask to be woken from now on; look once more after it, before waiting."""
        ...

    def take(self, limit: int) -> list[Delivery]:
        """What is there now, at most so much. Raises StoreError."""
        ...

    def patience(self) -> float:
        """Seconds after which to look again though nothing woke us."""
        ...

    def close(self) -> None:
        """Give back what was taken and not settled; safe twice."""
        ...


class InboxSource:
    """A channel of the node's inbox."""

    def __init__(self, node: "Node", queue: str, channel: str) -> None:
        """Raises UsageError, StoreError."""
        self.queue = queue
        self._node = node
        self._consumer = node.consumer(channel, label="celery")
        self.fileno, self.prepare, self.close = self._consumer.fileno, self._consumer.prepare, self._consumer.close

    def take(self, limit: int) -> list[Delivery]:
        """Leases; what is no message of Kombu is buried, with a word in the log."""
        taken: list[Delivery] = []
        while not taken:
            claimed = self._consumer.claim(limit)
            if not claimed:
                break
            for received in claimed:
                try:
                    raw = decode(received.body)
                except ProtocolError as error:
                    self._node.runtime.log.error("message %s on %s is buried: %s", received.id, received.channel, error)
                    received.bury(str(error))
                else:
                    taken.append(Delivery(raw, received))
        return taken

    def purge(self) -> int:
        """Acknowledge whatever is ready; how many that were. Raises StoreError."""
        gone = 0
        while claimed := self._consumer.claim(500):
            self._consumer.acknowledge(claimed)
            gone += len(claimed)
        return gone

    def patience(self) -> float:
        """Until a delayed message is due, or other consumers must be looked at."""
        return self._consumer.patience(None)


class MailSource:
    """A mailbox of this machine."""

    def __init__(self, boxes: Mailboxes, queue: str) -> None:
        """Raises StoreError."""
        self.queue = queue
        self._box = boxes.of(queue)
        self._subscription = boxes.subscribe(queue)
        self.fileno, self.prepare, self.close = (
            self._subscription.fileno, self._subscription.prepare, self._subscription.close,
        )  # fmt: skip

    def take(self, limit: int) -> list[Delivery]:
        """Messages; what cannot be read is dropped."""
        taken = []
        for data in self._box.take(limit):
            try:
                taken.append(Delivery(decode(data), None))
            except ProtocolError:
                continue
        return taken

    def patience(self) -> float:
        """A killed sender notifies nobody."""
        return LOOK_AGAIN
