"""A channel of Kombu: queues, exchanges, publishing and consuming, as AMQP has them, over one node.

Owns which queue is durable (a channel of dropr) and which lives with its owner (a mailbox), and the exchanges. Must not
know how a queue is waited for (transport.py).
"""

from collections.abc import Callable, Iterable
from typing import Any

from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import ChannelError
from kombu.transport import virtual
from kombu.utils.uuid import uuid

from dropr_core.contracts.records import Selection
from dropr_core.model import topics
from dropr_core.model.message import State
from dropr_kombu import deliveries, publishing
from dropr_kombu.deliveries import Deliveries, log
from dropr_kombu.homes import HOMES
from dropr_kombu.mailboxes import Binding
from dropr_kombu.sources import Delivery, InboxSource, MailSource, Source
from dropr_kombu.wire import Raw, encode

_TRANSIENT = 1
"""AMQP's delivery mode of messages that nobody misses."""


Called = Callable[[deliveries.Message], None]


class Channel(virtual.Channel):
    """One channel of a connection. For one thread, but for acknowledgements."""

    Message = deliveries.Message
    QoS = Deliveries
    supports_fanout = True
    do_restore = False
    body_encoding = None

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self.sources: dict[str, Source] = {}
        """Queue → what is read, since it was first consumed from."""
        self._callbacks: dict[str, tuple[bool, Called]] = {}
        super().__init__(connection, **kwargs)

    # ── queues and exchanges ─────────────────────────────────────────────────────────────────────

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        **_kwargs: Any,
    ) -> Any:
        """A queue that is exclusive or deletes itself is a mailbox; any other is there as soon as it is named."""
        name = queue or f"amq.gen-{uuid()}"
        boxes = self.connection.boxes
        if not passive and (exclusive or auto_delete):
            boxes.declare(name)
        elif passive and (exclusive or auto_delete) and not boxes.has(name):
            raise ChannelError(f"NOT_FOUND - no queue {name!r}", (50, 10), "Channel.queue_declare", "404")
        elif not passive:
            self.connection.declared.add(name)
        return queue_declare_ok_t(name, self._size(name), 0)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        self.connection.boxes.bind(exchange, Binding(routing_key or "", pattern, queue))

    def get_table(self, exchange: str) -> list[tuple[str, str | None, str]]:
        """What is bound to an exchange by this connection, and the mailboxes of all processes of this machine."""
        own = self.state.exchanges.get(exchange, {}).get("table", [])
        return [*own, *(one for one in self.connection.boxes.bindings(exchange) if tuple(one) not in own)]

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Forget its bindings, and drop what waits in it."""
        super().queue_delete(queue, if_unused, if_empty, **kwargs)
        self.connection.boxes.remove(queue)

    def after_reply_message_received(self, queue: str) -> None:
        """It stays for the next reply, and goes with the connection."""

    def _size(self, queue: str) -> int:
        boxes = self.connection.boxes
        if boxes.has(queue):
            return len(boxes.of(queue))
        node, route = self.connection.node, self.connection.routes.of(queue)
        size: int = node.inbox.counts().get(route.channel, {}).get("ready", 0)
        if route.away:
            size += sum(one.depth for one in node.outbox.lanes() if one.lane.channel == route.channel)
        return size

    def _purge(self, queue: str) -> int:
        boxes = self.connection.boxes
        if boxes.has(queue):
            return len(boxes.of(queue).take(1 << 30))
        node, route = self.connection.node, self.connection.routes.of(queue)
        gone = 0
        if route.away:
            waiting = Selection(states=frozenset({State.QUEUED, State.HELD}), channel=route.channel)
            for one in list(node.outbox.all(waiting)):
                gone += node.outbox.cancel(one.id)[0]
            node.runtime.notifier.notify(topics.RECEIPTS)
        source = InboxSource(node, queue, route.channel)
        try:
            gone += source.purge()
        finally:
            source.close()
        if gone:
            log.warning("%d messages of queue %s were purged", gone, queue)
        return gone

    # ── publishing ───────────────────────────────────────────────────────────────────────────────

    def _put(self, queue: str, message: Raw, **_kwargs: Any) -> None:
        transport = self.connection
        headers, properties = message.get("headers") or {}, message.get("properties") or {}
        if transport.boxes.has(queue):
            priority = publishing.to_dropr(properties.get("priority"), zero_first=transport.zero_first)
            life = publishing.seconds_of(properties.get("expiration"))
            if not transport.boxes.put(queue, encode(message), priority, life):
                log.debug("queue %s is full or gone: a message for it was dropped", queue)
            return
        known = "task" in headers or queue in transport.declared
        if not known and properties.get("delivery_mode") == _TRANSIENT:
            log.debug("nobody reads queue %s any more: a reply for it was dropped", queue)
            return
        publishing.publish(
            transport.shared, transport.routes, queue, message,
            eta_in_queue=transport.eta_in_queue, zero_first=transport.zero_first,
        )  # fmt: skip

    def _put_fanout(self, exchange: str, message: Raw, routing_key: str, **kwargs: Any) -> None:  # noqa: ARG002
        for queue in {queue for _, _, queue in self.get_table(exchange)}:
            self._put(queue, message, **kwargs)

    # ── consuming ────────────────────────────────────────────────────────────────────────────────

    def basic_consume(self, queue: str, no_ack: bool, callback: Called, consumer_tag: str, **_kwargs: Any) -> None:
        """Call back for each message of a queue."""
        self._source(queue)
        self._callbacks[queue] = no_ack, callback
        self._tag_to_queue[consumer_tag] = queue
        self._consumers.add(consumer_tag)
        self._active_queues.append(queue)
        self.connection.look_again()

    def basic_cancel(self, consumer_tag: str) -> None:
        """No more messages; what is in hand stays so."""
        if consumer_tag not in self._consumers:
            return
        self._consumers.remove(consumer_tag)
        queue = self._tag_to_queue.pop(consumer_tag)
        self._active_queues.remove(queue)
        if queue not in self._active_queues:
            self._callbacks.pop(queue, None)
            self.connection.unwatch(self.sources[queue])

    def basic_get(self, queue: str, no_ack: bool = False, **_kwargs: Any) -> deliveries.Message | None:
        """One message, if there is one."""
        for delivery in self._source(queue).take(1):
            return self._in_hand(queue, delivery, no_ack=no_ack)
        return None

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:  # noqa: ARG002
        """How many messages may be in hand at once; 0: any number."""
        self.qos.prefetch_count = prefetch_count
        self.connection.look_again()

    def active(self) -> Iterable[Source]:
        """What is consumed from now."""
        return [self.sources[queue] for queue in dict.fromkeys(self._active_queues)]

    def deliver(self, source: Source, delivery: Delivery) -> None:
        """Hand a message to the consumer of its queue."""
        if source.queue not in self._callbacks:  # cancelled by the message before
            if delivery.received is not None:
                delivery.received.requeue()
            return
        no_ack, callback = self._callbacks[source.queue]
        callback(self._in_hand(source.queue, delivery, no_ack=no_ack))

    def close(self) -> None:
        """Give back what is in hand, and end."""
        if self.closed:
            return
        transport, sources = self.connection, list(self.sources.values())
        try:
            super().close()
        finally:
            self.sources.clear()
            for source in sources:
                if transport is not None:
                    transport.unwatch(source)
                source.close()

    def _source(self, queue: str) -> Source:
        source = self.sources.get(queue)
        if source is None:
            transport = self.connection
            if transport.boxes.has(queue):
                source = MailSource(transport.boxes, queue)
            else:
                route = transport.routes.of(queue)
                if route.away:
                    log.warning("queue %s is consumed here, but node %s sends it to %s: what is sent here goes there",
                                queue, transport.node.name, route.where)  # fmt: skip
                source = InboxSource(transport.node, queue, route.channel)
            self.sources[queue] = source
        return source

    def _in_hand(self, queue: str, delivery: Delivery, *, no_ack: bool) -> deliveries.Message:
        raw, received = delivery
        properties = raw["properties"]
        tag = properties["delivery_tag"] = uuid() if received is None else f"{received.id}.{received.attempt}"
        information = properties["delivery_info"] = dict(properties.get("delivery_info") or {})
        information.setdefault("routing_key", queue)
        if received is not None:
            information["redelivered"] = received.attempt > 1 or received.possible_duplicate
            properties["priority"] = publishing.to_celery(received.priority, zero_first=self.connection.zero_first)
        headers = raw["headers"]
        if HOMES in headers:
            self.connection.shared.remember(str(headers.get("id")), headers[HOMES])
        message = deliveries.Message(raw, self, received)
        if received is not None:
            if no_ack:
                received.ack()
            else:
                self.qos.append(message, tag)
        return message
