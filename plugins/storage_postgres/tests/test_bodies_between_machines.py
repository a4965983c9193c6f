"""Large bodies of nodes that run on several machines, which share a database and nothing else.

A machine is a data directory here; each has processes of its own.
"""

import hashlib
import os

import pytest

pytest.importorskip("psycopg")
from support.nodes import Place, Road, eventually
from support.servers_in_turn import Servers

MIB = 1024 * 1024


@pytest.fixture
def road(tmp_path):
    road = Road(tmp_path)
    yield road
    road.close()


@pytest.fixture
def stores(postgres_server):
    """Makes a node's store one of PostgreSQL; its database goes with the test."""
    made = []

    def use(*places):
        database = postgres_server.database()
        made.append(database)
        for place in places:
            place.write(storage={"use": "postgres", "url": postgres_server.url(database)})
        return database

    yield use
    for database in made:
        postgres_server.drop(database)


def machine(place, name):
    """One more machine of a node: another directory, the same store."""
    place.road.places[name] = made = Place(place.road, name, dict(place.config))
    return made


def noise(size):
    """Bytes that do not compress, and their digest."""
    data = os.urandom(size)
    return data, hashlib.sha256(data).hexdigest()


def receive_digest(node):
    """Receive one message and hash its body piece by piece."""
    found = []
    for message in node.receive("common", limit=1, timeout=60):
        digest = hashlib.sha256()
        with message.open() as file:
            while piece := file.read(MIB):
                digest.update(piece)
        found.append((digest.hexdigest(), message.possible_duplicate))
    assert found, "nothing came"
    return found[0]


def bodies(node):
    """How many bodies there are, and how many bytes of them are here."""
    ((number, have),) = node.runtime.bodies.sessions.query("SELECT count(*), coalesce(sum(have), 0)::bigint FROM body")
    return number, have


def test_a_body_goes_from_one_machine_over_others_to_another(road, stores):
    """Sent on one, shipped by a second, taken in by a third, consumed on a fourth; and no body is left."""
    shop, ware = road.build("shop", "ware")
    stores(shop)
    stores(ware)
    carrier, consumer = machine(shop, "shop-2"), machine(ware, "ware-2")
    movie, digest = noise(18 * MIB)
    with shop.opened() as here, consumer.opened() as there:
        here.send(movie, to="ware")
        here.send(movie[: 3 * MIB], to="ware")
        assert bodies(here)[0] == 2
        ware.run("server")
        carrier.run("daemon")
        eventually(lambda: bodies(there) == (2, 21 * MIB), 60, "both bodies")
        eventually(there.inbox.counts, 60, "their messages")
        found = {receive_digest(there) for _ in range(2)}
        assert found == {(digest, False), (hashlib.sha256(movie[: 3 * MIB]).hexdigest(), False)}
        assert bodies(there)[0] == 0
        eventually(lambda: bodies(here)[0] == 0, 60, "the sender's bodies to go")
        assert not (shop.data / "bodies").exists()
        assert not (ware.data / "bodies").exists()


def test_pieces_that_come_to_two_machines_in_turn_make_one_body(road, stores):
    """A balancer gives each request to the other machine: bodies arrive once and whole, urgent messages meanwhile."""
    shop, ware = road.build("shop", "ware")
    stores(shop)
    stores(ware)
    movie, digest = noise(18 * MIB)
    servers = Servers(ware, machine(ware, "ware-2"))
    try:
        with shop.opened() as here, ware.opened() as there:
            here.send(movie, to="ware")
            here.send(b"urgent", to="ware", channel="urgent", priority=0)
            shop.run("daemon")
            assert [message.body for message in there.receive("urgent", limit=1, timeout=60)] == [b"urgent"]
            assert receive_digest(there) == (digest, False)
            assert bodies(there)[0] == 0
        assert servers.asked["chunk"] >= 4
        assert min(servers.asked[0], servers.asked[1]) >= 2
    finally:
        servers.close()


@pytest.mark.parametrize("victim", ["daemon", "server", "backend", "lines"])
def test_a_body_is_resumed_after_kills(road, stores, postgres_server, victim):
    """Daemon, server, a backend of the database or all lines to it die in the middle: it arrives once and whole."""
    shop, ware = road.build("shop", "ware")
    stores(shop)
    database = stores(ware)
    body, digest = noise(28 * MIB)
    daemon, server = shop.run("daemon"), ware.run("server")
    with shop.opened() as here, ware.opened() as there:
        here.send(body, to="ware")
        for part in (4, 12):
            eventually(lambda part=part: bodies(there)[1] >= part * MIB, 60, "some of the body")
            if victim == "daemon":
                daemon.kill()
                daemon = shop.run("daemon")
            elif victim == "server":
                server.kill()
                server = ware.run("server")
            elif victim == "backend":
                pids = postgres_server.backends(database, like="%bodies")
                assert pids
                postgres_server.kill(pids[0])
            else:
                postgres_server.cut_all(database)
        assert receive_digest(there) == (digest, False)
        assert list(there.receive("common", wait=0)) == []
