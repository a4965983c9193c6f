"""Many sends in one commit.

Owns what is collected until the block ends: all is stored then, or nothing. Must not know how it is stored.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from dropr_core.api.message_template import Composed, MessageTemplate
from dropr_core.api.send_options import Duration, SendOptions, seconds
from dropr_core.api.sender import Sender
from dropr_core.api.sent import Sent
from dropr_core.contracts.bodies import Progress
from dropr_core.contracts.storage import AppendResult, NewMessage
from dropr_core.errors import UsageError


class Batch:
    """Collects messages and stores them in one commit when the block is left normally."""

    def __init__(self, sender: Sender, timeout: Duration, connection: Any = None) -> None:
        """Made by `Node.batch`. Raises UsageError."""
        self._sender, self._patience, self._connection = sender, seconds(timeout, "timeout"), connection
        self._composed: list[Composed] = []
        self._small = sender.small
        self._options: SendOptions | None = None
        """What was said of the last bodies, which are not composed yet."""
        self._template: MessageTemplate | None = None
        self._bodies: list[bytes] = []
        self._messages: Sequence[NewMessage] = ()
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
        # Said again of bytes like the last ones, as most often: all of it is done at the end for a tenth of the cost.
        if type(value) is bytes and options == self._options and len(value) <= self._small:
            self._bodies.append(value)
        else:
            self.add(value, options)

    def add(self, value: Any, options: SendOptions, progress: Progress | None = None) -> None:
        """As `send`, whose options are one argument."""
        template = self._sender.template_of(value, options) if progress is None else None
        self._compose_bodies()
        if template is None:
            self._composed.append(self._sender.compose(value, options, progress))
        else:
            self._template, self._options = template, options
            self._bodies.append(value)

    def _compose_bodies(self) -> None:
        """What comes now is another kind of message, or has to be seen one by one."""
        if self._template is not None:
            self._composed += map(self._template.make, self._bodies)
        self._options = self._template = None
        self._bodies = []

    def _all(self) -> Sequence[NewMessage]:
        if self._template is not None and not self._composed:
            return self._template.make_all(self._bodies)
        self._compose_bodies()
        return [one.outgoing for one in self._composed]

    def __len__(self) -> int:
        return len(self._composed) + len(self._bodies)

    def __enter__(self) -> Self:
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if error is not None:
            self._discard()
        elif len(self) and self._connection is not None:
            self._compose_bodies()
            self._sent = self._sender.write_within(self._composed, self._connection)
        elif len(self):
            self._messages = self._all()
            written = [one.written for one in self._composed if one.written is not None]
            self._placed = self._sender.store(self._messages, self._patience, written)

    async def leave(self, error: BaseException | None) -> None:
        """`__exit__` of a batch whose connection is one of asyncio."""
        self._open = False
        if error is not None:
            self._discard()
        elif len(self):
            self._compose_bodies()
            self._sent = await self._sender.awrite_within(self._composed, self._connection)

    def _discard(self) -> None:
        for one in self._composed:
            if one.written is not None:
                one.written.discard()
