"""Who gets what at the gateway: selectors, topics, and replies over temporary queues."""

import subprocess
import sys

import pytest
from support.nodes import eventually

pytestmark = pytest.mark.e2e


def rest(place, verb, channel):
    command = [sys.executable, "-m", "dropr_core", verb, channel, "-c", str(place.file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


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
