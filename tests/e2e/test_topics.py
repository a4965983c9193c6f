"""A topic that a node joins from another machine: real processes on both sides, and the one that carries is killed."""

import pytest
from support.nodes import Road, eventually, take_all

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


def test_a_subscriber_on_another_node_gets_each_message_once_though_daemons_are_killed(road):
    """It joins by a message, gets all that is published from then on, in order and once, whoever dies in between."""
    london, berlin = road.build("london", "berlin", london={"topics": {"prices": {"join": ["berlin"]}}})
    london.run("worker")
    daemons = {place: place.run("daemon") for place in (london, berlin)}
    for place in (london, berlin):
        place.run("server")
    with london.opened() as publisher, berlin.opened() as subscriber:
        channel = subscriber.subscribe("prices", "audit", at="london")
        eventually(lambda: "berlin subscribes to prices" in london.processes[0].text, what="the subscription arrives")
        got = []
        for number in range(60):
            publisher.publish("prices", b"%d" % number)
            if number % 20 == 7:  # in the middle of a batch, with copies in its outbox
                daemons[london].kill()
            if number % 20 == 13:
                daemons[london].start()
                got += take_all(subscriber, channel, at_least=1)
        got += take_all(subscriber, channel, at_least=60 - len(got))
        assert [one.body for one in got] == [b"%d" % number for number in range(60)]
        assert {one.sender for one in got} == {"london"}
        subscriber.unsubscribe("prices", "audit", at="london")
        eventually(lambda: not _subscriptions(publisher), what="the end of the subscription arrives")
        publisher.publish("prices", b"after the end")
        publisher.put(b"a marker", channel="marker")
        assert not list(subscriber.receive(channel, wait=0))


def test_a_node_that_is_not_named_may_not_join(road):
    """Its request is refused with the reason at its sender, and nothing is copied for it."""
    london, berlin = road.build("london", "berlin", london={"topics": {"prices": {"join": ["paris"]}}})
    london.run("worker")
    berlin.run("daemon")
    london.run("daemon")
    london.run("server")
    berlin.run("server")
    with london.opened() as publisher, berlin.opened() as subscriber:
        subscriber.subscribe("prices", "audit", at="london")
        eventually(lambda: "does not name berlin" in london.processes[0].text, what="the refusal")
        assert not _subscriptions(publisher)


def _subscriptions(node):
    from dropr_core.api.subscriptions import Subscriptions

    return Subscriptions(node.runtime).all()
