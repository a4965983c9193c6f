"""Real processes in the situations that people get them into: second daemons, wrong keys, reloads, pulls, stops."""

import contextlib
import signal
import socket
from pathlib import Path

import pytest
from support.nodes import Road, eventually, key_of, take_all

from dropr_core.contracts.storage import Selection
from dropr_core.errors import DeliveryFailed
from dropr_core.model.message import State
from dropr_core.system.exit_codes import Exit

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


def test_fault_19_send_works_without_a_daemon_and_opens_no_socket(road, monkeypatch):
    """`send` ends at this machine's disk: it works while nothing runs, and it never asks for a socket."""
    shop, ware = road.build("shop", "ware")

    def refuse(*_args, **_kwargs):
        raise AssertionError("send opened a socket")

    before = sockets()
    with shop.opened() as here:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", refuse)
            patch.setattr(socket, "getaddrinfo", refuse)
            sent = [here.send(b"%d" % number, to="ware") for number in range(5)]
            assert {one.state for one in sent} == {State.QUEUED}
        assert sockets() == before  # nor did anything behind Python's back
    shop.run("daemon")
    ware.run("server")
    with ware.opened() as there:
        assert [received.body for received in take_all(there, "common", at_least=5)] == [b"0", b"1", b"2", b"3", b"4"]


def sockets():
    """The sockets that this process has open."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(fd.readlink()))
    return {link for link in found if link.startswith("socket:")}


def test_fault_23_a_second_daemon_refuses_and_names_the_first(road):
    """One daemon for each store; the second says who has it, also after a crash left its file behind."""
    shop, _ware = road.build("shop", "ware")
    first = shop.run("daemon")
    second = shop.run("daemon", ready=False)
    assert second.wait() == Exit.UNAVAILABLE
    assert f"pid {first.pid}" in second.text
    first.kill()
    third = shop.run("daemon")
    assert third.stop() == Exit.OK


def test_fault_37_with_a_wrong_key_messages_wait_and_go_when_it_is_right(road):
    """A peer that refuses the key is down with the reason; no message dies, and the right key sends them."""
    shop, ware = road.build("shop", "ware")
    good = shop.config["peers"]["ware"]["key"]
    shop.config["peers"]["ware"]["key"] = "this-is-another-key-altogether"
    shop.write()
    daemon = shop.run("daemon")
    ware.run("server")
    with shop.opened() as here, ware.opened() as there:
        sent = [here.send(b"%d" % number, to="ware") for number in range(3)]
        eventually(lambda: "down" in daemon.text)
        assert "key" in daemon.text
        assert {one.state for one in sent} == {State.QUEUED}
        shop.config["peers"]["ware"]["key"] = good
        shop.write()
        daemon.signal(signal.SIGHUP)
        assert [received.body for received in take_all(there, "common", at_least=3)] == [b"0", b"1", b"2"]
    assert daemon.stop() == Exit.OK


def test_a_key_is_rotated_without_losing_or_stopping_anything(road):
    """While both keys are valid each side changes when it likes; messages flow all the time."""
    shop, ware = road.build("shop", "ware")
    old, new = key_of("shop", "ware"), "the-new-key-of-shop-and-ware"
    daemon, server = shop.run("daemon"), ware.run("server")
    with shop.opened() as here, ware.opened() as there:
        steps = [(ware, server, [old, new]), (shop, daemon, [new, old]), (ware, server, new), (shop, daemon, new)]
        for number, (place, process, key) in enumerate(steps):
            peer = "ware" if place is shop else "shop"
            place.config["peers"][peer]["key"] = key
            place.write()
            process.signal(signal.SIGHUP)
            eventually(lambda process=process, number=number: process.text.count("reloaded") == number // 2 + 1)
            here.send(b"%d" % number, to="ware")
            assert [received.body for received in take_all(there, "common", at_least=1)] == [b"%d" % number]


def test_fault_44_a_broken_file_at_reload_leaves_the_old_configuration_active(road):
    """SIGHUP with a broken file: the mistake is said, and messages go on as before."""
    shop, ware = road.build("shop", "ware")
    daemon, server = shop.run("daemon"), ware.run("server")
    with shop.opened() as here, ware.opened() as there:
        for place, process in ((shop, daemon), (ware, server)):
            place.file.write_text("node: [broken\n")
            process.signal(signal.SIGHUP)
            eventually(lambda process=process: "old configuration stays" in process.text)
        here.send(b"still", to="ware")
        assert len(take_all(there, "common", at_least=1)) == 1
        shop.write()
        daemon.signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in daemon.text)
        here.send(b"again", to="ware")
        assert len(take_all(there, "common", at_least=1)) == 1


def test_fault_44_messages_for_a_peer_that_was_removed_are_held(road):
    """A peer taken out of the file: what waits for it is held with the reason, and goes when it is back."""
    shop, ware, _other = road.build("shop", "ware", "other")
    with shop.opened() as here:
        sent = here.send(b"waits", to="ware")
        peers = dict(shop.config["peers"])
        shop.write(peers={"other": peers["other"]})
        daemon = shop.run("daemon")
        eventually(lambda: sent.state is State.HELD)
        assert "no longer in the configuration" in here.outbox.peers()["ware"].reason
        shop.write(peers=peers)
        daemon.signal(signal.SIGHUP)
        ware.run("server")
        with ware.opened() as there:
            assert len(take_all(there, "common", at_least=1)) == 1


def test_fault_68_a_worker_that_is_told_to_stop_finishes_and_takes_nothing_new(road):
    """SIGTERM: the message at hand is finished, the others wait with their attempts uncounted."""
    module = road.write_handlers(
        "import os, pathlib, time\n"
        "def work(work):\n"
        "    pathlib.Path(os.environ['STARTED']).touch()\n"
        "    while not pathlib.Path(os.environ['GO']).exists(): time.sleep(0.01)\n"
    )
    road.env |= {"STARTED": str(road.directory / "started"), "GO": str(road.directory / "go")}
    (ware,) = road.build("ware", ware={"channels": {"jobs": {"handler": f"python:{module}:work", "retention": "1h"}}})
    worker = ware.run("worker")
    with ware.opened() as node:
        for number in range(3):
            node.put(b"%d" % number, channel="jobs")
        eventually((road.directory / "started").exists)
        worker.signal(signal.SIGTERM)
        eventually(lambda: "takes nothing more" in worker.text)
        (road.directory / "go").touch()
        assert worker.wait() == Exit.OK
        assert node.inbox.counts()["jobs"]["done"] == 1
        assert [(received.body, received.attempt) for received in take_all(node, "jobs")] == [(b"1", 1), (b"2", 1)]


def test_fault_68_a_handler_that_does_not_end_is_left_and_its_message_goes_back(road):
    """Past the drain time the worker stops all the same; the message is ready again, not counted."""
    module = road.write_handlers(
        "import os, pathlib, time\n"
        "def work(work):\n"
        "    pathlib.Path(os.environ['STARTED']).touch()\n"
        "    time.sleep(3600)\n"
    )
    road.env["STARTED"] = str(road.directory / "started")
    (ware,) = road.build(
        "ware", ware={"channels": {"jobs": {"handler": f"python:{module}:work"}}, "worker": {"drain": "100ms"}}
    )
    worker = ware.run("worker")
    with ware.opened() as node:
        node.put(b"long", channel="jobs")
        eventually((road.directory / "started").exists)
        assert worker.stop() == Exit.OK
        assert [(received.body, received.attempt) for received in take_all(node, "jobs")] == [(b"long", 1)]


@pytest.mark.parametrize("role", ["daemon", "server"])
def test_a_process_that_is_told_to_stop_ends_well_and_leaves_nothing(road, role):
    """SIGTERM with connections open and long polls waiting: exit code 0, no word left in the run directory."""
    shop, ware = road.build("shop", "ware")
    processes = {"daemon": shop.run("daemon"), "server": ware.run("server")}
    with shop.opened() as here, ware.opened() as there:
        here.send(b"waits for its receipt", to="ware", receipt=True)
        (received,) = there.receive("common", limit=1, timeout=30)
        assert received.body == b"waits for its receipt"
    assert processes[role].stop() == Exit.OK
    place = shop if role == "daemon" else ware
    assert not list((place.data / "run").glob(f"{role}*.json"))


def test_what_is_kicked_is_processed_at_its_sender_too(road):
    """Buried, failed at the sender, kicked, done: the receipt comes home by itself, with no other mail."""
    shop, ware = road.build("shop", "ware")
    ware.run("server")
    shop.run("daemon")
    with shop.opened() as here, ware.opened() as there:
        sent = here.send(b"order", to="ware", receipt=True)
        for message in there.receive("common", limit=1):
            message.bury("no price")
        with pytest.raises(DeliveryFailed, match="no price"):
            sent.wait(30)
        assert there.inbox.kick(Selection()) == 1
        for message in there.receive("common", limit=1):
            message.ack("done")
        eventually(lambda: sent.state == "processed")


def test_a_node_that_comes_back_ends_the_rest_of_who_waits_for_it(road):
    """A server that starts has its daemon talk to the peers, and what rested for ten minutes flows at once."""
    shop, ware = road.build("shop", "ware")
    slow = {"backoff_min": "10m", "backoff_max": "10m"}  # nobody here waits for the end of such a rest
    shop.config["delivery"] = slow
    shop.write()
    daemon, _server = shop.run("daemon"), shop.run("server")
    with shop.opened() as here:
        here.send(b"news", to="ware")
        eventually(lambda: "ware: down" in daemon.text)
        ware.run("daemon"), ware.run("server")
        with ware.opened() as there:
            assert [received.body for received in take_all(there, "common", at_least=1)] == [b"news"]


def test_a_node_that_cannot_be_reached_fetches_its_mail(road):
    """`mode: pull`: the laptop listens nowhere; messages, receipts and results flow all the same, both ways."""
    shop, laptop = road.build("shop", "laptop")
    shop.config["peers"]["laptop"] = {"mode": "pull", "key": key_of("shop", "laptop")}
    shop.write()
    del laptop.config["listen"]
    laptop.write()
    shop.run("server")
    shop.run("daemon")
    daemon = laptop.run("daemon")
    with shop.opened() as here, laptop.opened() as there:
        for start in (0, 50):
            for number in range(start, start + 50):
                here.send(b"%d" % number, to="laptop")
            got = take_all(there, "common", at_least=50)
            assert [int(received.body) for received in got] == list(range(start, start + 50))
            daemon.kill()
            daemon.start()
        eventually(lambda: not here.outbox.lanes(), what="fetching again tells that it has them")
        sent = here.send(b"6", to="laptop", channel="sums", receipt=True)
        for received in there.receive("sums", limit=1, timeout=30):
            received.ack(b"7")
        assert sent.wait(30) == b"7"
        there.send(b"home", to="shop")
        assert [received.body for received in take_all(here, "common", at_least=1)] == [b"home"]


def test_fault_90_another_host_name_changes_nothing(road):
    """The node is its data directory and its name; what the machine is called does not matter."""
    shop, ware = road.build("shop", "ware")
    ware.run("server")
    road.write_handlers("")
    (road.directory / "sitecustomize.py").write_text(
        "import os, socket\nsocket.gethostname = lambda: os.environ.get('FAKE_HOST', 'one')\n"
    )
    with shop.opened() as here, ware.opened() as there:
        for host in ("one", "other"):
            road.env["FAKE_HOST"] = host
            daemon = shop.run("daemon")
            here.send(host.encode(), to="ware")
            got = take_all(there, "common", at_least=1)
            assert [(received.body, received.possible_duplicate) for received in got] == [(host.encode(), False)]
            daemon.kill()
