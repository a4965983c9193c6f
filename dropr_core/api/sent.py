"""What `send` hands back: the handle of a message on its way.

Owns status, waiting and cancelling from the sender's point of view, and the batch. Reads the
outbox; must not know peers' addresses or transports.
"""

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from dropr_core.api.composer import Composer, Duration, SendOptions
from dropr_core.bodies.store import Written
from dropr_core.contracts.storage import Delivery, Outgoing, Placed
from dropr_core.errors import DeliveryFailed, UsageError, WaitTimeout
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, format_id
from dropr_core.model.states import ENDED, of_message

if TYPE_CHECKING:
    from dropr_core.api.node import Node


@attrs.frozen
class MessageStatus:
    """What became of a message, as a whole and for each peer."""

    id: str
    state: State
    deliveries: tuple[Delivery, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        through = ENDED | {State.ACCEPTED}
        return all(d.state in (ENDED if d.receipt else through) for d in self.deliveries)


class Sent:
    """A message that is in the outbox, or was."""

    __slots__ = ("_message", "_message_id", "_node", "_placed")

    def __init__(self, node: "Node", message: Outgoing | None, placed: Placed) -> None:
        self._node = node
        self._message_id = placed.id
        self._message = message
        self._placed = placed

    @classmethod
    def known(cls, node: "Node", identity: MessageId) -> Self:
        """A handle for an id alone."""
        return cls(node, None, Placed(identity, (), True))

    @property
    def id(self) -> str:
        """The message's id as text."""
        return format_id(self._message_id)

    @property
    def existed(self) -> bool:
        """Whether this id was sent before with the same content."""
        return self._placed.existed

    @property
    def status(self) -> MessageStatus:
        """State of the message and of each delivery, read now."""
        node = self._node
        found = {d.peer: d for d in node.outbox.status(self._message_id)}
        if self._message is not None:
            # A plain delivery is forgotten the moment its peer has accepted it: that is its end.
            for peer, sequence in zip(self._message.peers, self._placed.sequences or (), strict=False):
                if peer not in found:
                    found[peer] = self._accepted(peer, sequence)
        held = {peer for peer, state in node.outbox.peers().items() if state.held} if found else set()
        deliveries = tuple(
            attrs.evolve(d, state=State.HELD) if d.state is State.QUEUED and d.peer in held else d
            for d in found.values()
        )
        receipt = any(d.receipt for d in deliveries)
        return MessageStatus(self.id, of_message([d.state for d in deliveries], receipt=receipt), deliveries)

    def _accepted(self, peer: str, sequence: int) -> Delivery:
        message = self._message
        assert message is not None
        return Delivery(
            self._message_id, peer, message.channel, message.priority, State.ACCEPTED, sequence, 0.0,
            len(message.envelope), receipt=message.receipt,
        )  # fmt: skip

    @property
    def state(self) -> State:
        """State of the message as a whole."""
        return self.status.state

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """One for each peer."""
        return self.status.deliveries

    def wait(self, timeout: float | None = None) -> Any:
        """Sleep until the message is processed everywhere; return the result.

        For one peer its result, for several a dict of peer → result. Without ``receipt`` it waits
        until every peer has accepted. Raises DeliveryFailed if it ended otherwise, WaitTimeout.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._node.bell.listen("receipts") as ear:
            while True:
                ear.arm()
                status = self.status
                if status.ended:
                    return self.result_of(status)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise WaitTimeout(f"message {self.id} is {status.state} after {timeout} s; it stays on its way")
                ear.wait(left)

    def result_of(self, status: MessageStatus) -> Any:
        """The result (or dict of results) of an ended message; raises DeliveryFailed."""
        bad = [d for d in status.deliveries if d.state not in {State.PROCESSED, State.ACCEPTED}]
        if bad:
            each = "; ".join(f"{d.peer}: {d.state}{': ' + d.reason if d.reason else ''}" for d in bad)
            raise DeliveryFailed(f"message {self.id}: {each}")
        results = {
            d.peer: None if d.result is None else self._node.loads(d.result_type, d.channel, d.result)
            for d in status.deliveries
        }
        return next(iter(results.values())) if len(results) == 1 else results

    def cancel(self) -> bool:
        """Take back what is not under way yet; True if no peer will get it."""
        _cancelled, late = self._node.outbox.cancel(self._message_id)
        self._node.bell.ring("receipts")
        return late == 0 and all(d.state is State.CANCELLED for d in self.deliveries)

    def __repr__(self) -> str:
        return f"<Sent {self.id}>"


class Batch:
    """Collects messages and stores them in one commit when the block is left normally."""

    def __init__(self, node: "Node", composer: Composer, timeout: Duration) -> None:
        self._node, self._composer, self._timeout = node, composer, timeout
        self._messages: list[Outgoing] = []
        self._written: list[Written] = []
        self._placed: Sequence[Placed] = ()
        self._sent: list[Sent] = []
        self._open = False

    @property
    def sent(self) -> Sequence[Sent]:
        """The handles, in order, once the block was left."""
        if self._placed and not self._sent:
            self._sent = [Sent(self._node, *each) for each in zip(self._messages, self._placed, strict=True)]
        return self._sent

    def send(
        self, value: Any = b"", *, to: str | Iterable[str] | None = None, channel: str | None = None, **options: Any
    ) -> None:
        """As `Node.send`, but stored at the end of the block. Raises UsageError at once."""
        if not self._open:
            raise UsageError("a batch is used as `with node.batch() as batch:`, and only inside of the block")
        if options:
            outgoing, written = self._composer.compose(value, SendOptions(to, channel, **options))
        else:
            outgoing, written = self._composer.compose_plain(value, to, channel)
        self._messages.append(outgoing)
        if written is not None:
            self._written.append(written)

    def __len__(self) -> int:
        return len(self._messages)

    def __enter__(self) -> Self:
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if error is None and self._messages:
            self._placed = self._node.store(self._messages, self._timeout, self._written)
        for body in self._written:
            if error is None:
                body.release()
            else:
                body.discard()
