"""One node: the composition root and the public API.

Owns the life of storage, bell, clock and plugins of one process, and the verbs an application
uses. Talks to no network: `send` ends at this machine's disk, the daemon does the rest.
"""

import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from dropr_core.api.composer import Composer, Duration, SendOptions
from dropr_core.api.consumer import Consumer, iterate, iterate_batches
from dropr_core.api.received import ChannelRules, Received, Surroundings
from dropr_core.api.sent import Batch, MessageStatus, Sent
from dropr_core.api.serialization import Codecs
from dropr_core.bodies.store import Bodies, Progress, Written
from dropr_core.config.node import NodeConfig, load
from dropr_core.config.schema import ChannelConfig, PeerConfig
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Inbox, Job, Outbox, Outgoing, Placed, Storage
from dropr_core.errors import Closed, QueueFull, StoreCorrupt, StoreReadOnly, UsageError
from dropr_core.model.backoff import Backoff
from dropr_core.model.names import DEFAULT_CHANNEL, check_channel, parse_id
from dropr_core.plugin.registry import Observers, create
from dropr_core.system.clock import SystemClock, open_clock, read_clock
from dropr_core.system.files import create_text
from dropr_core.system.notifier import Bell


class Node:
    """A node opened by this process. Safe to use from many threads; not across a fork."""

    def __init__(self, config: NodeConfig, storage: Storage, clock: SystemClock, codecs: Codecs,
                 observers: Observers, log: logging.Logger, node_id: bytes) -> None:  # fmt: skip
        self.config, self.storage, self.clock, self.log, self.node_id = config, storage, clock, log, node_id
        self.observers = observers
        self.bell = Bell(self.run_directory / "bell")
        self._codecs = codecs
        self.bodies = Bodies(config.data / "bodies", config.limits.min_free)
        self._composer = Composer(config, clock, codecs.dump, self.bodies)
        self._pulled = frozenset(name for name, peer in config.peers.items() if peer.mode == "pull")
        self._default_rules = ChannelRules()
        self._rules = {
            name: ChannelRules(
                channel.attempts, Backoff(channel.retry_backoff_min, channel.retry_backoff_max), channel.retention
            )
            for name, channel in config.channels.items()
        }
        self._pid = os.getpid()
        self._closed = False

    @classmethod
    def open(cls, config: NodeConfig | Path | str, *, read_only: bool = False) -> Self:
        """Open a node by its configuration or the path of its YAML file.

        Raises ConfigError, PluginError, StoreError.
        """
        if not isinstance(config, NodeConfig):
            config = load(Path(config))
        log = logging.getLogger(f"dropr.{config.node}")
        node_id = prepare(config.data, read_only=read_only)
        clock = read_clock(config.data) if read_only else open_clock(config.data)
        observers = Observers()
        context = make_context(config, clock, log, observers, read_only=read_only)
        try:
            for index, component in enumerate(config.observers):
                observers.add(component.use, component.options, context, f"observers.{index}", config.where)
            storage = create("storage", config.storage.use, config.storage.options, context, "storage", config.where)
        except BaseException:
            observers.close()
            raise
        return cls(config, storage, clock, Codecs(config, context), observers, log, node_id)

    # ── parts ────────────────────────────────────────────────────────────────────────────────────

    @property
    def name(self) -> str:
        """What peers call this node."""
        return self.config.node

    @property
    def outbox(self) -> Outbox:
        """The sending half of the store."""
        self._check()
        return self.storage.outbox

    @property
    def inbox(self) -> Inbox:
        """The receiving half of the store."""
        self._check()
        return self.storage.inbox

    @property
    def run_directory(self) -> Path:
        """Where running processes leave word about themselves."""
        return self.config.data / "run"

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def send(
        self,
        value: Any = b"",
        *,
        to: str | Iterable[str] | None = None,
        channel: str | None = None,
        priority: int | None = None,
        delay: Duration | None = None,
        expires_in: Duration | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        id: str | bytes | uuid.UUID | None = None,  # noqa: A002 - the field's name in every other system
        dedup_key: str | None = None,
        receipt: bool | None = None,
        content_type: str | None = None,
        timeout: Duration = 0.0,
        progress: Progress | None = None,
    ) -> Sent:
        """Put a message into the durable outbox. When it returns, the message is on stable storage.

        ``value``: what the channel's serializer takes; or a path or an open binary file, whose content
        is streamed and never whole in memory (``progress`` is called with bytes done and, if known, of
        how many). Talks to no network. ``to``: a peer, a group, or a list of them; without it the channel's
        route. ``timeout``: how long to wait for room if the queue is full. Raises UsageError
        (UnknownPeer, Conflict, TooBig), QueueFull, StoreError; nothing was stored then.
        """
        if (
            priority is None and delay is None and expires_in is None and headers is None and key is None
            and id is None and dedup_key is None and receipt is None and content_type is None and progress is None
        ):  # fmt: skip
            composed = self._composer.compose_plain(value, to, channel)
        else:
            composed = self._composer.compose(value, SendOptions(
                to, channel, priority, delay, expires_in, headers, key, id, dedup_key, receipt, content_type
            ), progress)  # fmt: skip
        return self.append([composed.outgoing], timeout, (composed.written,) if composed.written else ())[0]

    def batch(self, *, timeout: Duration = 0.0) -> Batch:
        """A context manager: what is sent through it is stored in one commit, all or nothing."""
        return Batch(self, self._composer, timeout)

    def append(self, messages: list[Outgoing], timeout: Duration = 0.0, written: Sequence[Written] = ()) -> list[Sent]:
        """`store`, and a handle for each message."""
        placed = self.store(messages, timeout, written)
        return list(map(Sent, repeat(self), messages, placed))

    def store(self, messages: list[Outgoing], timeout: Duration, written: Sequence[Written]) -> Sequence[Placed]:
        """Store composed messages durably and wake the daemon. ``written``: their large bodies, released after it.

        If it fails the bodies are left to the sweep: the same message may have been stored before.
        """
        self._check()
        try:
            placed = self.storage.outbox.append(messages)
        except QueueFull:
            placed = self._append_patiently(messages, timeout)
        finally:
            for body in written:
                body.release()
        self.bell.ring("outbox")
        if self._pulled:
            for peer in self._pulled.intersection(peer for message in messages for peer in message.peers):
                self.bell.ring(f"mail:{peer}")
        if self.observers.present:
            for message in messages:
                self.event("message_queued", {"id": message.id, "channel": message.channel, "peers": message.peers})
        return placed

    def _append_patiently(self, messages: list[Outgoing], timeout: Duration) -> Any:
        deadline = time.monotonic() + self._composer.seconds(timeout)
        with self.bell.listen("receipts") as ear:
            while True:
                ear.arm()
                try:
                    return self.storage.outbox.append(messages)
                except QueueFull:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise
                    ear.wait(min(left, 1.0))  # room may also come from outside, such as a freed disk

    def put(
        self,
        value: Any = b"",
        *,
        channel: str = DEFAULT_CHANNEL,
        priority: int | None = None,
        delay: Duration | None = None,
        expires_in: Duration | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> str:
        """Queue a message for this node's own consumers, durably. Returns its id."""
        options = SendOptions(None, channel, priority, delay, expires_in, headers, key)
        message, data, written = self._composer.compose_local(value, channel, options)
        job = Job(message.message_id, data, 0, message.key, False, message.delay, message.expires_in)
        try:
            self.inbox.put(channel, message.priority, self.name, [job])
        finally:
            if written is not None:
                written.release()
        self.bell.ring(f"inbox:{channel}")
        return str(uuid.UUID(bytes=message.id))

    def find(self, message_id: str | bytes | uuid.UUID) -> Sent | None:
        """The handle of a message sent from this node, if it is still known."""
        identity = parse_id(message_id)
        sent = Sent.known(self, identity)
        return sent if self.outbox.status(identity) else None

    def status(self, message_id: str | bytes | uuid.UUID) -> MessageStatus | None:
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
        prefetch: int = 1,
        on_error: Literal["raise", "continue"] = "raise",
    ) -> Iterator[Received]:
        """Messages of these channels, by priority, endless unless told otherwise.

        Leaving the loop body acknowledges, abandoning the loop gives the message back. ``wait``: end
        after so many seconds without a message (0: drain and end). ``timeout``: end after so many
        seconds in all. ``prefetch``: lease so many at once; more is faster, and keeps them from
        other consumers meanwhile. ``on_error``: what ``with message:`` does with an exception.
        """
        seconds = self._composer.seconds
        return iterate(
            self.consumer(*channels, on_error=on_error),
            limit=limit,
            wait=None if wait is None else seconds(wait),
            timeout=None if timeout is None else seconds(timeout),
            prefetch=prefetch,
        )

    def receive_batches(
        self,
        *channels: str,
        size: int = 500,
        limit: int | None = None,
        wait: Duration | None = None,
        timeout: Duration | None = None,
    ) -> Iterator[list[Received]]:
        """Lists of up to ``size`` messages, acknowledged in one commit on leaving the loop body."""
        seconds = self._composer.seconds
        return iterate_batches(
            self.consumer(*channels),
            size=size,
            limit=limit,
            wait=None if wait is None else seconds(wait),
            timeout=None if timeout is None else seconds(timeout),
        )

    def consumer(self, *channels: str, on_error: Literal["raise", "continue"] = "raise", label: str = "") -> Consumer:
        """A consumer to be driven by hand: claim, wait, close."""
        if not channels:
            raise UsageError("name at least one channel to receive from")
        for channel in channels:
            check_channel(channel)
        self._check()
        return Consumer(self._surroundings(), channels, on_error=on_error, label=label)

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            inbox=self.storage.inbox,
            bell=self.bell,
            clock=self.clock,
            log=self.log,
            loads=self._codecs.load,
            dumps_result=self._codecs.dump_result,
            rules=self.rules,
            event=self.event,
            observed=self.observers.present,
            attempts={name: channel.attempts for name, channel in self.config.channels.items()},
            bodies=self.bodies,
        )

    def rules(self, channel: str) -> ChannelRules:
        """What the configuration says about taking from a channel."""
        return self._rules.get(channel, self._default_rules)

    def loads(self, content_type: str, channel: str, data: bytes) -> Any:
        """A body or result as a value, by its content type."""
        return self._codecs.load_as(content_type, channel, data)

    def seconds(self, value: Duration) -> float:
        """A duration as seconds; raises UsageError."""
        return self._composer.seconds(value)

    # ── the rest ─────────────────────────────────────────────────────────────────────────────────

    def nudge(self, peer: str | None = None) -> None:
        """End the rest of a peer (None: of all): the daemon tries it at once."""
        directory = self.run_directory / "nudge"
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / (peer.encode().hex() if peer else "all")).touch(mode=0o600)
        self.bell.ring("control")

    def sweep_bodies(self) -> int:
        """Remove large bodies that no message needs any more. Returns how many."""
        return self.bodies.sweep(
            lambda identity: self.outbox.envelope(identity) is not None,
            lambda identity: self.inbox.envelope(identity) is not None,
            self.clock.wall(),
        )

    def event(self, name: str, details: Mapping[str, object]) -> None:
        """Tell observers; those about the store go to ``dropr_store_event``."""
        if self.observers.present:
            self.observers.tell(self.name, name, details)

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"node {self.name} was closed")
        if os.getpid() != self._pid:
            raise Closed(f"node {self.name} was opened before a fork; open it again in the child")

    def close(self) -> None:
        """Give up leases, close the store; safe twice."""
        if not self._closed:
            self._closed = True
            self.bell.close()
            self.storage.close()
            self.observers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def prepare(data: Path, *, read_only: bool) -> bytes:
    """Make the data directory (0700) and the node's random 128-bit id; return the id."""
    path = data / "node.id"
    try:
        if not read_only:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            for sub in ("run", "consumers"):
                (data / sub).mkdir(mode=0o700, exist_ok=True)
            if not path.exists():
                create_text(path, os.urandom(16).hex())
        return bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise StoreReadOnly(
            f"{data}: {error.strerror or error}; the data directory must exist and belong to this user"
        ) from None
    except ValueError:
        raise StoreCorrupt(
            f"{path} does not hold a node id (32 hexadecimal digits); restore it, or remove it to get a new one"
        ) from None


def make_context(
    config: NodeConfig, clock: SystemClock, log: logging.Logger, observers: Observers, *, read_only: bool = False
) -> Context:
    """What plugins of this node get from their host."""
    limits = config.limits

    def event(name: str, details: Mapping[str, Any]) -> None:
        observers.tell(config.node, name, details)

    return Context(
        node=config.node,
        data=config.data,
        clock=clock,
        log=log,
        event=event,
        max_messages=limits.max_messages,
        max_bytes=limits.max_bytes,
        min_free=limits.min_free,
        peer_limits=_limits(config.peers),
        channel_limits=_limits(config.channels),
        remember=config.delivery.remember,
        keep_sent={name: channel.retention for name, channel in config.channels.items() if channel.retention},
        read_only=read_only,
    )


def _limits(named: Mapping[str, PeerConfig] | Mapping[str, ChannelConfig]) -> dict[str, tuple[int | None, int | None]]:
    """Only what has a limit: a storage looks every name up with every message."""
    limits = {name: (config.max_messages, config.max_bytes) for name, config in named.items()}
    return {name: limit for name, limit in limits.items() if limit != (None, None)}
