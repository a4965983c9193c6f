"""The gateway at its desk: queues as a STOMP client sees them, and what is on the disk when it sees it."""

import time

import pytest
from support.nodes import eventually

from dropr_core.contracts.storage import Selection
from dropr_core.model.message import State

pytestmark = pytest.mark.e2e


def test_a_message_is_durable_before_its_receipt_and_keeps_its_bytes_and_headers(build, client):
    """After the receipt a kill of the gateway loses nothing; body and headers come out as they went in."""
    body, place = bytes(range(256)) * 40, build()
    client(place).send(
        "/queue/orders", body, **{"content-type": "image/png", "correlation-id": "c:1\n", "x": "ä", "type": "t"}
    )
    [gateway] = place.processes
    gateway.kill()
    gateway.start()
    place.await_ready(gateway, times=2)
    other = client(place)
    other.subscribe("/queue/orders", ack="client-individual")
    got = other.hear()
    assert got.body == body
    wanted = {"destination": "/queue/orders", "content-type": "image/png", "correlation-id": "c:1\n", "x": "ä",
              "type": "t", "subscription": "s", "priority": "4", "JMSXDeliveryCount": "1"}  # fmt: skip
    assert wanted.items() <= got.headers.items()
    assert "redelivered" not in got.headers
    other.ask("ACK", id=got.headers["ack"], receipt="done")
    with place.opened() as node:
        assert list(node.receive("orders", wait=0)) == []


def test_a_channel_with_a_route_leaves_for_the_peer(road, client):
    """A queue is a channel: where the topology says so its messages go to another machine."""
    shop, warehouse = road.build(
        "shop", "warehouse",
        shop={"channels": {"orders": {"to": "warehouse"}}, "gateways": {"stomp": {"listen": "tcp://127.0.0.1:0"}}},
        warehouse={"gateways": {"stomp": {"listen": "tcp://127.0.0.1:0"}}},
    )  # fmt: skip
    for one, roles in ((warehouse, ("server", "gateway")), (shop, ("daemon", "gateway"))):
        for role in roles:
            one.run(role)
    there = client(warehouse)
    there.subscribe("/queue/orders")
    client(shop).send("/queue/orders", b"one", color="red")
    got = there.hear()
    assert (got.body, got.headers["color"]) == (b"one", "red")


def test_what_is_not_acknowledged_comes_back_marked(client, q):
    """A client that dies gives back what it had, the one it was at work on marked as delivered before."""
    one, two = client(), client()
    for number in range(3):
        one.send(f"/queue/{q}", b"%d" % number)
    one.subscribe(f"/queue/{q}", ack="client", prefetch_count=2)
    assert [one.hear().body for _ in range(2)] == [b"0", b"1"]
    one.close()
    two.subscribe(f"/queue/{q}", ack="client")
    got = sorted((two.hear() for _ in range(3)), key=lambda frame: frame.body)
    assert [frame.body for frame in got] == [b"0", b"1", b"2"]
    assert [frame.headers.get("redelivered") for frame in got] == ["true", None, None]
    assert [frame.headers["JMSXDeliveryCount"] for frame in got] == ["2", "1", "1"]


def test_acknowledging_is_cumulative_with_ack_client(place, client, q):
    """ACK of the second settles the first too, and credit comes back for both."""
    one = client()
    for number in range(4):
        one.send(f"/queue/{q}", b"%d" % number)
    one.subscribe(f"/queue/{q}", ack="client", prefetch_count=2)
    got = [one.hear(), one.hear()]
    assert one.silent()
    one.say("ACK", id=got[1].headers["ack"])
    assert [one.hear().body, one.hear().body] == [b"2", b"3"]
    one.close()
    with place.opened() as node:
        left = eventually(lambda: sorted(one.body for one in node.receive(q, wait=0)), what="what was not settled")
    assert left == [b"2", b"3"]


def test_nack_brings_it_back_and_says_why_in_the_end(build, client):
    """Each NACK counts as an attempt; after the channel's last one it is a dead letter with the client's reason."""
    place = build(node={"channels": {"q": {"attempts": 2, "retry_backoff_min": "10ms"}}})
    one = client(place)
    one.send("/queue/q", b"bad")
    one.subscribe("/queue/q", ack="client-individual")
    for count in ("1", "2"):
        got = one.hear()
        assert got.headers["JMSXDeliveryCount"] == count
        one.ask("NACK", id=got.headers["ack"], message="no such customer", receipt="n")
    with place.opened() as node:
        [dead] = node.inbox.scan(Selection(states=frozenset({State.BURIED}), channel="q"))
    assert dead.reason.count("no such customer") == 2


def test_nack_without_requeue_buries_at_once(place, client, q):
    """RabbitMQ's header `requeue:false`."""
    one = client()
    one.send(f"/queue/{q}", b"bad")
    one.subscribe(f"/queue/{q}", ack="client-individual")
    assert one.ask("NACK", id=one.hear().headers["ack"], requeue="false", receipt="n").command == "RECEIPT"
    assert one.silent()
    with place.opened() as node:
        assert node.inbox.counts()[q]["buried"] == 1


def test_a_transaction_is_all_or_nothing(place, client, q):
    """What is sent and acknowledged in it happens with COMMIT; after ABORT, or without an end, nothing did."""
    one, two = client(), client()
    two.subscribe(f"/queue/{q}-out")
    one.send(f"/queue/{q}", b"job")
    one.subscribe(f"/queue/{q}", ack="client-individual")
    job = one.hear().headers["ack"]
    for end, body in (("ABORT", b"never"), ("COMMIT", b"done")):
        one.say("BEGIN", transaction="t")
        one.say("SEND", body, destination=f"/queue/{q}-out", transaction="t")
        one.say("SEND", body + b"2", destination=f"/queue/{q}-out", transaction="t")
        one.say("ACK", id=job, transaction="t")
        assert two.silent()
        assert one.ask(end, transaction="t", receipt=end).headers["receipt-id"] == end
    assert [two.hear().body, two.hear().body] == [b"done", b"done2"]
    one.say("BEGIN", transaction="u")
    one.ask("SEND", b"lost", destination=f"/queue/{q}-out", transaction="u", receipt="r")
    one.close()
    assert two.silent()
    with place.opened() as node:
        assert list(node.receive(q, wait=0)) == []


def test_priority_nine_comes_first(client, q):
    """JMS counts the other way round than dropr; the header comes out as it was said."""
    one = client()
    for priority in ("0", "4", "9", "7", "5"):
        one.send(f"/queue/{q}", priority=priority)
    one.subscribe(f"/queue/{q}", ack="client", prefetch_count=1)
    got = []
    for _ in range(5):
        frame = one.hear()
        got.append(frame.headers["priority"])
        one.say("ACK", id=frame.headers["ack"])
    assert got == ["9", "7", "5", "4", "0"]


def test_delayed_and_expired_messages(place, client, q):
    """AMQ_SCHEDULED_DELAY is waited for; what has expired is not delivered, and is listed as expired."""
    one = client()
    one.send(f"/queue/{q}", b"later", AMQ_SCHEDULED_DELAY="700")
    sent = time.monotonic()
    one.send(f"/queue/{q}", b"over", expires=str(int(time.time() * 1000) - 5000))
    one.send(f"/queue/{q}", b"lasts", expires=str(int(time.time() * 1000) + 600_000))
    time.sleep(0.01)
    one.subscribe(f"/queue/{q}")
    assert [one.hear().body, one.hear().body] == [b"lasts", b"later"]
    assert time.monotonic() - sent > 0.6


@pytest.mark.parametrize(
    ("destination", "headers", "says"),
    [
        ("/queue/a b", {}, "channel"),
        ("/exchange/a", {}, "none of this gateway"),
        ("queue", {}, "none of this gateway"),
        ("/queue/Q", {"expires": "soon"}, "whole number"),
        ("/queue/Q", {"priority": "high"}, "whole number"),
        ("/queue/Q", {"AMQ_SCHEDULED_CRON": "0 * * * *"}, "not supported"),
        ("/queue/Q", {"AMQ_SCHEDULED_DELAY": "99999", "expires": "1"}, "expires before"),
    ],
)
def test_what_cannot_be_kept_is_refused(place, client, destination, headers, says, q):
    """An ERROR frame that says what is wrong, for which receipt, and the end; nothing was stored."""
    one = client()
    answer = one.ask("SEND", b"x", headers, destination=destination.replace("Q", q), receipt="r1")
    assert answer.command == "ERROR"
    assert says in answer.headers["message"]
    assert answer.headers["receipt-id"] == "r1"
    assert one.hear() is None
    with place.opened() as node:
        assert not node.inbox.counts().get(q, {}).get("ready")
