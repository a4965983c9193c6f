"""What `send` hands back: the handle of a message on its way.

Owns status, waiting and cancelling from the sender's point of view. Reads the outbox; must not know peers'
addresses or transports.
"""

import time
from typing import Any, Literal, Self, TypeAlias

import attrs

from dropr_core.api.runtime import Runtime
from dropr_core.api.send_options import Duration, as_seconds
from dropr_core.contracts.storage import AppendResult, Delivery, NewMessage
from dropr_core.errors import DeliveryFailed, WaitTimeout
from dropr_core.model import topics
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, format_id
from dropr_core.model.states import ENDED, of_message

Durability: TypeAlias = Literal["commit", "interval", "transaction"]


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

    __slots__ = ("_durability", "_message", "_message_id", "_placed", "_runtime")

    def __init__(
        self, runtime: Runtime, message: NewMessage | None, placed: AppendResult, durability: Durability = "commit"
    ) -> None:
        self._runtime = runtime
        self._message_id = placed.id
        self._message = message
        self._placed = placed
        self._durability: Durability = durability

    @classmethod
    def known(cls, runtime: Runtime, identity: MessageId) -> Self:
        """A handle for an id alone."""
        return cls(runtime, None, AppendResult(identity, (), True))

    @property
    def id(self) -> str:
        """The message's id as text."""
        return format_id(self._message_id)

    @property
    def durability(self) -> Durability:
        """What was true when `send` returned: ``commit``: on stable storage. ``interval``: it survives the death of
        this process; a power cut within the next milliseconds could take it. ``transaction``: nothing but what the
        transaction of the user's promises, of which it is a part.
        """
        return self._durability

    @property
    def existed(self) -> bool:
        """Whether this id was sent before with the same content."""
        return self._placed.existed

    @property
    def status(self) -> MessageStatus:
        """State of the message and of each delivery, read now."""
        outbox = self._runtime.outbox
        found = {d.peer: d for d in outbox.status(self._message_id)}
        if self._durability == "transaction" and not found and self._message is not None:
            # Not committed, rolled back, or in the table: known by its own id, it does not vanish when it is accepted.
            found = {peer: self._waiting(peer) for peer in self._message.peers}
        elif self._message is not None:
            # A plain delivery is forgotten the moment its peer has accepted it: that is its end.
            for peer, sequence in zip(self._message.peers, self._placed.sequences or (), strict=False):
                if peer not in found:
                    found[peer] = self._accepted(peer, sequence)
        held = {peer for peer, state in outbox.peers().items() if state.held} if found else set()
        deliveries = tuple(
            attrs.evolve(d, state=State.HELD) if d.state is State.QUEUED and d.peer in held else d
            for d in found.values()
        )
        receipt = any(d.receipt for d in deliveries)
        return MessageStatus(self.id, of_message([d.state for d in deliveries], receipt=receipt), deliveries)

    def _waiting(self, peer: str) -> Delivery:
        message = self._message
        assert message is not None
        return Delivery(
            self._message_id, peer, message.channel, message.priority, State.QUEUED, 0, 0.0, len(message.envelope),
            "in the outbox table, if its transaction was committed", receipt=message.receipt,
        )  # fmt: skip

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

    def wait(self, timeout: Duration | None = None) -> Any:
        """Sleep until the message is processed everywhere; return the result.

        For one peer its result, for several a dict of peer → result. Without ``receipt`` it waits
        until every peer has accepted. Raises DeliveryFailed if it ended otherwise, WaitTimeout, UsageError for
        what is no duration.
        """
        patience = as_seconds(timeout, "timeout")
        deadline = None if patience is None else time.monotonic() + patience
        with self._runtime.notifier.subscribe(topics.RECEIPTS) as subscription:
            while True:
                subscription.prepare()
                status = self.status
                if status.ended:
                    return self.result_of(status)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise WaitTimeout(f"message {self.id} is {status.state} after {patience:g} s; it stays on its way")
                subscription.wait(left)

    def result_of(self, status: MessageStatus) -> Any:
        """The result (or dict of results) of an ended message; raises DeliveryFailed."""
        bad = [d for d in status.deliveries if d.state not in {State.PROCESSED, State.ACCEPTED}]
        if bad:
            each = "; ".join(f"{d.peer}: {d.state}{': ' + d.reason if d.reason else ''}" for d in bad)
            raise DeliveryFailed(f"message {self.id}: {each}")
        results = {
            d.peer: None
            if d.result is None
            else self._runtime.serialization.load_as(d.result_type, d.channel, d.result)
            for d in status.deliveries
        }
        return next(iter(results.values())) if len(results) == 1 else results

    def cancel(self) -> bool:
        """Take back what is not under way yet; True if no peer will get it."""
        _cancelled, late = self._runtime.outbox.cancel(self._message_id)
        self._runtime.notifier.notify(topics.RECEIPTS)
        return late == 0 and all(d.state is State.CANCELLED for d in self.deliveries)

    def __repr__(self) -> str:
        return f"<Sent {self.id}>"
