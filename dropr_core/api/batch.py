"""Many sends in one commit.

Owns what is collected until the block ends: all is stored then, or nothing. Must not know how it is stored.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from dropr_core.api.send_options import Duration, SendOptions, seconds
from dropr_core.api.sender import Sender
from dropr_core.api.sent import Sent
from dropr_core.bodies.store import Written
from dropr_core.contracts.storage import AppendResult, NewMessage
from dropr_core.errors import UsageError


class Batch:
    """Collects messages and stores them in one commit when the block is left normally."""

    def __init__(self, sender: Sender, timeout: Duration) -> None:
        """Made by `Node.batch`. Raises UsageError."""
        self._sender, self._patience = sender, seconds(timeout, "timeout")
        self._messages: list[NewMessage] = []
        self._written: list[Written] = []
        self._placed: Sequence[AppendResult] = ()
        self._sent: list[Sent] = []
        self._open = False

    @property
    def sent(self) -> Sequence[Sent]:
        """The handles, in order, once the block was left."""
        if self._placed and not self._sent:
            self._sent = self._sender.handles(self._messages, self._placed)
        return self._sent

    def send(self, value: Any = b"", **options: Unpack[SendOptions]) -> None:
        """As `Node.send`, but stored at the end of the block. Raises UsageError at once."""
        if not self._open:
            raise UsageError("a batch is used as `with node.batch() as batch:`, and only inside of the block")
        outgoing, written = self._sender.compose(value, options)
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
            self._placed = self._sender.store(self._messages, self._patience, self._written)
        for body in self._written:
            if error is None:
                body.release()
            else:
                body.discard()
