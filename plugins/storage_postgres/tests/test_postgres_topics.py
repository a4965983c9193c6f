"""What is published at a node of several machines is copied once for each subscription."""

import itertools
import logging

import pytest

pytest.importorskip("psycopg")
from support.copiers import PEER, Copier, Published
from support.nodes import eventually

import dropr_core as dropr
from dropr_core.api.consumer import Consumer
from dropr_core.api.subscriptions import REQUESTS
from dropr_core.config.node import from_mapping
from dropr_core.delivery.fan_out import FanOut
from dropr_core.processes.topic_thread import TopicThread

LOG = logging.getLogger("test.topics")


class Dies(Exception):
    """The process dies here."""


@pytest.fixture
def machines(tmp_path, postgres_schema):
    """Two machines of one node that has a topic."""
    url, schema = postgres_schema
    storage = {"use": "postgres", "url": url, "schema": schema}
    made = []
    for name in ("one", "two"):
        peers = {PEER: {"url": "http://127.0.0.1:9", "key": "k" * 40}}
        mapping = {
            "node": "ware", "data": str(tmp_path / name), "storage": storage, "topics": {"prices": {}}, "peers": peers,
        }  # fmt: skip
        made.append(dropr.Node.open(from_mapping({**mapping, "limits": {"min_free": 0}}, tmp_path)))
    yield made
    for node in made:
        node.close()


def turn(node):
    """One turn of a process that copies."""
    fan_out = FanOut(node.runtime, LOG)
    consumer = Consumer(node.runtime, [*fan_out.subscriptions.topics(), REQUESTS])
    try:
        return fan_out.turn(consumer)
    finally:
        consumer.close()


def bodies(node, channel):
    return [received.body for received in node.receive(channel, wait=0)]


def test_a_machine_goes_on_where_another_died(machines, monkeypatch):
    """One dies between its copies and their acknowledgement; the other knows that they were made."""
    one, two = machines
    channel = one.subscribe("prices", "lamp")
    for number in range(3):
        one.publish("prices", b"%d" % number)

    def die(*_):
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(Consumer, "acknowledge", die)
        with pytest.raises(Dies):
            turn(one)
    two.publish("prices", b"3")
    while turn(two):
        pass
    assert bodies(two, channel) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("lost", [True, False], ids=["taken for dead", "slow"])
def test_a_machine_that_stood_still_doubles_and_loses_nothing(machines, lost):
    """At whatever step: the other one was elected and copies; then it goes on, and what it does late is refused."""
    one, two = map(Copier, machines)
    for at in itertools.count():
        topic = Published(one.node, f"t{at}")
        topic.publish(5, 3)

        def others(topic=topic):
            if lost:
                one.lose_leases()
            for priority in (7, 5):
                topic.publish(priority)
                two.turn(topic.topic)
            topic.receive()

        with one.stopped(at, others) as step:
            one.work(topic.topic)
        topic.publish(3)
        two.work(topic.topic)
        assert not topic.wrong(), step
        topic.end()
        if not step:
            assert at > 20
            return


def test_one_machine_copies_at_a_time(machines):
    """Both have the thread that copies; when the one that does it stops the other goes on."""
    one, two = machines
    channel = one.subscribe("prices", "lamp")
    threads = [TopicThread(node.runtime, LOG) for node in machines]
    try:
        threads[0].start()
        one.publish("prices", b"first")
        assert [received.body for received in two.receive(channel, limit=1, timeout=60)] == [b"first"]
        assert two.runtime.storage.shared.elect("topics") is None
        threads[1].start()
        threads[0].stop()
        two.publish("prices", b"second")
        assert [received.body for received in one.receive(channel, limit=1, timeout=60)] == [b"second"]
        eventually(lambda: one.runtime.storage.shared.elect("topics") is None, what="the other one holds it")
    finally:
        for thread in threads:
            thread.stop()
