"""The real thing: real processes, real sockets, real disks, and signals that kill."""

import pytest
from support.nodes import Road, eventually

from dropr_core.errors import DeliveryFailed, WaitTimeout
from dropr_core.model.message import State

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


def collect(node, channel, count, timeout=60):
    """``count`` messages of a channel, acknowledged, and whatever else is there then."""
    got = []
    for batch in node.receive_batches(channel, limit=count, timeout=timeout):
        got.extend(batch)
    for batch in node.receive_batches(channel, wait=0.2):
        got.extend(batch)
    return got


def numbers(received):
    """The numbers that the bodies say."""
    return [int(message.body) for message in received]


def test_a_message_goes_from_one_machine_to_the_other(road):
    """What is sent here is received there, in order, byte for byte, also when it is empty."""
    shop, ware = road.build("shop", "ware")
    shop.run("daemon")
    ware.run("server")
    bodies = [b"", b"0", b"\x00\xff" * 100, b"x" * 60_000, *(b"%d" % n for n in range(500))]
    with shop.opened() as here, ware.opened() as there:
        for body in bodies[:10]:
            here.send(body, to="ware", headers={"who": "me"})
        with here.batch() as batch:
            for body in bodies[10:]:
                batch.send(body, to="ware")
        got = collect(there, "common", len(bodies))
        assert [message.body for message in got] == bodies
        assert got[0].sender == "shop" and got[0].headers["who"] == "me" and not got[0].possible_duplicate


def test_a_receipt_brings_the_result_home(road):
    """`wait` sleeps until the worker there is done, and returns what its handler returned."""
    module = road.write_handlers(
        "from dropr_core import Reject\n"
        "def double(work):\n"
        "    if work.value < 0: raise Reject('below zero')\n"
        "    return work.value * 2\n"
    )
    channel = {"serializer": "json", "receipt": True}
    shop, ware = road.build(
        "shop", "ware",
        shop={"channels": {"sums": {**channel, "to": "ware"}}},
        ware={"channels": {"sums": {"handler": f"python:{module}:double"}}},
    )  # fmt: skip
    shop.run("daemon")
    ware.run("server")
    ware.run("worker")
    with shop.opened() as here:
        good, bad = here.send(21, channel="sums"), here.send(-1, channel="sums")
        assert good.wait(30) == 42
        assert good.state is State.PROCESSED
        with pytest.raises(DeliveryFailed, match="below zero"):
            bad.wait(30)


def test_fault_76_one_dead_peer_of_three_leaves_a_multicast_partial(road):
    """Two peers process, the third is not there: the state is partial and says which."""
    shop, one, two, _dead = road.build("shop", "one", "two", "dead")
    shop.run("daemon")
    one.run("server")
    two.run("server")
    with shop.opened() as here, one.opened() as first, two.opened() as second:
        sent = here.send(b"news", to=["one", "two", "dead"], receipt=True)
        for node in (first, second):
            for message in node.receive("common", limit=1, timeout=30):
                message.ack()
        wanted = {"one": State.PROCESSED, "two": State.PROCESSED, "dead": State.QUEUED}
        eventually(lambda: {delivery.peer: delivery.state for delivery in sent.deliveries} == wanted)
        assert sent.state is State.PARTIAL
        with pytest.raises(WaitTimeout):
            sent.wait(0.01)
