"""Two servers of one node behind one address that answer in turn: nobody needs to come back to the same one."""

import hashlib
import os

import pytest
from e2e.test_zmq import over_zmq
from support.nodes import Road, eventually, take_all
from support.servers_in_turn import Servers

pytestmark = pytest.mark.e2e

CHANNELS = ("a", "b", "c")


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


@pytest.mark.parametrize("mode", ["push", "fetch"])
@pytest.mark.parametrize("way", ["curl", "zmq"])
def test_servers_that_answer_in_turn_are_one_node(road, way, mode):
    """Messages of several lanes, long polls, receipts with results and a large body pass, once and in order, and the
    peer greets no more often than it would greet one server.
    """
    shop, ware = road.build("shop", "ware")
    if way == "zmq":
        over_zmq(road, shop, ware)
    serving, calling = (ware, shop) if mode == "push" else (shop, ware)
    if mode == "fetch":
        ware.config["peers"]["shop"]["fetch"] = True
        ware.write()
        shop.config["peers"]["ware"] = {"key": shop.config["peers"]["ware"]["key"], "mode": "pull"}
        shop.write()
    data = os.urandom(3_000_000)
    servers = Servers(serving, serving)
    try:
        with shop.opened() as here, ware.opened() as there:
            calling.run("daemon")
            sent = [
                here.send(b"%d" % number, to="ware", channel=channel, receipt=True)
                for number in range(40)
                for channel in CHANNELS
            ]
            large = here.send(data, to="ware", channel="large", receipt=True)
            for channel in CHANNELS:
                bodies = [bytes(one.body) for one in take_all(there, channel, at_least=40)]
                assert bodies == [b"%d" % number for number in range(40)]
            for message in there.receive("large", limit=1, timeout=60):
                with message.open() as file:
                    assert hashlib.sha256(file.read()).digest() == hashlib.sha256(data).digest()
            for one in [*sent, large]:
                one.wait(timeout=60)
            eventually(lambda: not any(state.waiting for state in here.outbox.peers().values()), what="all is settled")
            assert not list(there.receive(*CHANNELS, "large", wait=0))
        assert servers.asked[0] > 0
        assert servers.asked[1] > 0
        most = 2 if mode == "push" else 1
        assert servers.asked["hello"] <= most, servers.asked
    finally:
        servers.close()
