"""One open node: the public API.

Owns the verbs that an application uses, and their arguments. What is open beneath them is the runtime's; talks to no
network: `send` ends at this machine's disk, the daemon does the rest.
"""

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from dropr_core.api.batch import Batch
from dropr_core.api.consumer import Consumer, OnError, receive, receive_each
from dropr_core.api.prefetching import batches, singles
from dropr_core.api.received import Received
from dropr_core.api.runtime import Runtime
from dropr_core.api.send_options import Duration, MessageRef, PutOptions, SendOptions, as_seconds
from dropr_core.api.sender import Sender
from dropr_core.api.sent import MessageStatus, Sent
from dropr_core.api.subscriptions import Subscriptions
from dropr_core.config.node import NodeConfig
from dropr_core.contracts.bodies import Progress
from dropr_core.contracts.storage import Inbox, Outbox
from dropr_core.errors import UsageError
from dropr_core.model.names import DEFAULT_CHANNEL, parse_id
from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.api.working import Handlers
    from dropr_core.builtin.handlers.functions import F


class Node:
    """A node opened by this process. Safe to use from many threads; not across a fork."""

    def __init__(self, runtime: Runtime) -> None:
        """``runtime``: what is open; closed with the node."""
        self.runtime = runtime
        self._sender = Sender(runtime)
        self._registered: Handlers | None = None

    @classmethod
    def open(cls, config: NodeConfig | Path | str, *, read_only: bool = False) -> Self:
        """Open a node by its configuration or the path of its YAML file.

        Raises ConfigError, PluginError, StoreError.
        """
        return cls(Runtime.open(config, read_only=read_only))

    # ── parts ────────────────────────────────────────────────────────────────────────────────────

    @property
    def name(self) -> str:
        """What peers call this node."""
        return self.runtime.name

    @property
    def config(self) -> NodeConfig:
        """What it was opened with."""
        return self.runtime.config

    @property
    def registered(self) -> "Handlers":
        """The handlers of `on` and `handlers`; made when first needed, for few programs do."""
        if self._registered is None:
            with unforked:
                from dropr_core.api.working import Handlers

            self._registered = Handlers(self.runtime.log)
        return self._registered

    @property
    def outbox(self) -> Outbox:
        """The sending half of the store."""
        return self.runtime.outbox

    @property
    def inbox(self) -> Inbox:
        """The receiving half of the store."""
        return self.runtime.inbox

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def send(
        self,
        value: Any = b"",
        *,
        timeout: Duration = 0.0,
        progress: Progress | None = None,
        connection: Any = None,
        **options: Unpack[SendOptions],
    ) -> Sent:
        """Put a message into the durable outbox. When it returns, the message is on stable storage.

        ``value``: what the channel's serializer takes; or a path or an open binary file, whose content
        is streamed and never whole in memory (``progress`` is called with bytes done and, if known, of
        how many). Talks to no network. ``timeout``: how long to wait for room if the queue is full. ``options``:
        `SendOptions`; without ``to`` the channel's route. Raises UsageError (UnknownPeer, Conflict, TooBig),
        QueueFull, StoreError, TypeError for an option that does not exist; nothing was stored then.

        ``connection``: of a database under `outboxes:` of the configuration. The message is sent if and when the
        connection's transaction is committed (``timeout`` has no meaning then); what goes wrong in the database is
        raised as its library has it.
        """
        if connection is not None:
            return self._sender.write_within([self._sender.compose(value, options, progress)], connection)[0]
        return self._sender.send(value, options, timeout, progress)

    def batch(self, *, timeout: Duration = 0.0, connection: Any = None) -> Batch:
        """A context manager: what is sent through it is stored in one commit, all or nothing. ``connection``: as with
        `send`; all of it becomes part of that transaction when the block is left.
        """
        return Batch(self._sender, timeout, connection)

    def put(self, value: Any = b"", *, channel: str = DEFAULT_CHANNEL, **options: Unpack[PutOptions]) -> str:
        """Queue a message for this node's own consumers, durably. Returns its id. ``options``: `PutOptions`.

        Raises UsageError, QueueFull, StoreError, TypeError for an option that does not exist.
        """
        return self._sender.put(value, channel, options)

    def put_all(
        self, values: Iterable[Any], *, channel: str = DEFAULT_CHANNEL, **options: Unpack[PutOptions]
    ) -> list[str]:
        """`put` of many values in one commit, all or nothing, in their order. Returns their ids, in the same order;
        ``options`` are those of each. All of them are in memory until then, large bodies excepted. Raises as `put`
        does, and what ``values`` raises; nothing was stored then, unless the disk failed (StoreError).
        """
        return self._sender.put_all(values, channel, options)

    def find(self, message_id: MessageRef) -> Sent | None:
        """The handle of a message sent from this node, if it is still known."""
        identity = parse_id(message_id)
        sent = Sent.known(self.runtime, identity)
        return sent if self.outbox.status(identity) else None

    def status(self, message_id: MessageRef) -> MessageStatus | None:
        """What became of a message sent from this node; None if unknown or forgotten."""
        sent = self.find(message_id)
        return sent.status if sent else None

    # ── receiving ────────────────────────────────────────────────────────────────────────────────

    def receive(
        self,
        *channels: str,
        limit: int | None = None,
        wait: Duration | None = None,
        timeout: Duration | None = None,
        prefetch: int | None = None,
        on_error: OnError = "raise",
    ) -> Generator[Received, None, None]:
        """Messages of these channels, by priority, endless unless told otherwise.

        Leaving the loop body acknowledges, abandoning the loop gives the message back. ``wait``: end
        after so many seconds without a message (0: drain and end). ``timeout``: end after so many
        seconds in all. ``prefetch``: hold at most so many ahead of the loop body (None: what is worth it: as many as
        the body would handle within 10 ms at its pace of late; 1: none). ``on_error``: what ``with message:`` does with
        an exception. Raises UsageError, Closed; the loop raises LeaseLost, StoreError.
        """
        return receive_each(*singles(self.runtime, channels, prefetch, limit, wait, timeout, on_error))

    def receive_batches(
        self,
        *channels: str,
        size: int = 500,
        limit: int | None = None,
        wait: Duration | None = None,
        timeout: Duration | None = None,
    ) -> Generator[list[Received], None, None]:
        """Lists of up to ``size`` messages, acknowledged in one commit on leaving the loop body."""
        return receive(*batches(self.runtime, channels, size, limit, wait, timeout))

    def consumer(self, *channels: str, on_error: OnError = "raise", label: str = "") -> Consumer:
        """A consumer to be driven by hand: claim, wait, close."""
        return Consumer(self.runtime, channels, on_error=on_error, label=label)

    # ── handling ─────────────────────────────────────────────────────────────────────────────────

    def on(self, *channels: str) -> "Callable[[F], F]":
        """A decorator: the function handles the messages of these channels, as soon as `work` runs.

        What its argument is annotated as decides what it gets: nothing, or `Work`: the message; anything else (an attrs
        class, a dataclass, a msgspec Struct, a pydantic model …): the value as one of it, and then, if it has a second
        argument annotated `Work`, the message too. A message whose value does not fit is buried. Raises UsageError,
        PluginError.
        """
        return self.registered.on(*channels)

    def handlers(self, *modules: str) -> tuple[str, ...]:
        """Register the functions of modules that are marked with `dropr_core.on`; their channels. Raises UsageError,
        PluginError, ConfigError.
        """
        return self.registered.find(*modules)

    def work(self, wait: Duration | None = None, timeout: Duration | None = None) -> int:
        """Call the registered handlers, one message after the other, in this thread: endless unless told otherwise. How
        many were handled. What a handler's answers and errors mean is as for `dropr worker`.

        ``wait``: end after so many seconds without a message (0: drain and end). ``timeout``: end after so many seconds
        in all. Several threads may call it at once. Raises UsageError if there is no handler, Closed, StoreError.
        """
        count = 0
        for received in self.receive(*self.registered.channels, wait=wait, timeout=timeout):
            self.registered.handle(received)
            count += 1
        return count

    # ── the rest ─────────────────────────────────────────────────────────────────────────────────

    def retry_now(self, peer: str | None = None) -> None:
        """End the rest of a peer (None: of all): the daemon tries it at once. Raises StoreError: it cannot be told."""
        self.runtime.retry_now(peer)

    def publish(self, topic: str, value: Any = b"", **options: Unpack[PutOptions]) -> str:
        """Put a message into a topic, durably: each of its subscriptions gets a copy. Returns its id. A topic whose
        channel has a route (`to:`) is published where that leads. Raises UsageError for a topic that nobody knows.
        """
        subscriptions = Subscriptions(self.runtime)
        if subscriptions.is_sent(topic):
            return self.send(value, channel=topic, **options).id
        if topic not in subscriptions.topics():
            raise UsageError(f"no topic {topic!r}: name it under `topics:`, or subscribe to it first")
        return self.put(value, channel=topic, **options)

    def subscribe(self, topic: str, name: str, at: str | None = None) -> str:
        """From now on get a copy of each message of a topic, durably. Returns the channel to receive them from.

        ``at``: the node on which the topic is published; None: this one, or where the topic's channel leads. Another
        node is asked by a message: it joins as soon as that has arrived, if its ``topics`` allow it. Raises UsageError.
        """
        return Subscriptions(self.runtime).join(self._sender, topic, name, at)

    def unsubscribe(self, topic: str, name: str, at: str | None = None) -> int:
        """End it; copies that wait in its channel here are discarded. Returns how many. Raises UsageError."""
        return Subscriptions(self.runtime).leave(self._sender, topic, name, at)

    def pause(self, channel: str, seconds: Duration | None = None, reason: str = "") -> None:
        """Give consumers of a channel nothing more, in all processes of this node: for so long, or until `unpause`;
        durable. Sending and arriving go on; what a consumer holds ahead is still given. Raises UsageError, StoreError.
        """
        self.runtime.check()
        self.runtime.pauses.pause(channel, as_seconds(seconds, "pause"), reason)

    def unpause(self, channel: str) -> bool:
        """Give consumers of a channel messages again; durable. Whether it was paused. Raises StoreError."""
        self.runtime.check()
        return self.runtime.pauses.unpause(channel)

    def close(self) -> None:
        """Give up leases, close the store; safe twice."""
        if self._registered is not None:
            self._registered.close()
        self.runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
