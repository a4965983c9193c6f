"""The contract of a handler: called with a message by the worker. Must not know leases or stores."""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol

import attrs

from dropr_core.errors import UsageError
from dropr_core.model.message import Message
from dropr_core.model.names import format_id
from dropr_core.system.loading import unforked


class Effects(Protocol):
    """What a message that is handled can do with a transaction of the handler's own."""

    def ack(self, result: Any = None, *, connection: Any = None) -> None:
        """See `Work.ack`."""
        ...

    async def aack(self, result: Any, connection: Any) -> None:
        """See `Work.aack`."""
        ...

    def transaction(self, database: Any) -> AbstractContextManager[Any]:
        """See `Work.transaction`."""
        ...


@attrs.frozen
class Work:
    """A message as a handler sees it."""

    message: Message
    _body: bytes | Callable[[], BinaryIO] = attrs.field(repr=False)
    """The bytes, or what opens them where they are large."""
    _value: Any = attrs.field(repr=False)
    attempt: int
    possible_duplicate: bool
    age: float
    """Seconds since it entered this node's queue."""
    _loads: Callable[[bytes], Any] | None = attrs.field(default=None, repr=False, kw_only=True)
    """Makes the value of a large body, if somebody asks for it."""
    _effects: "Effects | None" = attrs.field(default=None, repr=False, eq=False, kw_only=True)
    """Its side of transactions; None: it is handled where there are none."""

    @property
    def large(self) -> bool:
        """Whether the body is better taken with `open`, piece by piece."""
        return not isinstance(self._body, bytes)

    @property
    def body(self) -> bytes:
        """The body, whole in memory."""
        if isinstance(self._body, bytes):
            return self._body
        with self._body() as file:
            return file.read()

    @property
    def value(self) -> Any:
        """The body through the channel's serializer; raises ProtocolError if it does not fit."""
        return self._value if self._loads is None else self._loads(self.body)

    def open(self) -> BinaryIO:
        """The body as a binary file to read; to be closed by the caller. Nothing is loaded."""
        return io.BytesIO(self._body) if isinstance(self._body, bytes) else self._body()

    @property
    def id(self) -> str:
        """The id as text."""
        return format_id(self.message.id)

    @property
    def headers(self) -> Mapping[str, str]:
        """The sender's headers."""
        return self.message.headers

    def transaction(self, database: Any) -> AbstractContextManager[Any]:
        """A transaction with which the message takes effect, once: committed when the block is left, rolled back if it
        raises. ``database``: what your library has of a database under `outboxes:`: an engine, a session, a pool, a
        connection. Gives the connection or session to work with. Where the message took effect before,
        AlreadyProcessed ends the handler, and the message is done. Raises UsageError, StoreError.
        """
        return self._with_effects().transaction(database)

    def ack(self, result: Any = None, *, connection: Any) -> None:
        """The message takes effect with the transaction of this connection, which has to be committed before the
        handler ends. Raises as `transaction`.
        """
        self._with_effects().ack(result, connection=connection)

    async def aack(self, result: Any = None, *, connection: Any) -> None:
        """The same with a connection of asyncio."""
        await self._with_effects().aack(result, connection)

    def _with_effects(self) -> Effects:
        if self._effects is None:
            raise UsageError("this message is handled without a node: it has no transactions")
        return self._effects


@attrs.frozen
class NoResult:
    """Returned by a handler whose work is done and whose result cannot travel: the receipt and the log say why."""

    reason: str


class Failed(Exception):
    """Raised by a handler that calls code of somebody else, in place of what that code raised: the attempt has failed.

    ``report`` is kept as its reason, and travels to a sender that asked. Rules of ``retry`` look at ``error``.
    """

    def __init__(self, error: BaseException, report: str) -> None:
        super().__init__(report)
        self.error, self.report = error, report


class Handler(ABC):
    """Does the work for one message. Called from several threads if the worker has several."""

    @abstractmethod
    def handle(self, work: Work) -> Any:
        """Do it. The returned value (None, bytes, text or what JSON can carry) goes home with the receipt; one that
        cannot travel does not make the work undone, and neither does `NoResult`.

        Raise Retry to have it again later, Reject to bury it; any other exception is a failure
        and backs off.
        """

    def close(self) -> None:
        """Release everything; safe twice."""


class AsyncHandler(Handler):
    """A handler that is awaited: a worker process has as many at once as `worker.tasks` says, all on one event loop."""

    @abstractmethod
    async def handle_async(self, work: Work) -> Any:
        """As `handle`. A call in here that blocks holds up all others of the process.

        It is cancelled when the `timeout` of the channel is over, and when the worker has to end.
        """

    def handle(self, work: Work) -> Any:
        """The same for who has no event loop."""
        with unforked:
            import asyncio

        return asyncio.run(self.handle_async(work))
