"""Durable subscriptions to topics: who is away misses nothing, and gets it once."""

import queue
from urllib.parse import urlsplit

import pytest
from dropr_gateway_stomp.durable import subscription_name, wanted
from dropr_gateway_stomp.frames import ProtocolError
from support import clients
from support.nodes import eventually

from dropr_core.api.subscriptions import Subscriptions
from dropr_core.contracts.storage import Selection

pytestmark = pytest.mark.e2e

ACTIVEMQ = {"activemq.subscriptionName": "audit"}
RABBITMQ = {"durable": "true", "auto-delete": "false"}


def restart(place):
    """kill -9, and up again."""
    [gateway] = place.processes
    gateway.kill()
    gateway.start()
    place.await_ready(gateway, times=2)


class Subscriber:
    """One of stomp-py, with its frames."""

    def __init__(self, place, headers):
        stomp = clients.module("stomp")
        self.frames, self.receipts = queue.Queue(), queue.Queue()
        outer = self

        class Listener(stomp.ConnectionListener):
            def on_message(self, frame):
                outer.frames.put(frame)

            def on_receipt(self, frame):
                outer.receipts.put(frame.headers["receipt-id"])

        port = urlsplit(place.doors()["stomp"][0]).port
        self.connection = stomp.Connection12([("127.0.0.1", port)])
        self.connection.set_listener("", Listener())
        self.connection.connect("", "", wait=True, headers={"client-id": "till"})
        self.connection.subscribe(
            "/topic/prices", id="s", ack="client-individual", headers={**headers, "receipt": "subscribed"}
        )
        self.await_receipt("subscribed")

    def await_receipt(self, name):
        assert self.receipts.get(timeout=60) == name

    def take(self, count):
        got = []
        for number in range(count):
            frame = self.frames.get(timeout=60)
            self.connection.ack(frame.headers["ack"], receipt=f"ack-{number}")
            self.await_receipt(f"ack-{number}")
            got.append(frame.body)
        return got

    def leave(self):
        self.connection.disconnect(receipt="bye")
        self.await_receipt("bye")


@pytest.mark.parametrize("headers", [ACTIVEMQ, RABBITMQ], ids=["activemq", "rabbitmq"])
def test_who_is_away_gets_what_was_published_meanwhile_once(build, client, headers):
    """The subscriber is away, messages are published, the gateway is killed, and the subscriber is back: all are there,
    each once; and what was published after it ended the subscription is not.
    """
    place = build()
    Subscriber(place, headers).leave()
    bodies = [str(number) for number in range(50)]
    publisher = client(place)
    for body in bodies:
        publisher.send("/topic/prices", body.encode())
    restart(place)
    back = Subscriber(place, headers)
    assert sorted(back.take(len(bodies)), key=int) == bodies
    client(place).send("/topic/prices", b"last")
    assert back.take(1) == ["last"]  # and none of the fifty again
    back.connection.unsubscribe("s", headers={**headers, "receipt": "over"})
    back.await_receipt("over")
    back.leave()
    client(place).send("/topic/prices", b"to nobody")
    with place.opened() as node:
        assert Subscriptions(node.runtime).all() == []
        assert list(node.inbox.scan(Selection(channel="prices"))) == []
    again = Subscriber(place, headers)
    client(place).send("/topic/prices", b"new")
    assert again.take(1) == ["new"]
    again.leave()


def test_all_who_subscribe_get_each_message_once(road, client):
    """Durable ones here, durable ones on another node, and those who only listen now."""
    gateway = {"gateways": {"stomp": {"listen": "tcp://127.0.0.1:0"}}}
    shop, berlin = road.build(
        "shop", "berlin", shop={**gateway, "topics": {"prices": {"join": ["berlin"]}}},
        berlin={**gateway, "channels": {"prices": {"to": "shop"}}},
    )  # fmt: skip
    for place in (shop, berlin):
        for role in ("daemon", "server", "gateway"):
            place.run(role)
    far, near, listener = client(berlin), client(shop), client(shop)
    far.subscribe("/topic/prices", durable="true")
    near.subscribe("/topic/prices", durable="true")
    listener.subscribe("/topic/prices")
    with shop.opened() as node:
        subscriptions = Subscriptions(node.runtime)
        eventually(lambda: len(subscriptions.of("prices")) == 2, what="berlin's subscription")
    client(shop).send("/topic/prices", b"one", colour="red")
    got = [one.hear() for one in (far, near, listener)]
    assert [(one.body, one.headers["colour"], one.headers["destination"]) for one in got] == [
        (b"one", "red", "/topic/prices")
    ] * 3
    client(berlin).send("/topic/prices", b"two")  # published where its channel leads
    assert [one.hear().body for one in (far, near)] == [b"two", b"two"]
    assert near.silent()
    assert listener.silent()


def test_a_selector_of_a_durable_subscription_lets_nothing_pile_up(build, client):
    """What it does not want is done with; what it wants is delivered."""
    place = build()
    one = client(place)
    one.subscribe("/topic/prices", durable="true", selector="size > 5", ack="client-individual")
    publisher = client(place)
    for size in range(10):
        publisher.send("/topic/prices", b"%d" % size, size=str(size))
    got = [one.hear() for _ in range(4)]
    assert [frame.body for frame in got] == [b"6", b"7", b"8", b"9"]
    for frame in got:
        one.ask("ACK", id=frame.headers["ack"], receipt="done")
    with place.opened() as node:
        states = ("ready", "leased", "delayed")
        eventually(lambda: not any(node.inbox.counts().get("prices/s", {}).get(one) for one in states), what="its end")


def test_what_a_transaction_publishes_is_kept_with_the_rest(build, client):
    """Nothing before COMMIT; then what is for a queue and what is for a topic."""
    one = client(build())
    one.subscribe("/topic/prices", "t", durable="true")
    one.subscribe("/queue/orders", "q")
    one.say("BEGIN", transaction="t1")
    one.say("SEND", b"order", destination="/queue/orders", transaction="t1")
    one.say("SEND", b"price", destination="/topic/prices", transaction="t1")
    assert one.silent()
    one.say("COMMIT", transaction="t1", receipt="committed")
    got = [one.hear() for _ in range(3)]
    assert sorted(frame.body for frame in got) == [b"", b"order", b"price"]


@pytest.mark.parametrize(
    ("command", "headers", "says"),
    [
        ("SUBSCRIBE", {"destination": "/topic/a b", "id": "s", "durable": "true"}, "a b"),
        ("UNSUBSCRIBE", {"id": "s", "durable": "true"}, "no subscription"),
    ],
)
def test_what_cannot_be_is_said(build, client, command, headers, says):
    """A topic of no possible name; the end of a subscription that nobody can tell."""
    answer = client(build()).ask(command, receipt="r", **headers)
    assert answer.command == "ERROR"
    assert says in answer.headers["message"]


def test_a_subscription_can_be_ended_without_reading_it(build, client):
    """As ActiveMQ's clients do it: after the end of its delivery, or on another connection, by name and destination."""
    place = build()
    one = client(place, client_id="till")
    one.subscribe("/topic/prices", **ACTIVEMQ)
    one.ask("UNSUBSCRIBE", id="s", receipt="r")
    one.send("/topic/prices", b"kept")
    with place.opened() as node:
        eventually(lambda: node.inbox.counts().get("prices/till.audit"), what="the copy")
        two = client(place, client_id="till")
        two.ask("UNSUBSCRIBE", extra=ACTIVEMQ, id="x", destination="/topic/prices", receipt="r")
        assert Subscriptions(node.runtime).all() == []
        assert not node.inbox.counts().get("prices/till.audit", {}).get("ready")


def test_names_of_subscriptions():
    """NAME, or CLIENT.NAME; what no name can be is hashed; without any it is refused."""
    assert subscription_name({"id": "1", "durable": "true"}, "") == "1"
    assert subscription_name({"id": "1", **ACTIVEMQ}, "till") == "till.audit"
    odd = subscription_name({"id": "ä b"}, "till")
    assert len(odd) == 32
    assert odd != subscription_name({"id": "ä c"}, "till")
    with pytest.raises(ProtocolError, match="needs a name"):
        subscription_name({"durable": "true"}, "till")
    assert not wanted({"id": "1", "durable": "false", "persistent": "no"})
