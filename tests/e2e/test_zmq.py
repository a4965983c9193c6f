"""Whole nodes over ZeroMQ: real processes, CURVE keys from `dropr keygen`, kills under load."""

import os
import signal
import tempfile
import threading

import pytest
from click.testing import CliRunner
from support.nodes import Road, eventually, free_port, numbers_by_lane, take_all

from dropr_core.angel.status_file import read_state
from dropr_core.cli.app import application
from dropr_core.demo.road import Road as CutRoad

pytestmark = pytest.mark.e2e

LANES = [("a", 2), ("a", 7), ("b", 5)]


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


def over_zmq(road, *places, mutual=False):
    """Give each node its CURVE key and the others its url; with ``mutual``, let in only those who are known."""
    public, port = {}, {place.name: free_port() for place in places}
    for place in places:
        made = CliRunner().invoke(application(), ["keygen", "zmq", "--file", str(place.directory / "node.curve")])
        assert made.exit_code == 0, made.output
        public[place.name] = made.stdout.strip()
    for place in places:
        options = {"key": "${file:node.curve}"}
        if mutual:
            options["clients"] = [key for name, key in public.items() if name != place.name]
        for name, peer in place.config["peers"].items():
            peer["url"] = f"zmq+tcp://127.0.0.1:{port[name]}?curve={public[name]}"
        place.write(listen=[f"zmq+tcp://127.0.0.1:{port[place.name]}"], transports={"zmq": options})


def load(node, stop, sent):
    """Send numbered messages into each lane until told to stop; leave word how many."""
    while not stop.is_set():
        with node.batch() as batch:
            for _ in range(40):
                for channel, priority in LANES:
                    batch.send(b"%d" % sent[0], to="ware", channel=channel, priority=priority)
                sent[0] += 1
        stop.wait(0.01)


def arrived(node):
    """Messages that have entered the queues of a node."""
    return sum(sum(n for state, n in states.items() if state == "ready") for states in node.inbox.counts().values())


@pytest.mark.parametrize("victim", ["daemon", "server"])
def test_fault_20_21_22_46_killed_under_load_over_zmq(road, victim):
    """The daemon (or the server) is killed under load; lost 0, doubled 0, and in order."""
    shop, ware = road.build("shop", "ware")
    over_zmq(road, shop, ware, mutual=True)
    processes = {"daemon": shop.run("daemon"), "server": ware.run("server")}
    stop, sent = threading.Event(), [0]
    with shop.opened() as here, ware.opened() as there:
        sender = threading.Thread(target=load, args=(here, stop, sent))
        sender.start()
        try:
            for _ in range(5):
                before = arrived(there)
                eventually(lambda before=before: arrived(there) > before, what="more has arrived")
                processes[victim].kill()
                processes[victim].start()
        finally:
            stop.set()
            sender.join()
        eventually(lambda: arrived(there) >= sent[0] * len(LANES), what="everything arrives")
        lanes = numbers_by_lane(take_all(there, "a", "b"))
        assert len(lanes) == len(LANES)
        for numbers in lanes.values():
            assert numbers == list(range(sent[0]))
        eventually(lambda: not here.outbox.lanes(), what="the sender learns of it")


def test_fault_42_a_road_that_is_cut_again_and_again(road):
    """Connections are reset in the middle of the traffic, many times; lost 0, doubled 0, and in order."""
    shop, ware = road.build("shop", "ware")
    over_zmq(road, shop, ware)
    url = shop.config["peers"]["ware"]["url"]
    port = int(url.partition("?")[0].rpartition(":")[2])
    way = CutRoad(port)
    try:
        shop.config["peers"]["ware"]["url"] = url.replace(str(port), str(way.start()))
        shop.write()
        ware.run("server")
        shop.run("daemon")
        stop, sent = threading.Event(), [0]
        with shop.opened() as here, ware.opened() as there:
            sender = threading.Thread(target=load, args=(here, stop, sent))
            sender.start()
            try:
                for _ in range(15):
                    before = arrived(there)
                    eventually(lambda before=before: arrived(there) > before, what="more has arrived")
                    way.shut()
                    way.reopen()
            finally:
                stop.set()
                sender.join()
            eventually(lambda: arrived(there) >= sent[0] * len(LANES), what="everything arrives")
            for numbers in numbers_by_lane(take_all(there, "a", "b")).values():
                assert numbers == list(range(sent[0]))
    finally:
        way.close()


def test_both_ways_with_receipts_over_zmq(road):
    """Messages, receipts and results travel both ways between two nodes; long polls carry the receipts."""
    module = road.write_handlers("def work(work):\n    return work.body.decode().upper()\n")
    channels = {"jobs": {"handler": f"python:{module}:work"}}
    shop, ware = road.build("shop", "ware", ware={"channels": channels})
    over_zmq(road, shop, ware)
    for place, roles in ((shop, ("daemon", "server")), (ware, ("daemon", "server", "worker"))):
        for role in roles:
            place.run(role)
    with shop.opened() as here, ware.opened() as there:
        sent = here.send(b"word", to="ware", channel="jobs", receipt=True)
        assert sent.wait(30) == "WORD"
        there.send(b"back", to="shop", channel="news")
        assert [bytes(message.body) for message in here.receive("news", limit=1, timeout=30)] == [b"back"]


def test_between_processes_of_one_machine(road):
    """Over a socket file no CURVE key is needed, and with `insecure: true` no pair's key either."""
    shop, ware = road.build("shop", "ware")
    with tempfile.TemporaryDirectory() as short:  # a socket's path has at most 100 bytes
        for place in (shop, ware):
            for name, peer in place.config["peers"].items():
                peer["url"] = f"zmq+ipc://{short}/{name}"
                del peer["key"]
            place.write(listen=[f"zmq+ipc://{short}/{place.name}"], insecure=True)
        ware.run("server")
        shop.run("daemon")
        with shop.opened() as here, ware.opened() as there:
            here.send(b"near", to="ware", channel="a")
            assert [bytes(message.body) for message in take_all(there, "a", at_least=1)] == [b"near"]
        road.close()


def test_a_peer_that_fetches_over_zmq(road):
    """A node that cannot be reached fetches its mail over ZeroMQ."""
    shop, ware = road.build("shop", "ware")
    over_zmq(road, shop, ware)
    shop.config["peers"]["ware"] = {"mode": "pull", "key": shop.config["peers"]["ware"]["key"]}
    shop.write()
    ware.config["peers"]["shop"]["fetch"] = True
    ware.write(listen=[])
    shop.run("server")
    ware.run("daemon")
    with shop.opened() as here, ware.opened() as there:
        for number in range(100):
            here.send(b"%d" % number, to="ware", channel="a")
        assert [int(message.body) for message in take_all(there, "a", at_least=100)] == list(range(100))


def test_fault_37_a_wrong_key_costs_no_message(road):
    """With another server's key in the url nothing arrives and nothing is lost; repaired, everything flows."""
    shop, ware = road.build("shop", "ware")
    over_zmq(road, shop, ware)
    right = shop.config["peers"]["ware"]["url"]
    other = shop.config["peers"]["ware"]["url"].partition("=")[0] + "=" + "A" * 43
    shop.config["peers"]["ware"]["url"] = other
    shop.write()
    ware.run("server")
    daemon = shop.run("daemon")
    with shop.opened() as here, ware.opened() as there:
        here.send(b"patient", to="ware", channel="a")
        eventually(lambda: "?curve=" in daemon.text, what="the daemon says what is wrong")
        assert here.outbox.lanes()
        daemon.stop()
        shop.config["peers"]["ware"]["url"] = right
        shop.write()
        shop.run("daemon")
        assert [bytes(message.body) for message in take_all(there, "a", at_least=1)] == [b"patient"]


def test_a_process_whose_library_aborts_is_back_and_says_where_it_was(road):
    """SIGABRT for daemon and server: the angel starts both again, mail goes on, and the log has the stack."""
    shop, ware = road.build("shop", "ware")
    over_zmq(road, shop, ware)
    angels = [place.run("up", ready=False) for place in (shop, ware)]
    with shop.opened() as here, ware.opened() as there:

        def children(place):
            state = read_state(place.data / "run" / "angel.json")
            assert state is not None
            return {child.name: child.pid for child in state.children if child.state == "running"}

        for place, role in ((ware, "server"), (shop, "daemon")):
            before = eventually(lambda p=place, r=role: children(p).get(r), what=f"{role} of {place.name} runs")
            os.kill(before, signal.SIGABRT)
            eventually(lambda p=place, r=role, b=before: children(p).get(r, b) != b, what=f"{role} runs again")
            message = here.send(b"%s" % role.encode(), to="ware", channel="a", receipt=True)
            [got] = list(there.receive("a", limit=1, timeout=30))
            assert got.body == role.encode()
            assert message.id == got.id
    for angel in angels:
        assert "Fatal Python error: Aborted" in angel.text
        assert "killed by SIGABRT, a library or the interpreter gave up" in angel.text
