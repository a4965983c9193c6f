"""Exchanges and the short-lived queues of a node's connections: broadcasts, replies, events."""

import os
import socket
import time

import pytest
from dropr_kombu import mailboxes
from kombu import Consumer, Exchange, Producer, Queue
from kombu_rig import send, take
from support.nodes import eventually

from dropr_core.contracts.storage import Selection


def reader(connection, exchange, name, routing_key=""):
    """A queue that lives with its connection, as pidbox and events use it; what it has got so far."""
    queue = Queue(name, exchange, routing_key=routing_key, durable=False, auto_delete=True)
    found = []
    consumer = Consumer(
        connection.default_channel, [queue], callbacks=[lambda body, _: found.append(body)], no_ack=True
    )
    consumer.consume()
    return found


def test_a_broadcast_reaches_every_connection_of_the_node(connect, node_file):
    """Other connections of this machine's node hear it, and the durable store has nothing of it."""
    path = node_file()
    one, two, sender = connect(path), connect(path), connect(path)
    exchange = Exchange("news", "fanout", durable=False)
    heard = [reader(one, exchange, "one"), reader(two, exchange, "two")]
    Producer(sender.default_channel).publish("hello", exchange=exchange, declare=[exchange])
    one.drain_events(timeout=30)
    two.drain_events(timeout=30)
    assert heard == [["hello"], ["hello"]]
    assert list(one.connection.node.inbox.all(Selection())) == []


def test_topics_have_wild_cards(connect, node_file):
    """As Celery's events use them."""
    path = node_file()
    one, sender = connect(path), connect(path)
    exchange = Exchange("events", "topic", durable=False)
    heard = reader(one, exchange, "mine", "task.#")
    producer = Producer(sender.default_channel)
    for key in ("worker.online", "task.sent", "task.done.well"):
        producer.publish(key, exchange=exchange, routing_key=key, declare=[exchange])
    for _ in range(2):
        one.drain_events(timeout=30)
    with pytest.raises(socket.timeout):
        one.drain_events(timeout=0.01)
    assert heard == ["task.sent", "task.done.well"]


def test_a_mailbox_dies_with_its_process(connect, node_file):
    """A killed `celery events` leaves nothing that a worker goes on to write to."""
    path = node_file()
    sender = connect(path)
    sender.connect()
    exchange = Exchange("news", "fanout", durable=False)
    child = os.fork()
    if child == 0:
        try:
            reader(sender, exchange, "mine")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    boxes = sender.connection.boxes
    assert boxes.bindings("news") == []
    boxes.declare("another")
    assert [path.name for path in boxes.of("x").path.parent.iterdir()] == [boxes.of("another").path.name]


def test_a_reply_that_nobody_waits_for_is_dropped(connect, node_file):
    """It does not stay in the store for ever."""
    connection = connect(node_file())
    Producer(connection.default_channel).publish("late", routing_key="gone.reply", delivery_mode=1)
    assert list(connection.connection.node.inbox.all(Selection())) == []


def test_a_mailbox_keeps_priorities_and_expirations(connect, node_file):
    """As a durable queue does."""
    connection = connect(node_file())
    mine = Queue("mine", Exchange("mine"), routing_key="mine", durable=False, auto_delete=True)
    send(connection, "old", mine, expiration=0.001)
    ends = time.time() + 0.002
    eventually(lambda: time.time() > ends)  # the clock of the machine, by which it expires
    send(connection, "last", mine, priority=1)
    send(connection, "first", mine, priority=9)
    ends = time.time() + 0.002
    eventually(lambda: time.time() > ends)  # the clock of the machine, by which it expires
    assert [take(connection, mine, timeout=30).payload for _ in range(2)] == ["first", "last"]
    assert take(connection, mine) is None


def test_a_mailbox_is_bounded(connect, node_file, monkeypatch):
    """Who does not read does not fill the disk."""
    connection = connect(node_file())
    boxes = connection.default_channel.connection.boxes
    boxes.declare("mine")
    monkeypatch.setattr(mailboxes, "MOST", 5)
    assert [boxes.put("mine", b"x") for _ in range(7)] == [True] * 5 + [False] * 2
    assert connection.default_channel.queue_purge("mine") == 5
