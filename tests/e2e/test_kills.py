"""Processes that are killed in the middle of their work, again and again: nothing lost, nothing doubled, in order."""

import signal
import subprocess
import sys
import threading

import pytest
from support.nodes import Road, eventually, numbers_by_lane, take_all

pytestmark = pytest.mark.e2e

LANES = [("a", 2), ("a", 7), ("b", 5)]


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


def load(node, stop, sent):
    """Send numbered messages into each lane until told to stop, some alone, most in batches; leave word how many."""
    while not stop.is_set():
        with node.batch() as batch:
            for _ in range(1 if sent[0] % 5 == 0 else 40):
                for channel, priority in LANES:
                    batch.send(b"%d" % sent[0], to="ware", channel=channel, priority=priority)
                sent[0] += 1
        stop.wait(0.01)


def check_whole(got, count):
    """Every number of every lane once, in the order in which it was sent."""
    for (channel, priority), numbers in numbers_by_lane(got).items():
        assert numbers == list(range(count)), f"lane {channel}:{priority}"
    assert len(numbers_by_lane(got)) == len(LANES)


@pytest.mark.parametrize("victim", ["daemon", "server"])
def test_fault_20_21_22_46_a_process_killed_in_a_loop_loses_and_doubles_nothing(road, victim):
    """The daemon (or the server) is killed under load; the peer's queue gets each message once."""
    shop, ware = road.build("shop", "ware")
    processes = {"daemon": shop.run("daemon"), "server": ware.run("server")}
    stop, sent, kills = threading.Event(), [0], 6
    with shop.opened() as here, ware.opened() as there:
        sender = threading.Thread(target=load, args=(here, stop, sent))
        sender.start()
        try:
            for _ in range(kills):
                before = arrived(there)
                eventually(lambda before=before: arrived(there) > before, what="more has arrived")
                processes[victim].kill()
                processes[victim].start()
        finally:
            stop.set()
            sender.join()
        eventually(lambda: arrived(there) >= sent[0] * len(LANES), what="everything arrives")
        check_whole(take_all(there, "a", "b"), sent[0])
        eventually(lambda: not here.outbox.lanes(), what="the sender learns of it")


def arrived(node):
    """Messages that have entered the queues of a node."""
    return sum(sum(n for state, n in states.items() if state == "ready") for states in node.inbox.counts().values())


def test_fault_59_a_killed_worker_gives_its_message_back_at_once(road):
    """The lease ends with its process, the attempt counts, another worker gets the message."""
    module = road.write_handlers(
        "import os, pathlib, time\n"
        "def work(work):\n"
        "    if work.attempt == 1:\n"
        "        pathlib.Path(os.environ['STARTED']).touch()\n"
        "        time.sleep(3600)\n"
        "    return work.attempt\n"
    )
    road.env["STARTED"] = str(road.directory / "started")
    (ware,) = road.build("ware", ware={"channels": {"jobs": {"handler": f"python:{module}:work", "retention": "1h"}}})
    first = ware.run("worker")
    with ware.opened() as node:
        job = node.put(b"work", channel="jobs")
        eventually((road.directory / "started").exists)
        ware.run("worker")
        first.kill()
        info = eventually(lambda: (found := status(node, job)) and found.state == "done" and found)
        assert info.attempts == 2


def status(node, job):
    """What a node's inbox knows of a message."""
    from dropr_core.model.names import parse_id

    return node.inbox.status(parse_id(job))


def test_fault_59_a_killed_consumer_gives_its_messages_back(road):
    """A program that dies inside of its receive loop loses nothing: who waits gets the message it had in hand. What
    it had done is done, though it was killed at once, and what it held ahead went to others long before.
    """
    (ware,) = road.build("ware")
    program = (
        "import sys, time, dropr_core\n"
        "with dropr_core.open(sys.argv[1]) as node:\n"
        "    for number, message in enumerate(node.receive('jobs')):\n"
        "        if number == 2:\n"
        "            print('got', flush=True)\n"
        "            time.sleep(3600)\n"
    )
    with ware.opened() as node:
        jobs = [node.put(b"%d" % n, channel="jobs") for n in range(5)]
        child = subprocess.Popen([sys.executable, "-c", program, str(ware.file)], stdout=subprocess.PIPE)
        try:
            assert child.stdout.readline() == b"got\n"
            assert {received.id for received in node.receive("jobs", limit=2, timeout=30)} == set(jobs[3:])
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        got = {received.id: received.attempt for received in node.receive("jobs", limit=1, timeout=30)}
        assert got == {jobs[2]: 2}
        assert list(node.receive("jobs", wait=0)) == []
        assert node.inbox.counts()["jobs"]["processed"] == 5


def test_fault_1_to_5_a_killed_sender_leaves_whole_batches_and_all_that_it_was_told(road):
    """Killed in the middle of sending: each batch is whole or absent, what was acknowledged is there."""
    shop, ware = road.build("shop", "ware")
    program = (
        "import sys, dropr_core\n"
        "with dropr_core.open(sys.argv[1]) as node:\n"
        "    number = int(sys.argv[2])\n"
        "    while True:\n"
        "        with node.batch() as batch:\n"
        "            for _ in range(7):\n"
        "                batch.send(b'%d' % number, to='ware')\n"
        "                number += 1\n"
        "        print(number, flush=True)\n"
    )
    shop.run("daemon")
    ware.run("server")
    floor, got = 0, []
    with ware.opened() as there:
        for _ in range(4):
            child = subprocess.Popen(
                [sys.executable, "-c", program, str(shop.file), str(floor)], stdout=subprocess.PIPE
            )
            for _ in range(20):
                line = child.stdout.readline()
            child.kill()
            child.wait()
            acknowledged = int((line + child.stdout.read()).split()[-1])
            child.stdout.close()
            with shop.opened() as here:
                eventually(lambda: not here.outbox.lanes())
            got += [int(received.body) for received in take_all(there, "common")]
            assert got == list(range(len(got)))
            assert len(got) >= acknowledged
            assert len(got) % 7 == 0
            floor = len(got)


def test_fault_28_a_peer_that_hangs_keeps_nobody_else_waiting(road):
    """A stopped server holds connections open: messages to the other peer flow, and its own come when it goes on."""
    shop, ware, berlin = road.build("shop", "ware", "berlin", shop={"delivery": {"idle_timeout": "1s",
        "backoff_min": "20ms", "backoff_max": "200ms"}})  # fmt: skip
    shop.run("daemon")
    stuck = ware.run("server")
    berlin.run("server")
    with shop.opened() as here, ware.opened() as there, berlin.opened() as other:
        here.send(b"first", to="ware")
        assert len(take_all(there, "common", at_least=1)) == 1
        stuck.signal(signal.SIGSTOP)
        here.send(b"waits", to="ware")
        for number in range(20):
            here.send(b"%d" % number, to="berlin")
        assert len(take_all(other, "common", at_least=20)) == 20
        assert take_all(there, "common") == []
        stuck.signal(signal.SIGCONT)
        assert [received.body for received in take_all(there, "common", at_least=1)] == [b"waits"]
