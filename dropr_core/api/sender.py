"""From the call of `send` to the commit in the outbox.

Owns the waiting for room in a full queue, and who is woken when something was stored: the daemon, peers that fetch,
consumers on this node. How a message is composed is in composer.py. Must not know links, transports or peers'
addresses.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

from dropr_core.api.composer import Composed, Composer
from dropr_core.api.runtime import Runtime
from dropr_core.api.send_options import Duration, PutOptions, SendOptions, seconds
from dropr_core.api.sent import Sent
from dropr_core.bodies.store import Progress, Written
from dropr_core.contracts.storage import AppendResult, Job, NewMessage
from dropr_core.errors import QueueFull, UsageError, WriteFailed
from dropr_core.model import topics
from dropr_core.model.facts import facts_of
from dropr_core.model.names import MessageId, format_id

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
            runtime.config, runtime.clock, runtime.serialization.dump, runtime.bodies,
            partial(observers.headers, runtime.name) if observers.propagating else None,
        )  # fmt: skip
        self._staging = runtime.staging
        self._interval = frozenset(
            name
            for name, channel in runtime.config.channels.items()
            if channel.durability == "interval" and runtime.storage.outbox.staging
        )
        """Channels whose messages are staged."""
        self._pulled = frozenset(name for name, peer in runtime.config.peers.items() if peer.mode == "pull")

    def compose(self, value: Any, options: SendOptions, progress: Progress | None = None) -> Composed:
        """The message to store, its large body written. Raises UsageError, StoreError, TypeError for a wrong option."""
        if options.keys() <= _ROUTE and progress is None:
            return self._composer.compose_plain(value, options.get("to"), options.get("channel"))
        return self._composer.compose(value, options, progress)

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

    def store(self, messages: list[NewMessage], patience: float, written: Sequence[Written]) -> Sequence[AppendResult]:
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
            for body in written:
                body.release()
        runtime.notifier.notify(topics.OUTBOX)
        if self._pulled:
            for peer in self._pulled.intersection(peer for message in messages for peer in message.peers):
                runtime.notifier.notify(topics.mail(peer))
        if runtime.observed:
            self._tell(messages)
        return placed

    def _append(self, messages: list[NewMessage]) -> Sequence[AppendResult]:
        if self._staging.pending:  # they were sent before
            self._staging.drain()
        return self._runtime.storage.outbox.append(messages)

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

    def put(self, value: Any, channel: str, options: PutOptions) -> str:
        """Queue a message for this node's own consumers; what `Node.put` promises."""
        runtime = self._runtime
        plain = None if options else self._composer.compose_local_plain(value, channel)
        if plain is not None:
            identity = plain.id
            runtime.inbox.put(channel, plain.priority, runtime.name, [Job(identity, plain.envelope)])
        else:
            message, data, written = self._composer.compose_local(value, channel, options)
            identity = message.message_id
            job = Job(identity, data, 0, message.key, False, message.delay, message.expires_in, rank=message.rank)
            try:
                runtime.inbox.put(channel, message.priority, runtime.name, [job])
            finally:
                if written is not None:
                    written.release()
        runtime.notifier.notify(topics.inbox(channel))
        return format_id(identity)

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
        job = Job(identity, data, 0, message.key, True, message.delay, message.expires_in, rank=message.rank)
        try:
            runtime.inbox.put(channel, message.priority, sender, [job])
        finally:
            if written is not None:
                written.release()
        runtime.notifier.notify(topics.inbox(channel))
