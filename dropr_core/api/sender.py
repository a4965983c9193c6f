"""From the call of `send` to the commit in the outbox.

Owns the waiting for room in a full queue, and who is woken when something was stored: the daemon, peers that fetch,
consumers on this node. How a message is composed is in composer.py. Must not know links, transports or peers'
addresses.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

from dropr_core.api.composer import Composer
from dropr_core.api.message_template import Composed, MessageTemplate
from dropr_core.api.runtime import Runtime
from dropr_core.api.send_options import Duration, PutOptions, SendOptions, seconds
from dropr_core.api.sent import Sent
from dropr_core.contracts.bodies import Progress, Written, release_all
from dropr_core.contracts.records import PlainMessages
from dropr_core.contracts.storage import AppendResult, Job, NewMessage
from dropr_core.errors import QueueFull, UsageError, WriteFailed
from dropr_core.model import topics
from dropr_core.model.facts import facts_of
from dropr_core.model.message import Message
from dropr_core.model.names import DEFAULT_CHANNEL, DEFAULT_PRIORITY, MessageId, format_id

_ROUTE = frozenset({"to", "channel"})
"""Options with which a message needs nothing that its route does not have: the common case."""

T = TypeVar("T")

LOOK_FOR_ROOM = 1.0
"""Seconds at most between two looks whether a full queue has room again."""


class Sender:
    """Sends for one open node. Safe to use from many threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        observers = runtime.observers
        self._composer = Composer(
            runtime.config, runtime.clock, runtime.serialization.dump, lambda: runtime.bodies,
            partial(observers.headers, runtime.name) if observers.propagating else None,
        )  # fmt: skip
        self.small, self.peers_of = self._composer.small, self._composer.peers_of
        self._staging = runtime.staging
        self._interval = frozenset(
            name
            for name, channel in runtime.config.channels.items()
            if channel.durability == "interval" and runtime.storage.outbox.staging
        )
        """Channels whose messages are staged."""
        self._wake_daemon = partial(runtime.notifier.notify, topics.OUTBOX)
        self._pulled = frozenset(name for name, peer in runtime.config.peers.items() if peer.mode == "pull")

    def compose(self, value: Any, options: SendOptions, progress: Progress | None = None) -> Composed:
        """The message to store, its large body written. Raises UsageError, StoreError, TypeError for a wrong option."""
        if options.keys() <= _ROUTE and progress is None:
            return self._composer.compose_plain(value, options.get("to"), options.get("channel"))
        return self._composer.compose(value, options, progress)

    def template_of(self, value: Any, options: SendOptions) -> MessageTemplate | None:
        """What makes this and other messages of at most `small` bytes of which the same is said; None: compose each by
        itself. Raises UsageError.
        """
        return self._composer.template_of(value, options) if options.keys() <= _ROUTE else None

    def send(self, value: Any, options: SendOptions, timeout: Duration, progress: Progress | None = None) -> Sent:
        """Compose and store one message; what `Node.send` promises."""
        patience = seconds(timeout, "timeout") if timeout else 0.0
        if progress is not None and not callable(progress):
            raise UsageError("progress: it is called with the bytes done, and must be a function")
        outgoing, written = self.compose(value, options, progress)
        if outgoing.channel in self._interval and written is None and self._stage(outgoing, patience):
            return Sent(
                self._runtime, outgoing, AppendResult(outgoing.id, (0,) * len(outgoing.peers), False), "interval"
            )
        placed = self.store([outgoing], patience, () if written is None else (written,))
        return Sent(self._runtime, outgoing, placed[0])

    def write_within(self, composed: Sequence[Composed], connection: Any) -> list[Sent]:
        """Write composed messages as part of a transaction of the user's; what `Node.send` promises."""
        runtime = self._runtime
        with letting_go(composed):
            runtime.check()
            prepared = runtime.outboxes.prepare(connection)
            return self._handles_within(runtime.outboxes.write(*prepared, composed))

    async def awrite_within(self, composed: Sequence[Composed], connection: Any) -> list[Sent]:
        """The same with a connection of asyncio."""
        runtime = self._runtime
        with letting_go(composed):
            runtime.check()
            prepared = runtime.outboxes.prepare_async(connection)
            return self._handles_within(await runtime.outboxes.awrite(*prepared, composed))

    def _handles_within(self, messages: Sequence[NewMessage]) -> list[Sent]:
        return [Sent(self._runtime, one, AppendResult(one.id, (), False), "transaction") for one in messages]

    def compose_row(self, body: bytes, content_type: str | None, options: SendOptions, age: float) -> Composed:
        """A message of which the body is encoded already, sent ``age`` seconds ago. ``content_type``: None: that of the
        channel's serializer. Raises UsageError, ProtocolError for what its channel's type does not take, StoreError.
        """
        serialization = self._runtime.serialization
        channel = options.get("channel") or DEFAULT_CHANNEL
        kind = serialization.type_of_encoded(channel) if content_type is None else content_type
        if serialization.is_typed(channel):
            serialization.load(Message(id=b"", sender="", channel=channel, content_type=kind), body)
        return self._composer.compose_encoded(body, kind, options, age)

    def _stage(self, message: NewMessage, patience: float) -> bool:
        """Whether a message was staged. What needs more than a place in its lanes goes straight into the outbox."""
        self._runtime.check()
        if message.fingerprint is not None or message.delayed or message.expires_in is not None:
            return False
        try:
            staged = self._staging.put(message)
        except QueueFull:
            if patience <= 0:
                raise
            staged = self._patiently(lambda: self._staging.put(message), patience)
        if staged and self._runtime.observed:
            self._tell([message])
        return staged

    def handles(self, messages: Sequence[NewMessage], placed: Sequence[AppendResult]) -> list[Sent]:
        """A handle for each message that was stored."""
        return list(map(Sent, repeat(self._runtime), messages, placed))

    def store(
        self, messages: Sequence[NewMessage], patience: float, written: Sequence[Written]
    ) -> Sequence[AppendResult]:
        """Store composed messages durably and wake the daemon. ``written``: their large bodies, released after it.

        ``patience``: seconds to wait for room. If it fails the bodies are left to the sweep: the same message may
        have been stored before. Raises QueueFull, StoreError, Closed.
        """
        runtime = self._runtime
        try:
            runtime.check()
            placed = self._append(messages)
        except QueueFull:
            if patience <= 0:
                raise
            placed = self._patiently(lambda: self._append(messages), patience)
        finally:
            if written:
                release_all(written)
        if self._pulled:
            some = (messages.like,) if isinstance(messages, PlainMessages) else messages
            for peer in self._pulled.intersection(peer for message in some for peer in message.peers):
                runtime.notifier.notify(topics.mail(peer))
        if runtime.observed:
            self._tell(messages)
        return placed

    def _append(self, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:
        if self._staging.pending:  # they were sent before
            self._staging.drain()
        outbox, notifier = self._runtime.storage.outbox, self._runtime.notifier
        if notifier.is_awaited(topics.OUTBOX):  # then it gets ready to ship them while we wait for the disk
            return outbox.append_telling(messages, self._wake_daemon)
        placed = outbox.append(messages)
        self._wake_daemon()
        return placed

    def _tell(self, messages: Sequence[NewMessage]) -> None:
        for message in messages:
            self._runtime.event(
                "message_queued",
                {
                    "id": message.id, "channel": message.channel, "peers": message.peers,
                    "facts": facts_of(message.envelope),
                },
            )  # fmt: skip

    def _patiently(self, store: Callable[[], T], patience: float) -> T:
        """Try again whenever there may be room."""
        deadline = time.monotonic() + patience
        with contextlib.ExitStack() as stack:
            subscription = None
            # To listen takes a file; on a disk that is full there is no room for one, and we look now and then.
            with contextlib.suppress(WriteFailed):
                subscription = stack.enter_context(self._runtime.notifier.subscribe(topics.RECEIPTS))
            while True:
                if subscription is not None:
                    subscription.prepare()
                try:
                    self._runtime.check()
                    return store()
                except QueueFull:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise
                # Room may also come from outside, such as a freed disk.
                if subscription is not None:
                    subscription.wait(min(left, LOOK_FOR_ROOM))
                else:
                    time.sleep(min(left, LOOK_FOR_ROOM))

    def put(self, value: Any, channel: str, options: PutOptions, identity: MessageId | None = None) -> str:
        """Queue a message for this node's own consumers; what `Node.put` promises. ``identity``: its id, if the caller
        has made one; the same one twice is two messages.
        """
        runtime = self._runtime
        plain = None if options or identity is not None else self._composer.compose_local_plain(value, channel)
        if plain is not None:
            identity = plain.id
            runtime.inbox.put(channel, plain.priority, runtime.name, [Job(identity, plain.envelope)])
        else:
            message, data, written = self._composer.compose_local(value, channel, options, identity)
            identity = message.message_id
            try:
                runtime.inbox.put(channel, message.priority, runtime.name, [_job_of(message, data)])
            finally:
                if written is not None:
                    written.release()
        runtime.notifier.notify(topics.inbox(channel))
        return format_id(identity)

    def put_all(self, values: Iterable[Any], channel: str, options: PutOptions) -> list[str]:
        """Queue messages for this node's own consumers in one commit; what `Node.put_all` promises."""
        if isinstance(values, str | bytes | bytearray | memoryview | Mapping | Path):
            kind = type(values).__name__
            raise UsageError(f"put_all() takes a list of values, each a message, and got one {kind}: `put` queues that")
        self._composer.check_local(channel, options, "put_all")  # also where there is no message
        runtime, jobs, written, priority = self._runtime, list[Job](), list[Written](), DEFAULT_PRIORITY
        try:
            for value in values:
                plain = None if options else self._composer.compose_local_plain(value, channel)
                if plain is not None:
                    jobs.append(Job(plain.id, plain.envelope))
                    priority = plain.priority  # of the channel or of the options: the same for all
                else:
                    message, data, body = self._composer.compose_local(value, channel, options)
                    jobs.append(_job_of(message, data))
                    priority = message.priority
                    if body is not None:
                        written.append(body)
        except BaseException:  # also what the caller's iterable raises: nothing is stored then
            for body in written:
                body.discard()
            raise
        if jobs:
            try:
                runtime.inbox.put(channel, priority, runtime.name, jobs)
            finally:
                release_all(written)
            runtime.notifier.notify(topics.inbox(channel))
        return [format_id(job.id) for job in jobs]

    def put_known(
        self,
        value: Any,
        channel: str,
        options: PutOptions,
        identity: MessageId,
        sender: str,
        content_type: str | None = None,
    ) -> None:
        """As `put`, with an id that the caller has made, and under a name of its own: there the message's outcome is
        written down, as for a peer. ``content_type``: if not that of its serializer. Raises UsageError, QueueFull,
        StoreError.
        """
        runtime = self._runtime
        message, data, written = self._composer.compose_local(value, channel, options, identity, sender, content_type)
        try:
            runtime.inbox.put(channel, message.priority, sender, [_job_of(message, data, known=True)])
        finally:
            if written is not None:
                written.release()
        runtime.notifier.notify(topics.inbox(channel))


def _job_of(message: Message, data: bytes, *, known: bool = False) -> Job:
    """``known``: whether its sender is told what became of it."""
    return Job(message.message_id, data, 0, message.key, known, message.delay, message.expires_in, rank=message.rank)


@contextlib.contextmanager
def letting_go(composed: Sequence[Composed]) -> Iterator[None]:
    """Bodies are let go after the block; whether they stay is decided by then."""
    try:
        yield
    finally:
        for one in composed:
            if one.written is not None:
                one.written.release()
