"""The transport `dropr://` of Kombu: a connection is a node of this machine that is open in this process.

Owns waiting: asleep on the notifier's descriptors, in a call or in Celery's event loop; nothing is polled. Must not
know what a message is.
"""

import os
import select
import time
from typing import TYPE_CHECKING, Any, ClassVar

from kombu.exceptions import ChannelError
from kombu.transport import virtual

import dropr_core
from dropr_core.errors import StoreError, UsageError
from dropr_core.system.notifier import LOOK_AGAIN
from dropr_core.system.wake_up import WakeUp
from dropr_kombu import channel as channels
from dropr_kombu.address import config_of
from dropr_kombu.mailboxes import Mailboxes
from dropr_kombu.nodes import SharedNode, acquire
from dropr_kombu.routes import Routes
from dropr_kombu.sources import Source

if TYPE_CHECKING:
    from dropr_core import Node

BATCH = 50
"""Messages that are taken at once, and after which the event loop may do something else."""


class Transport(virtual.Transport):
    """One connection."""

    Channel = channels.Channel
    can_parse_url = True
    default_port = None
    driver_type = "dropr"
    driver_name = "dropr"
    polling_interval = None
    connection_errors = (StoreError,)
    """What may pass by itself: Celery tries again."""
    recoverable_connection_errors = connection_errors
    channel_errors = (UsageError, ChannelError)
    recoverable_channel_errors: ClassVar[tuple[type[Exception], ...]] = ()
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset({"direct", "topic", "fanout"}), heartbeats=False
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        options = client.transport_options
        self.eta_in_queue = bool(options.get("eta_in_queue"))
        self.zero_first = options.get("priority_order") == "redis"
        self.declared: set[str] = set()
        """Durable queues that this connection has declared."""
        self._shared: SharedNode | None = None
        self._boxes: tuple[int, Mailboxes] | None = None
        self._routes: Routes | None = None
        self._turn = 0
        self._loop: Any = None
        self._watched: dict[int, Source] = {}
        self._hungry, self._look_at, self._alarm = True, 0.0, None
        self._wake: WakeUp | None = None

    # ── the connection ───────────────────────────────────────────────────────────────────────────

    @property
    def shared(self) -> SharedNode:
        """The node, with what its users share."""
        if self._shared is None:
            raise StoreError("this connection of Kombu is closed")
        return self._shared

    @property
    def node(self) -> "Node":
        """The node of this process. Raises StoreError if the connection is closed."""
        return self.shared.node

    @property
    def boxes(self) -> Mailboxes:
        """Mailboxes; of a forked child others than of its parent."""
        if self._boxes is None or self._boxes[0] != os.getpid():
            runtime = self.node.runtime
            self._boxes = os.getpid(), Mailboxes(runtime.run_directory, runtime.notifier)
        return self._boxes[1]

    @property
    def routes(self) -> Routes:
        """Which way queues go."""
        if self._routes is None:
            self._routes = Routes(self.node.config, self.client.transport_options)
        return self._routes

    def establish_connection(self) -> Any:
        """Open the node. Raises ConfigError, PluginError, UsageError, StoreError."""
        if self._shared is None:
            shared = acquire(config_of(self.client.hostname or ""))
            try:
                shared.node.runtime.check()
            except BaseException:
                shared.release()
                raise
            self._shared = shared
            self._wake = WakeUp()
        return super().establish_connection()

    def close_connection(self, connection: Any) -> None:
        """Give back what is in hand, and leave the node to its other users; safe twice."""
        self._leave_loop()
        super().close_connection(connection)
        shared, self._shared = self._shared, None
        boxes, self._boxes = self._boxes, None
        if boxes is not None and boxes[0] == os.getpid():
            boxes[1].close()
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.close()
        if shared is not None:
            shared.release()

    def verify_connection(self, connection: Any) -> bool:  # noqa: ARG002 - Kombu's signature
        """Whether it is open."""
        return self._shared is not None

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:  # noqa: ARG002
        """There is nothing to hide in it."""
        return uri

    def driver_version(self) -> str:
        """That of dropr."""
        return dropr_core.__version__

    # ── waiting in a call ────────────────────────────────────────────────────────────────────────

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:  # noqa: ARG002 - Kombu's signature
        """Deliver one message; sleep until there is one. Raises socket.timeout, StoreError."""
        ends = None if timeout is None else time.monotonic() + timeout
        while not self._deliver_one():
            for _, source in self._readers():
                source.prepare()
            if self._deliver_one():
                return
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._sleep(left)

    def _deliver_one(self) -> bool:
        readers = self._readers()
        for step in range(len(readers)):
            channel, source = readers[(self._turn + step) % len(readers)]
            channel.qos.settle_owed()
            if not channel.qos.can_consume():
                channel.qos.starving = True
                continue
            for delivery in source.take(1):
                self._turn = (self._turn + step + 1) % len(readers)
                channel.deliver(source, delivery)
                return True
        return False

    def _sleep(self, left: float | None) -> None:
        poll = select.poll()
        patience = [LOOK_AGAIN] if left is None else [left, LOOK_AGAIN]
        for channel, source in self._readers():
            if channel.qos.can_consume():
                poll.register(source.fileno(), select.POLLIN)
                patience.append(source.patience())
        if self._wake is not None:
            poll.register(self._wake, select.POLLIN)
        poll.poll(max(0.0, min(patience)) * 1000 + 1)
        self._drain_wake()

    def _readers(self) -> list[tuple[channels.Channel, Source]]:
        return [(channel, source) for channel in list(self.channels) for source in channel.active()]

    # ── waiting in Celery's event loop ───────────────────────────────────────────────────────────

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ARG002 - Kombu's signature
        """Deliver from the loop whenever something comes."""
        self._leave_loop()
        self._loop, self._hungry = loop, True
        loop.on_tick.add(self._on_tick)
        if self._wake is not None:
            loop.add_reader(self._wake.fileno(), self._drain_wake)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ARG002 - Kombu's signature
        """Deliver nothing more."""
        self._leave_loop()

    def look_again(self) -> None:
        """There may be something to deliver now, or room for it. Safe from any thread."""
        self._hungry = True
        self._nudge()

    def _nudge(self) -> None:
        if self._wake is not None:
            self._wake.wake()

    def unwatch(self, source: Source) -> None:
        """Do not wake the loop for a source; safe for one that does not."""
        for fd in [fd for fd, one in self._watched.items() if one is source]:
            del self._watched[fd]
            self._loop.remove_reader(fd)

    def _watch(self, source: Source) -> None:
        fd = source.fileno()
        if self._watched.get(fd) is not source or fd not in self._loop.readers:
            self._watched[fd] = source
            self._loop.add_reader(fd, self._on_news)

    def _leave_loop(self) -> None:
        loop = self._loop
        if loop is None:
            return
        for source in list(self._watched.values()):
            self.unwatch(source)
        loop.on_tick.discard(self._on_tick)
        if self._wake is not None:
            loop.remove_reader(self._wake.fileno())
        self._set_alarm(None)
        self._loop = None

    def _on_news(self) -> None:
        self._hungry = True

    def _on_tick(self) -> None:
        if not self._hungry and time.monotonic() < self._look_at:
            return
        self._drain_wake()
        self._hungry = False
        patience = [LOOK_AGAIN]
        for channel, source in self._readers():
            channel.qos.settle_owed()
            patience.append(self._serve(channel, source))
        if self._hungry:  # said meanwhile, perhaps by a task that ended: the loop shall not sleep first
            self.look_again()
            return
        self._look_at = time.monotonic() + min(patience)
        self._set_alarm(min(patience))
        if min(patience) < LOOK_AGAIN:  # the loop has decided already how long it sleeps: let it go round once more
            self._nudge()

    def _serve(self, channel: channels.Channel, source: Source) -> float:
        """Deliver what one source has; seconds after which to look again."""
        left, asked = BATCH, False
        while left > 0:
            room = channel.qos.room()
            if room == 0:
                channel.qos.starving = True
                self.unwatch(source)
                return LOOK_AGAIN
            taken = source.take(left if room is None else min(room, left))
            if taken:
                left, asked = left - len(taken), False
                for delivery in taken:
                    channel.deliver(source, delivery)
            elif asked:
                self._watch(source)
                return source.patience()
            else:
                source.prepare()
                asked = True
        self._hungry = True
        return 0.0

    def _set_alarm(self, seconds: float | None) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()
        if seconds is not None:
            self._alarm = self._loop.call_later(seconds, self._on_news)

    def _drain_wake(self) -> None:
        if self._wake is not None:
            self._wake.drain()
