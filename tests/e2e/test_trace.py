"""`dropr trace` over two real nodes: the story of a message, wherever it is, and whoever is away."""

import json
import socket
import subprocess
import sys

import pytest
from support.nodes import Road, eventually

pytestmark = pytest.mark.e2e

HANDLERS = """
def work(message):
    if message.value == "bad":
        raise ValueError("cannot be done")
    return {"done": message.value}
"""


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    made = Road(tmp_path)
    yield made
    made.close()


def trace(place, identity, *words, code=0):
    """The document of `dropr trace`."""
    command = [sys.executable, "-m", "dropr_core", "trace", identity, "--json", "-c", str(place.file), *words]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def pair(road):
    """A shop that sends to a warehouse whose worker cannot do everything; both can be asked."""
    module = road.write_handlers(HANDLERS)
    jobs = {"serializer": "json", "handler": f"python:{module}:work", "attempts": 2, "retry_backoff_min": "10ms",
            "retention": "1h"}  # fmt: skip
    channels = {"jobs": {"to": "ware", "serializer": "json", "receipt": True}}
    shop, ware = road.build("shop", "ware", shop={"channels": channels}, ware={"channels": {"jobs": jobs}})
    return shop, ware


def test_the_story_is_told_from_both_ends(pair):
    """What was done and what failed at each attempt, seen from the sender and from the receiver."""
    shop, ware = pair
    for place in pair:
        place.run("server")
    shop.run("daemon")
    ware.run("worker")
    with shop.opened() as node:
        good, bad = node.send("good", channel="jobs"), node.send("bad", channel="jobs")
        assert good.wait(timeout=60) == {"done": "good"}
        eventually(lambda: bad.status.state == "failed", what="the receipt that it failed")

    told = trace(shop, str(good.id))
    assert told["known"]
    (sent,) = told["deliveries"]
    assert (sent["state"], sent["peer"]) == ("processed", "ware")
    (peer,) = told["peers"]
    assert peer["problem"] == ""
    assert [(one["state"], one["attempts"]) for one in peer["inbox"]] == [("done", 1)]
    assert told["now"] == []
    assert {event["node"] for event in told["events"]} == {"shop", "ware"}

    told = trace(shop, str(bad.id))
    (job,) = told["peers"][0]["inbox"]
    assert (job["state"], job["attempts"], len(job["errors"])) == ("buried", 2, 2)
    assert "cannot be done" in job["errors"][0]
    assert "it is buried at ware" in told["now"][0]
    assert "dropr kick" in told["now"][0]

    told = trace(ware, str(bad.id))
    assert [one["state"] for one in told["inbox"]] == ["buried"]
    assert [(one["peer"], one["deliveries"][0]["state"]) for one in told["peers"]] == [("shop", "failed")]
    assert "it is buried here" in told["now"][0]


def test_a_peer_that_is_away_is_said_beside_the_local_story(pair):
    """Nobody listens at the peer: the story of this node comes with what is wrong, and so it does with a peer that
    takes connections and never answers.
    """
    shop, _ = pair
    with shop.opened() as node:
        sent = node.send("good", channel="jobs")
    told = trace(shop, str(sent.id))
    (peer,) = told["peers"]
    assert "nobody listens there" in peer["problem"]
    assert [one["state"] for one in told["deliveries"]] == ["queued"]
    assert "it waits here for ware" in told["now"][0]

    host, port = shop.road.urls["ware"].removeprefix("http://").split(":")
    with socket.create_server((host, int(port))):
        told = trace(shop, str(sent.id), "--patience", "0.5s")
    assert told["peers"][0]["problem"]
    assert [one["state"] for one in told["deliveries"]] == ["queued"]
    assert trace(shop, str(sent.id), "--local")["peers"] == []


def test_a_message_that_nobody_knows_ends_with_66(pair):
    """All peers are asked about it, and the verb says that nobody knows it."""
    shop, ware = pair
    ware.run("server")
    with shop.opened() as node:
        node.send("good", channel="jobs")
    told = trace(shop, "01a21a93-0aba-7863-926a-17e421f59400", code=66)
    assert not told["known"]
    assert [(one["peer"], one["problem"]) for one in told["peers"]] == [("ware", "")]
