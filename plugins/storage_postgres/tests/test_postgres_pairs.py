"""Whole nodes over stores in PostgreSQL: servers that fail under them, and servers that went back in time."""

import signal
import threading

import pytest

pytest.importorskip("psycopg")
pytest.importorskip("dropr_transport_curl")
from support.nodes import Road, eventually, numbers_by_lane, take_all

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


def postgres(server):
    """The part of a node's file about its store."""
    return {"storage": {"use": "postgres", "url": server.url(), "wait": "60s"}}


def load(node, stop, sent):
    """Send numbered messages until told to stop, some alone, most in batches; leave word how many."""
    while not stop.is_set():
        with node.batch() as batch:
            for _ in range(1 if sent[0] % 5 == 0 else 20):
                batch.send(b"%d" % sent[0], to="ware", channel="a")
                sent[0] += 1
        stop.wait(0.01)


def arrived(node):
    """Messages that have entered the queues of a node."""
    return sum(states.get("ready", 0) for states in node.inbox.counts().values())


HURTS = {
    "sessions are cut": lambda server: server.cut_all("postgres"),
    "restart": lambda server: server.restart(),
    "kill -9": lambda server: (server.kill9(), server.start()),
    "crash": lambda server: (server.stop(signal.SIGQUIT), server.start()),
}


def test_a_failing_server_loses_and_doubles_nothing(road, own_postgres):
    """The database of both nodes is cut off, restarted, killed and crashed under load: each message arrives once, in
    order, and every process goes on by itself.
    """
    shop, ware = road.build("shop", "ware", shop=postgres(own_postgres), ware=postgres(own_postgres))
    processes = [shop.run("daemon"), ware.run("server")]
    stop, sent = threading.Event(), [0]
    with shop.opened() as here, ware.opened() as there:
        sender = threading.Thread(target=load, args=(here, stop, sent))
        sender.start()
        try:
            for hurt in HURTS.values():
                before = arrived(there)
                eventually(lambda before=before: arrived(there) > before, what="more has arrived")
                hurt(own_postgres)
        finally:
            stop.set()
            sender.join()
        eventually(lambda: arrived(there) >= sent[0], what="everything arrives")
        assert numbers_by_lane(take_all(there, "a")) == {("a", 5): list(range(sent[0]))}
        eventually(lambda: not here.outbox.lanes(), what="the sender learns of it")
    assert all(one.alive for one in processes)
    assert not any("Traceback" in one.text for one in processes)


def send(node, numbers):
    """Send these numbers, and ask for receipts, so that each is kept until the other side is done with it."""
    with node.batch() as batch:
        for number in numbers:
            batch.send(b"%d" % number, to="ware", channel="a", receipt=True)


def bodies(received):
    """number → whether it came as a possible duplicate; a list, as it came."""
    return [(int(message.body), message.possible_duplicate) for message in received]


def test_a_receiver_that_went_back_gets_again_what_it_lost(road, own_postgres, tmp_path):
    """An older backup is restored under a running receiver: what it had not handled comes again, what it had
    handled since comes flagged, and nothing new is taken for a duplicate.
    """
    shop, ware = road.build("shop", "ware", ware=postgres(own_postgres))
    daemon, server = shop.run("daemon"), ware.run("server")
    with shop.opened() as here, ware.opened() as there:
        send(here, range(10))
        assert bodies(take_all(there, "a", at_least=10)) == [(number, False) for number in range(10)]
        own_postgres.copy(tmp_path / "backup")
        send(here, range(10, 20))
        first = bodies(take_all(there, "a", at_least=5))
        eventually(lambda: arrived(there) + len(first) >= 10, what="all of the second ten arrived")
        own_postgres.restore(tmp_path / "backup")
        send(here, range(20, 30))
        seen: list[tuple[int, bool]] = []

        def all_there():
            seen.extend(bodies(take_all(there, "a")))
            return {number for number, _ in seen + first} == set(range(10, 30))

        eventually(all_there, what="everything that was sent since the backup")
        again = [number for number, flagged in seen if number in {one for one, _ in first}]
        assert all(flagged for number, flagged in seen if number in again)
        assert sorted({number for number, _ in seen}) == [number for number, _ in seen], "in order, each once"
        assert [flagged for number, flagged in seen if number >= 20] == [False] * 10
        eventually(lambda: not here.outbox.lanes(), what="the sender learns of it")
    assert daemon.alive
    assert server.alive


def test_a_sender_that_went_back_is_told_and_loses_nothing_new(road, own_postgres, tmp_path):
    """An older backup is restored under a running sender: its new messages get numbers that the receiver has seen with
    others, so it takes a new identity, and all of them arrive; what is sent a second time is flagged.
    """
    shop, ware = road.build("shop", "ware", shop=postgres(own_postgres))
    daemon, server = shop.run("daemon"), ware.run("server")
    with shop.opened() as here, ware.opened() as there:
        identity = here.outbox.store_id
        send(here, range(10))
        assert len(take_all(there, "a", at_least=10)) == 10
        own_postgres.copy(tmp_path / "backup")
        send(here, range(10, 20))
        assert bodies(take_all(there, "a", at_least=10)) == [(number, False) for number in range(10, 20)]
        eventually(lambda: not here.outbox.lanes(), what="the sender learns of it")
        own_postgres.restore(tmp_path / "backup")
        send(here, range(20, 30))
        seen: list[tuple[int, bool]] = []

        def all_there():
            seen.extend(bodies(take_all(there, "a")))
            return {number for number, _ in seen} >= set(range(20, 30))

        eventually(all_there, what="everything that was sent since the roll-back")
        assert sorted({number for number, _ in seen}) == [number for number, _ in seen], "in order, each once"
        assert here.outbox.store_id != identity
        eventually(lambda: not here.outbox.lanes(), what="the sender learns of it")
    assert daemon.alive
    assert server.alive
