"""The same life over every storage and every transport, described by YAML alone.

Real processes: a daemon and a server each; many lanes, receipts with results, a multicast, a large body,
and kills in the middle. What is installed is what is tested.
"""

import hashlib
import os
from importlib.metadata import entry_points

import pytest
from support.nodes import Road, eventually, free_port, key_of, numbers_by_lane, take_all

KINDS = ("storage", "transport")
INSTALLED = {kind: {entry.name for entry in entry_points(group=f"dropr.{kind}")} for kind in KINDS}
STORAGES = [name for name in ("sqlite", "fs") if name in INSTALLED["storage"]]
TRANSPORTS = [name for name in ("curl", "zmq") if name in INSTALLED["transport"]]


@pytest.fixture
def road(tmp_path):
    road = Road(tmp_path)
    yield road
    road.close()


def dress(place, storage, transport):
    """Give a node its storage and its way in; returns the URL under which others reach it."""
    changes = {"storage": storage}
    if transport == "zmq":
        # Plain on loopback, said openly; CURVE has its tests in test_zmq.py.
        url = f"zmq+tcp://127.0.0.1:{free_port()}"
        changes |= {"listen": [url], "transports": {"zmq": {"curve": False}}}
    else:
        url = place.config["listen"][0]
    place.config.update(changes)
    return url


def settle(*places, urls):
    """Write the files, each node knowing the way to each other."""
    for place in places:
        for peer, entry in place.config["peers"].items():
            if "url" in entry and peer in urls:
                entry["url"] = urls[peer]
        if any(url.startswith("zmq") for url in urls.values()):
            place.config["transports"] = {"zmq": {"curve": False}}
        place.write()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_life_over(road, storage, transport):
    """Messages of many lanes, receipts and a large body arrive once, in order and whole, through kills of both."""
    shop, ware = road.build("shop", "ware")
    urls = {place.name: dress(place, storage, transport) for place in (shop, ware)}
    settle(shop, ware, urls=urls)
    daemon, server = shop.run("daemon"), ware.run("server")
    body = os.urandom(3 * 1024 * 1024)
    with shop.opened() as here, ware.opened() as there:
        for number in range(300):
            here.send(b"%d" % number, to="ware", channel=f"c{number % 3}", priority=number % 4)
            if number == 100:
                daemon.kill()
                daemon = shop.run("daemon")
            if number == 200:
                server.kill()
                server = ware.run("server")
        here.send(body, to="ware", channel="large")
        asked = here.send(b"6", to="ware", channel="sums", receipt=True)
        got = take_all(there, "c0", "c1", "c2", at_least=300)
        assert len(got) == 300
        for numbers in numbers_by_lane(got).values():
            assert numbers == sorted(set(numbers))
        (large,) = take_all(there, "large", at_least=1)
        assert hashlib.sha256(large.body).digest() == hashlib.sha256(body).digest()
        for received in there.receive("sums", limit=1, timeout=30):
            received.ack(b"7")
        assert asked.wait(30) == b"7"
        eventually(lambda: not here.outbox.lanes(), what="everything settled")


@pytest.mark.skipif(len(STORAGES) < 2 or len(TRANSPORTS) < 2, reason="needs both storages and both transports")
def test_mixed_nodes_understand_each_other(road):
    """One node on files and ZeroMQ, one on SQLite and HTTP, a third that can only fetch: post goes all ways."""
    shop, ware, laptop = road.build("shop", "ware", "laptop")
    urls = {"shop": dress(shop, "fs", "zmq"), "ware": dress(ware, "sqlite", "curl"), "laptop": ""}
    dress(laptop, "sqlite", "curl")
    settle(shop, ware, laptop, urls={name: url for name, url in urls.items() if url})
    shop.config["peers"]["laptop"] = {"mode": "pull", "key": key_of("shop", "laptop")}
    ware.config["peers"]["laptop"] = {"mode": "pull", "key": key_of("ware", "laptop")}
    del laptop.config["listen"]
    for place in (shop, ware, laptop):
        place.write()
    for place in (shop, ware):
        place.run("server")
    for place in (shop, ware, laptop):
        place.run("daemon")
    with shop.opened() as a, ware.opened() as b, laptop.opened() as c:
        nodes = {"shop": a, "ware": b, "laptop": c}
        for name, node in nodes.items():
            others = [other for other in nodes if other != name]
            for number in range(40):
                node.send(b"%d" % number, to=others, channel=f"from-{name}")
        for name, node in nodes.items():
            for other in nodes:
                if other != name:
                    got = take_all(node, f"from-{other}", at_least=40)
                    assert [int(message.body) for message in got] == list(range(40))
        asked = a.send(b"2", to=["ware", "laptop"], channel="sums", receipt=True)
        for node in (b, c):
            for received in node.receive("sums", limit=1, timeout=30):
                received.ack(received.body * 2)
        assert asked.wait(30) == {"ware": b"22", "laptop": b"22"}
