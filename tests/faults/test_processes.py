"""Faults of processes that no other test holds: real daemons, servers and workers, killed, frozen, cramped, misled."""

import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.nodes import Road, eventually, take_all

from dropr_core.model.message import State
from dropr_core.system.exit_codes import Exit

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


def handler(module, **more):
    """A node's part that gives the channel ``jobs`` to a function of a module."""
    return {"channels": {"jobs": {"handler": f"python:{module}:work", "retention": "1h", **more}}}


def test_fault_26_a_worn_worker_makes_room_between_two_messages(road):
    """At its limit the worker ends with 75 and takes no message more, and never within one: each is handled once."""
    module = road.write_handlers("seen = []\ndef work(work):\n    seen.append(work.body)\n    return len(seen)\n")
    (ware,) = road.build("ware", ware={**handler(module), "angel": {"recycle_after": 3}})
    with ware.opened() as node:
        for number in range(40):
            node.put(b"%d" % number, channel="jobs")
        worker = ware.run("worker", ready=False)
        for life in (1, 2):
            assert worker.wait() == Exit.RECYCLE
            assert worker.text.count("limit for one life is 3") == life
            assert node.inbox.counts()["jobs"]["done"] == 3 * life
            assert node.inbox.counts()["jobs"].get("leased", 0) == 0
            worker.start()

        def all_done():
            if node.inbox.counts()["jobs"]["done"] == 40:
                return True
            if not worker.alive:
                assert worker.wait() == Exit.RECYCLE
                worker.start()
            return False

        eventually(all_done)  # the last life may end with too few for its limit, and waits for more
        states = node.inbox.counts()["jobs"]
        assert states["done"] == 40
        assert states.get("buried", 0) == states.get("ready", 0) == 0


COUNT, SIZE = 20_000, 4096


def test_fault_41_a_large_backlog_neither_fills_the_memory_nor_keeps_fresh_messages_waiting(road):
    """The daemon starts over a backlog of 80 MB: what is urgent goes first, and it holds a fraction of it at a time."""
    shop, ware = road.build("shop", "ware", "idle")[:2]
    with shop.opened() as here, ware.opened() as there:
        for start in range(0, COUNT, 2000):
            with here.batch() as batch:
                for number in range(start, start + 2000):
                    batch.send((b"%d " % number).ljust(SIZE, b"x"), to="ware", channel="backlog")
        here.send(b"fresh", to="ware", channel="fresh", priority=0)
        idle = road.places["idle"].run("daemon")
        daemon = shop.run("daemon")
        ware.run("server")
        (fresh,) = there.receive("fresh", limit=1, timeout=30)
        numbers = []
        for batch in there.receive_batches("backlog", limit=COUNT, timeout=60):
            numbers += [int(message.body.split()[0]) for message in batch]
            if len(numbers) > COUNT // 2:
                assert fresh.claim.arrived < batch[-1].claim.arrived
        assert numbers == list(range(COUNT))
        eventually(lambda: not here.outbox.lanes())
        more = peak(daemon) - peak(idle)
        assert more < 64 << 20, f"{more >> 20} MiB more than an idle daemon"


def peak(process):
    """The most main memory that a process has held so far, in bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM in /proc")


def test_fault_66_killed_between_effect_and_acknowledgement_it_runs_again_with_one_effect(road):
    """Done but not acknowledged: at least once means again. Who records the id with the effect has one effect."""
    module = road.write_handlers(
        "import os, signal, sqlite3\n"
        "def work(work):\n"
        "    with sqlite3.connect(os.environ['BOOKS']) as books:\n"
        "        books.execute('INSERT INTO run VALUES(?)', (work.attempt,))\n"
        "        new = books.execute('INSERT OR IGNORE INTO seen VALUES(?)', (work.id,)).rowcount\n"
        "        books.execute('UPDATE account SET balance = balance + ?', (100 * new,))\n"
        "    books.close()\n"
        "    if work.attempt == 1:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (ware,) = road.build("ware", ware=handler(module))
    path = road.directory / "books.db"
    road.env["BOOKS"] = str(path)
    books = sqlite3.connect(path)
    books.executescript(
        "CREATE TABLE run(attempt); CREATE TABLE seen(id PRIMARY KEY); CREATE TABLE account(balance);"
        "INSERT INTO account VALUES(0);"
    )
    try:
        with ware.opened() as node:
            node.put(b"pay 100", channel="jobs")
            assert ware.run("worker", ready=False).wait() == -signal.SIGKILL
            ware.run("worker")
            eventually(lambda: node.inbox.counts()["jobs"].get("done") == 1)
        assert books.execute("SELECT attempt FROM run ORDER BY attempt").fetchall() == [(1,), (2,)]
        assert books.execute("SELECT balance FROM account").fetchone() == (100,)
    finally:
        books.close()


SLEEPER = """
import sys, dropr_core
with dropr_core.open(sys.argv[1]) as node:
    for message in node.receive("jobs", limit=1):
        print(message.id, flush=True)
        sys.stdin.readline()
        print(message.lease_holds, flush=True)
"""


def test_fault_70_a_consumer_that_sleeps_keeps_its_lease_and_settles_when_it_wakes(road):
    """The machine sleeps (the process is frozen): its lock holds, nobody gets its message, its ack stands."""
    (ware,) = road.build("ware")
    with ware.opened() as node:
        job = node.put(b"slow", channel="jobs")
        child = subprocess.Popen(
            [sys.executable, "-c", SLEEPER, str(ware.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert child.stdout.readline().strip() == job
            child.send_signal(signal.SIGSTOP)
            assert list(node.receive("jobs", wait=0)) == []
            assert node.inbox.reap({}) == ([], True)
            child.send_signal(signal.SIGCONT)
            out, _ = child.communicate("go on\n", timeout=30)
            assert out.strip() == "True"
            assert child.returncode == 0
            assert node.inbox.counts()["jobs"].get("ready", 0) == 0
            assert node.inbox.counts()["jobs"]["processed"] == 1
        finally:
            child.kill()
            child.wait()


def test_fault_77_a_peer_removed_in_the_middle_of_a_multicast_is_cancelled_by_command_only(road):
    """The others get theirs, its own is held with the reason and survives restarts, until somebody says cancel."""
    shop, _ware, other = road.build("shop", "ware", "other")
    with shop.opened() as here:
        sent = here.send(b"to all", to=["ware", "other"])
        shop.write(peers={"other": shop.config["peers"]["other"]})
        other.run("server")
        daemon = shop.run("daemon")
        with other.opened() as there:
            assert len(take_all(there, "common", at_least=1)) == 1
        states = eventually(lambda: by_peer(sent) if by_peer(sent).get("ware") is State.HELD else None)
        daemon.kill()
        daemon.start()
        shop.await_ready(daemon, times=2)
        assert by_peer(sent)["ware"] is State.HELD, states
        words = [sys.executable, "-m", "dropr_core", "cancel", sent.id, "--peer", "ware"]
        subprocess.run([*words, "-c", str(shop.file)], check=True, capture_output=True)
        assert by_peer(sent)["ware"] is State.CANCELLED


def by_peer(sent):
    """Peer → state of each delivery that is still known."""
    return {delivery.peer: delivery.state for delivery in sent.status.deliveries}


def test_fault_82_mail_for_a_transport_that_is_not_installed_is_held_and_all_other_mail_flows(road):
    """The plug-in was removed: its deliveries are held and say what is missing; with it back they go."""
    shop, ware, berlin = road.build("shop", "ware", "berlin")
    peers = {name: dict(peer) for name, peer in shop.config["peers"].items()}
    shop.write(peers={**peers, "berlin": {**peers["berlin"], "url": "pigeon://berlin:1"}})
    ware.run("server")
    berlin.run("server")
    with shop.opened() as here, ware.opened() as there, berlin.opened() as other:
        held = here.send(b"waits", to="berlin")
        daemon = shop.run("daemon")
        here.send(b"flows", to="ware")
        assert len(take_all(there, "common", at_least=1)) == 1
        eventually(lambda: held.state is State.HELD)
        assert "no installed transport serves 'pigeon://'" in here.outbox.peers()["berlin"].reason
        assert "berlin: cannot be served, its deliveries are held" in daemon.text
        shop.write(peers=peers)
        daemon.signal(signal.SIGHUP)
        assert [received.body for received in take_all(other, "common", at_least=1)] == [b"waits"]


NASTY = """
from concurrent.futures import Future
from dropr_core.contracts.transport import Connection, Transport
from dropr_core.hookspecs import hookimpl

class Nasty(Connection):
    def __init__(self, url): self.way = url.split("://")[1]
    def ask(self, request, *, idle):
        if self.way == "raises": raise ZeroDivisionError("a bug of the plug-in")
        future = Future()
        if self.way == "nonsense": future.set_result(None)
        return future
    def close(self): raise OSError("a bug in close")

class NastyTransport(Transport):
    schemes = ("nasty",)
    def check(self, url, *, listen): return None
    def connect(self, url):
        if url.endswith("connect"): raise RuntimeError("a bug in connect")
        return Nasty(url)
    def listen(self, url, answer): raise NotImplementedError
    def close(self): raise OSError("a bug in close")

@hookimpl
def dropr_transport(options, context): return NastyTransport()
"""


def test_fault_83_a_transport_that_raises_or_never_answers_harms_its_own_peer_only(road):
    """Whatever a plug-in does when it is asked: the daemon lives, says whose fault it is, and serves all others."""
    (road.directory / "nasty_transport.py").write_text(NASTY)
    info = road.directory / "nasty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nasty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dropr.transport]\nnasty = nasty_transport\n")
    shop, ware = road.build("shop", "ware")
    ways = ("raises", "nonsense", "hangs", "connect")
    bad = {way: {"url": f"nasty://{way}", "key": "0123456789abcdef0123"} for way in ways}
    shop.write(peers={**bad, **shop.config["peers"]}, transports={"nasty": {}})
    ware.run("server")
    daemon = shop.run("daemon")
    with shop.opened() as here, ware.opened() as there:
        waiting = [here.send(b"waits", to=way) for way in ways]
        for number in range(20):
            here.send(b"%d" % number, to="ware")
        assert len(take_all(there, "common", at_least=20)) == 20
        for way, says in (("raises", "ZeroDivisionError"), ("nonsense", "broke its contract"), ("connect", "connect")):
            eventually(lambda way=way, says=says: any(
                f"{way}: down" in line and says in line for line in daemon.text.splitlines()))  # fmt: skip
        here.send(b"still", to="ware")
        assert len(take_all(there, "common", at_least=1)) == 1
        assert {one.state for one in waiting} == {State.QUEUED}
    assert daemon.stop() == Exit.OK


@pytest.mark.parametrize("role", ["daemon", "server"])
def test_fault_85_a_process_that_runs_out_of_handles_lives_and_goes_on_when_it_has_some(road, role):
    """No file handle is left to daemon or server: messages wait, no process dies, and it heals by itself."""
    shop, ware = road.build("shop", "ware")
    processes = {"daemon": shop.run("daemon"), "server": ware.run("server")}
    cramped = processes[role]
    _soft, hard = resource.prlimit(cramped.pid, resource.RLIMIT_NOFILE)
    with shop.opened() as here, ware.opened() as there:
        handles = {int(path.name) for path in Path(f"/proc/{cramped.pid}/fd").iterdir()}
        resource.prlimit(cramped.pid, resource.RLIMIT_NOFILE, (max(handles) + 1, hard))
        sent = [here.send(b"%d" % number, to="ware") for number in range(5)]
        eventually(lambda: "down" in processes["daemon"].text or "Too many open files" in cramped.text)
        assert {one.state for one in sent} <= {State.QUEUED, State.ACCEPTED}
        assert cramped.alive
        resource.prlimit(cramped.pid, resource.RLIMIT_NOFILE, (hard if hard > 0 else 1024, hard))
        assert [received.body for received in take_all(there, "common", at_least=5)] == [
            b"%d" % number for number in range(5)
        ]
    assert all(process.stop() == Exit.OK for process in processes.values())
