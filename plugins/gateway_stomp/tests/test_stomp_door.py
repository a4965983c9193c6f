"""The gateway at its desk: what a STOMP client sees of a real node, and what is on the disk when it sees it."""

import socket
import ssl
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest
from support.nodes import eventually

from dropr_core.contracts.storage import Selection
from dropr_core.model.message import State

pytestmark = pytest.mark.e2e


def rest(place, verb, channel):
    command = [sys.executable, "-m", "dropr_core", verb, channel, "-c", str(place.file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def refuses(url):
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), 30).close()
    except ConnectionRefusedError:
        return True
    return False


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


def test_a_selector_takes_what_it_wants_and_leaves_the_rest_alone(place, client, q):
    """Others get what it does not want, in order and with no attempt counted; it gets what is put later, too."""
    one, two, three = client(), client(), client()
    for number in range(250):
        one.say("SEND", b"%d" % number, {"color": "red" if number % 50 == 0 else "blue"}, destination=f"/queue/{q}")
    one.send(f"/queue/{q}", b"last", color="blue")
    two.subscribe(f"/queue/{q}", ack="client", selector="color = 'red'")
    red = [two.hear() for _ in range(5)]
    assert [frame.body for frame in red] == [b"0", b"50", b"100", b"150", b"200"]
    assert two.silent()
    three.subscribe(f"/queue/{q}", prefetch_count=10)
    blue = [three.hear() for _ in range(246)]
    assert [frame.body for frame in blue] == [*(b"%d" % n for n in range(250) if n % 50), b"last"]
    assert {frame.headers["JMSXDeliveryCount"] for frame in blue} == {"1"}
    three.say("UNSUBSCRIBE", id="s")
    three.send(f"/queue/{q}", b"new", color="red")
    assert two.hear().body == b"new"
    two.ask("ACK", id=red[1].headers["ack"], receipt="a")
    two.say("NACK", id=red[2].headers["ack"])
    assert (again := two.hear()).body == b"100"
    assert again.headers["redelivered"] == "true"


def test_a_paused_channel_rests_for_selectors_too(place, client, q):
    """Nothing is delivered while it rests, and what came meanwhile afterwards, at once."""
    one = client()
    one.subscribe(f"/queue/{q}", selector="a = 1")
    rest(place, "pause", q)
    one.send(f"/queue/{q}", b"later", a=1)
    assert one.silent()
    rest(place, "unpause", q)
    assert one.hear().body == b"later"


def test_two_who_select_share_and_lose_nothing(client, q):
    """What one has in its hands and gives back is found again by the other."""
    sender, one, two = client(), client(), client()
    for each in (one, two):
        each.subscribe(f"/queue/{q}", ack="client", selector="n BETWEEN 1 AND 9", prefetch_count=3)
    for number in range(6):
        sender.send(f"/queue/{q}", b"%d" % number, n=str(number + 1))
    held = [each.hear().body for each in (one, two) for _ in range(3)]
    assert sorted(held) == [b"%d" % number for number in range(6)]
    one.close()
    third = client()
    third.subscribe(f"/queue/{q}", ack="client", selector="n > 0")
    assert sorted(third.hear().body for _ in range(3)) == sorted(held[:3])


def test_a_topic_goes_to_all_who_listen(client, q):
    """Each subscriber gets each message from then on, selectors choose, nobody else and no queue has it."""
    sender, one, two = client(), client(), client()
    sender.send(f"/topic/{q}", b"early")
    one.subscribe(f"/topic/{q}")
    two.subscribe(f"/topic/{q}", ack="client", selector="size > 5")
    sender.send(f"/topic/{q}", b"small", size="3")
    sender.send(f"/topic/{q}", b"large", size="7")
    assert [one.hear().body, one.hear().body] == [b"small", b"large"]
    got = two.hear()
    assert got.body == b"large"
    assert two.ask("ACK", id=got.headers["ack"], receipt="a").command == "RECEIPT"
    one.ask("UNSUBSCRIBE", id="s", receipt="u")
    sender.send(f"/topic/{q}", b"late")
    assert one.silent()


def test_a_slow_subscriber_of_a_topic_delays_nobody_and_is_told(build, client):
    """It is ended with the reason as soon as more waits for it than it may keep; the publisher never waits."""
    place = build(max_behind="64KiB")
    sender, slow = client(place), client(place)
    slow.subscribe("/topic/prices", ack="client", prefetch_count=1)
    for _ in range(100):
        sender.send("/topic/prices", b"x" * 1000)
    assert slow.hear().command == "MESSAGE"
    assert "fell behind" in slow.hear().headers["message"]
    assert slow.hear() is None


def test_request_and_reply_over_a_temporary_queue(place, client):
    """The answer comes back to the connection that asked; the queue goes with it, and nobody else reads it."""
    asks, answers = client(), client()
    answers.subscribe("/queue/work")
    asks.subscribe("/temp-queue/replies", "t")
    asks.send("/queue/work", b"2+2", **{"reply-to": "/temp-queue/replies", "correlation-id": "7"})
    job = answers.hear()
    answers.send(job.headers["reply-to"], b"4", **{"correlation-id": job.headers["correlation-id"]})
    got = asks.hear()
    assert (got.body, got.headers["subscription"], got.headers["correlation-id"]) == (b"4", "t", "7")
    answers.send(job.headers["reply-to"], b"more")
    refused = client().ask("SUBSCRIBE", destination=job.headers["reply-to"], id="x")
    assert "by the connection that made it" in refused.headers["message"]
    asks.close()
    with place.opened() as node:
        name = job.headers["reply-to"].removeprefix("/queue/")
        eventually(lambda: not node.inbox.counts().get(name, {}).get("ready"), what="the temporary queue is gone")


def test_a_reply_comes_home_from_another_node(road, client):
    """The temporary queue's name says where it is; without a peer of that name nothing is stored."""
    door = {"stomp": {"listen": "tcp://127.0.0.1:0"}}
    home, far = road.build(
        "home", "far", home={"gateways": door, "channels": {"work": {"to": "far"}}}, far={"gateways": door}
    )
    for place in (home, far):
        place.run("daemon"), place.run("server"), place.run("gateway")
    asks, answers = client(home), client(far)
    answers.subscribe("/queue/work")
    asks.subscribe("/temp-queue/replies", "t")
    asks.send("/queue/work", b"2+2", **{"reply-to": "/temp-queue/replies", "correlation-id": "7"})
    job = answers.hear()
    answers.send(job.headers["reply-to"], b"4", **{"correlation-id": job.headers["correlation-id"]})
    got = asks.hear()
    assert (got.body, got.headers["subscription"], got.headers["correlation-id"]) == (b"4", "t", "7")
    refused = answers.ask("SEND", b"x", destination="/queue/stomp.temp/nowhere/1/replies", receipt="r")
    assert (refused.command, "nowhere" in refused.headers["message"]) == ("ERROR", True)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_every_version(client, version, q):
    """Send, receive and acknowledge as each version does."""
    one = client(version=version)
    assert one.connected.headers["version"] == version
    one.send(f"/queue/{q}", b"x\0y", a="b")
    one.subscribe(f"/queue/{q}", ack="client")
    got = one.hear()
    assert (got.body, got.headers["a"]) == (b"x\0y", "b")
    assert ("ack" in got.headers) is (version == "1.2")
    name = {"id": got.headers["ack"]} if version == "1.2" else {"message-id": got.headers["message-id"]}
    if version == "1.1":
        name["subscription"] = "s"
    assert one.ask("ACK", b"", name, receipt="a").command == "RECEIPT"
    assert one.ask("DISCONNECT", receipt="bye").headers["receipt-id"] == "bye"
    assert one.hear() is None


def test_only_users_with_their_passcode_are_let_in(build, client):
    """The answer does not say which of the two was wrong, and the log does not show the passcode."""
    place = build(users={"app": "s3cret-word"})
    client(place, login="app", passcode="s3cret-word").send("/queue/q")
    for login, passcode in (("app", "wrong-word"), ("nobody", "s3cret-word"), ("app", "")):
        one = client(place, connect=False)
        answer = one.ask("CONNECT", accept_version="1.2", login=login, passcode=passcode)
        assert (answer.command, answer.headers["message"]) == ("ERROR", "login or passcode is wrong")
        assert one.hear() is None
    [gateway] = place.processes
    assert "wrong-word" not in gateway.text
    assert "s3cret-word" not in gateway.text


def test_heart_beats_are_sent_and_missed(client):
    """The gateway beats as it was asked to; a client that promised beats and is silent is sent away."""
    one = client(heart_beat="1000,1000")
    assert one.connected.headers["heart-beat"] == "1000,1000"
    answer = one.hear()  # beats are skipped; what comes after our silence is the end
    assert "heart-beats" in answer.headers["message"]
    assert one.hear() is None


def test_garbage_is_answered_and_harms_nobody(client, q):
    """What is no STOMP gets an ERROR frame; others do not notice."""
    good = client()
    for data in (b"\x16\x03\x01\x02\x00\x01\0\n\n\0", b"POST / HTTP/1.1\r\n\r\n\0", b"x" * 20_000):
        one = client(connect=False)
        one.socket.sendall(data)
        answer = one.hear()
        assert answer is None or answer.command == "ERROR"
    good.send(f"/queue/{q}")


def test_many_sends_in_one_write_keep_their_order(client, q):
    """Pipelined frames are put together, and their receipts come in order."""
    one = client()
    for number in range(300):
        one.say("SEND", b"%d" % number, destination=f"/queue/{q}", receipt=str(number))
    assert [one.hear().headers["receipt-id"] for _ in range(300)] == [str(number) for number in range(300)]
    one.subscribe(f"/queue/{q}")
    assert [one.hear().body for _ in range(300)] == [b"%d" % number for number in range(300)]


def test_a_gateway_that_stops_says_so_and_takes_its_last_acknowledgements(build, client):
    """Nothing new is delivered, what is acknowledged counts, then the client is sent away to come again."""
    place = build()
    one, url = client(place), place.doors()["stomp"][0]
    one.send("/queue/q", b"1")
    one.subscribe("/queue/q", ack="client", prefetch_count=1)
    got = one.hear()
    one.send("/queue/q", b"2")
    [gateway] = place.processes
    gateway.signal(15)
    eventually(lambda: refuses(url), what="the gateway listens no more")
    assert one.ask("ACK", id=got.headers["ack"], receipt="a").headers["receipt-id"] == "a"
    assert "being stopped" in one.hear().headers["message"]
    assert gateway.wait() == 0
    with place.opened() as node:
        assert [one.body for one in node.receive("q", wait=0)] == [b"2"]


def test_tls(build, client, tmp_path):
    """The same over TLS."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-days", "1", "-subj", "/CN=localhost"], cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    place = build(listen=f"tls://127.0.0.1:0?cert={tmp_path}/cert.pem&key={tmp_path}/key.pem")
    parts = urlsplit(place.doors()["stomp"][0])
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    plain = socket.create_connection((parts.hostname, parts.port), 30)
    with context.wrap_socket(plain, server_hostname="localhost") as secure:
        secure.sendall(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0")
        assert secure.recv(4096).startswith(b"CONNECTED\n")
