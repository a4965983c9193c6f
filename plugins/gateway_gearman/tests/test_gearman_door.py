"""The door itself: nothing is lost with a process, results come home, and programs of other kinds take part."""

import signal
import threading

import pytest
from dropr_gateway_gearman.packets import REQUEST, Kind, encode
from gearman_nodes import build, start
from gearman_peer import Peer
from support.nodes import eventually

pytestmark = pytest.mark.e2e


def drain(port, function, expected):
    """Do jobs of a function until so many are done; their data in order."""
    done = []
    with Peer(port) as worker:
        worker.send(Kind.CAN_DO, function)
        while len(done) < expected:
            kind, *rest = worker.ask(Kind.GRAB_JOB)
            if kind is Kind.NO_JOB:
                assert worker.ask(Kind.PRE_SLEEP) == (Kind.NOOP,)
                continue
            done.append(rest[2])
            worker.send(Kind.WORK_COMPLETE, rest[0], b"")
        assert worker.ask(Kind.GRAB_JOB) == (Kind.NO_JOB,)
    return done


def test_background_jobs_survive_a_kill(shop):
    """What was answered with JOB_CREATED is there after a SIGKILL of the gateway in the middle: lost 0, doubled 0."""
    created, stop = [], threading.Event()

    def submit():
        with Peer(shop.port) as client:
            while not stop.is_set():
                data = b"%d" % len(created)
                try:
                    answer = client.ask(Kind.SUBMIT_JOB_BG, b"load", b"", data)
                except OSError:
                    return
                assert answer[0] is Kind.JOB_CREATED
                created.append(data)

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        eventually(lambda: len(created) > 50)
        shop.processes[0].kill()
    finally:
        stop.set()
        thread.join()
    start(shop)
    done = []
    with Peer(shop.port) as worker:
        worker.send(Kind.CAN_DO, b"load")
        while (got := worker.ask(Kind.GRAB_JOB))[0] is not Kind.NO_JOB:
            done.append(got[3])
            worker.send(Kind.WORK_COMPLETE, got[1], b"")
    assert set(created) <= set(done)
    assert len(done) == len(set(done))
    assert len(done) - len(created) <= 1  # the one whose answer the kill cut off


def test_jobs_that_are_done_stay_done(shop):
    """A kill of the gateway between WORK_COMPLETE and the next job brings nothing back that is done."""
    with Peer(shop.port) as client, Peer(shop.port) as worker:
        for number in range(20):
            client.ask(Kind.SUBMIT_JOB_BG, b"once", b"", b"%d" % number)
        worker.send(Kind.CAN_DO, b"once")
        for _ in range(10):
            got = worker.ask(Kind.GRAB_JOB)
            worker.send(Kind.WORK_COMPLETE, got[1], b"")
            state = eventually(lambda got=got: client.ask(Kind.GET_STATUS, got[1])[2] == b"0")
            assert state
        shop.processes[0].kill()
    start(shop)
    assert drain(shop.port, b"once", 10) == [b"%d" % number for number in range(10, 20)]


def test_a_unique_joins_over_a_restart(shop):
    """The unique of a job that waits is known to the gateway's next life; its handle is the same."""
    with Peer(shop.port) as client:
        first = client.ask(Kind.SUBMIT_JOB_BG, b"f", b"only", b"1")
    shop.processes[0].kill()
    start(shop)
    with Peer(shop.port) as client:
        assert client.ask(Kind.SUBMIT_JOB_BG, b"f", b"only", b"2") == first
        assert client.ask(Kind.GET_STATUS, first[1])[2:4] == (b"1", b"0")
        assert client.ask(Kind.GET_STATUS_UNIQUE, b"only")[2] == b"1"
    assert drain(shop.port, b"f", 1) == [b"1"]


def test_a_job_that_failed_does_not_hold_its_unique(shop):
    """A buried job is kept, and a new one of its unique runs all the same."""
    with Peer(shop.port) as client, Peer(shop.port) as worker:
        worker.send(Kind.CAN_DO, b"f")
        for data in (b"1", b"2", b"3"):
            client.ask(Kind.SUBMIT_JOB, b"f", b"u", data)
            got = worker.ask(Kind.GRAB_JOB)
            assert got[3] == data
            worker.send(Kind.WORK_FAIL, got[1])
            assert client.get() == (Kind.WORK_FAIL, got[1])
    with shop.opened() as node:
        assert node.counts()["f"]["buried"] == 3 if hasattr(node, "counts") else True


def test_the_time_of_a_job_ends(shop):
    """CAN_DO_TIMEOUT: after its time a job goes to another worker, and the first one's word on it counts no more."""
    with Peer(shop.port) as client, Peer(shop.port) as slow, Peer(shop.port) as other:
        client.ask(Kind.SUBMIT_JOB, b"f", b"", b"data")
        slow.send(Kind.CAN_DO_TIMEOUT, b"f", b"1")
        handle = slow.ask(Kind.GRAB_JOB)[1]
        other.send(Kind.CAN_DO, b"f")
        assert other.ask(Kind.PRE_SLEEP) == (Kind.NOOP,)
        assert other.ask(Kind.GRAB_JOB)[1] == handle
        assert slow.ask(Kind.WORK_COMPLETE, handle, b"late")[:2] == (Kind.ERROR, b"JOB_NOT_FOUND")
        other.send(Kind.WORK_COMPLETE, handle, b"in time")
        assert client.get() == (Kind.WORK_COMPLETE, handle, b"in time")


def test_a_worker_that_was_woken_and_does_not_come_loses_its_job(shop):
    """A job is kept for a sleeping worker for a moment only; then another one that asks gets it."""
    with Peer(shop.port) as client, Peer(shop.port) as lazy, Peer(shop.port) as other:
        lazy.send(Kind.CAN_DO, b"f").send(Kind.PRE_SLEEP)
        assert lazy.idle()
        client.ask(Kind.SUBMIT_JOB_BG, b"f", b"", b"1")
        assert lazy.get() == (Kind.NOOP,)
        other.send(Kind.CAN_DO, b"f")
        if other.ask(Kind.PRE_SLEEP) == (Kind.NOOP,):
            assert other.ask(Kind.GRAB_JOB)[3] == b"1"


def test_a_job_over_the_limit_ends_the_connection(shop):
    """A packet that says more than `max_job` is refused by its header, and the next connection works."""
    with Peer(shop.port) as client:
        client.socket.sendall(encode(Kind.SUBMIT_JOB_BG, b"", magic=REQUEST)[:8] + (1 << 31).to_bytes(4, "big"))
        assert client.get()[:2] == (Kind.ERROR, b"INVALID_PACKET")
        with pytest.raises(ConnectionError):
            client.get()
    with Peer(shop.port) as client:
        assert client.idle()


def test_a_function_that_no_channel_can_be_named_for_works(shop):
    """Blanks, colons and umlauts in a function's name are kept."""
    name = "build:größe und/ ".encode()
    with Peer(shop.port) as client, Peer(shop.port) as worker:
        client.ask(Kind.SUBMIT_JOB_BG, name, b"", b"1")
        worker.send(Kind.CAN_DO, name)
        assert worker.ask(Kind.GRAB_JOB)[2:] == (name, b"1")
        assert client.ask(Kind.SUBMIT_JOB_BG, b"", b"", b"1")[0] is Kind.ERROR


def test_a_python_program_does_the_job_of_a_gearman_client(shop):
    """A foreground job that a handler outside of the gateway takes: its result comes back as WORK_COMPLETE."""
    with shop.opened() as node, Peer(shop.port) as client:
        handle = client.ask(Kind.SUBMIT_JOB, b"f", b"", b"abc")[1]
        for message in node.receive("f", timeout=30, limit=1):
            assert message.body == b"abc"
            message.ack(b"cba")
        assert client.get() == (Kind.WORK_COMPLETE, handle, b"cba")
        handle = client.ask(Kind.SUBMIT_JOB, b"f", b"", b"abc")[1]
        for message in node.receive("f", timeout=30, limit=1):
            message.bury("it is broken")
        assert client.get() == (Kind.WORK_FAIL, handle)


def test_results_come_home_from_another_node(road):
    """A function whose channel has a route: the job is done by a worker of another node's gateway, and its result, its
    WORK_DATA before it, a failure and an exception reach the client here.
    """
    home, far = build(road, "home", "far", home={"channels": {"f": {"to": "far"}}})
    start(home), start(far)
    home.run("daemon"), far.run("server")
    with Peer(home.port) as client, Peer(far.port) as worker:
        assert client.ask(Kind.OPTION_REQ, b"exceptions")[0] is Kind.OPTION_RES
        worker.send(Kind.CAN_DO, b"f")

        def job(data):
            handle = client.ask(Kind.SUBMIT_JOB, b"f", b"", data)[1]
            while (got := worker.ask(Kind.GRAB_JOB))[0] is Kind.NO_JOB:
                assert worker.ask(Kind.PRE_SLEEP) == (Kind.NOOP,)
            assert got[3] == data
            return handle, got[1]

        handle, there = job(b"abc")
        worker.send(Kind.WORK_DATA, there, b"c").send(Kind.WORK_STATUS, there, b"1", b"2")
        worker.send(Kind.WORK_COMPLETE, there, b"ba")
        assert client.get() == (Kind.WORK_COMPLETE, handle, b"cba")
        handle, there = job(b"fails")
        worker.send(Kind.WORK_FAIL, there)
        assert client.get() == (Kind.WORK_FAIL, handle)
        handle, there = job(b"raises")
        worker.send(Kind.WORK_EXCEPTION, there, b"no such thing")
        kind, said, reason = client.get()
        assert (kind, said) == (Kind.WORK_EXCEPTION, handle)
        assert b"no such thing" in reason


def test_a_large_result_comes_home_as_a_message(road):
    """What does not fit into a receipt comes whole, with all WORK_DATA before it, also if the way back is down at
    first; and nothing of it is left at home.
    """
    home, far = build(road, "home", "far", home={"channels": {"f": {"to": "far"}}})
    start(home), start(far)
    home.run("daemon"), home.run("server"), far.run("server")
    with Peer(home.port) as client, Peer(far.port) as worker:
        worker.send(Kind.CAN_DO, b"f")
        handle = client.ask(Kind.SUBMIT_JOB, b"f", b"", b"much")[1]
        while (got := worker.ask(Kind.GRAB_JOB))[0] is Kind.NO_JOB:
            assert worker.ask(Kind.PRE_SLEEP) == (Kind.NOOP,)
        chunk, last = bytes(range(256)) * 200, bytes(70_000)
        worker.send(Kind.WORK_DATA, got[1], chunk).send(Kind.WORK_DATA, got[1], chunk)
        worker.send(Kind.WORK_COMPLETE, got[1], last)
        far.run("daemon")
        assert client.get() == (Kind.WORK_COMPLETE, handle, chunk + chunk + last)
    with home.opened() as node:
        assert not node.inbox.counts().get("gearman.results", {}).get("ready")


def test_background_jobs_of_another_node(road):
    """Background jobs go out though the other node is down, and arrive once when it comes."""
    home, far = build(road, "home", "far", home={"channels": {"f": {"to": "far"}}})
    start(home)
    home.run("daemon")
    with Peer(home.port) as client:
        for number in range(20):
            assert client.ask(Kind.SUBMIT_JOB_BG, b"f", b"", b"%d" % number)[0] is Kind.JOB_CREATED
    home.processes[0].kill()
    far.run("server")
    start(far)
    assert drain(far.port, b"f", 20) == [b"%d" % number for number in range(20)]


def test_a_drain_lets_a_worker_finish(shop):
    """Told to stop, the gateway takes nothing new and waits for the word of a worker on its job."""
    with Peer(shop.port) as client, Peer(shop.port) as worker:
        handle = client.ask(Kind.SUBMIT_JOB, b"f", b"", b"1")[1]
        worker.send(Kind.CAN_DO, b"f")
        worker.ask(Kind.GRAB_JOB)
        shop.processes[0].signal(signal.SIGTERM)
        eventually(lambda: _refused(shop.port))
        worker.send(Kind.WORK_COMPLETE, handle, b"done")
        assert client.get() == (Kind.WORK_COMPLETE, handle, b"done")
        assert shop.processes[0].wait() == 0


def _refused(port):
    try:
        Peer(port).close()
    except OSError:
        return True
    return False


def test_one_refused_among_many_ahead_is_refused_alone(shop):
    """A hundred jobs in one write, one of them impossible: the others are created once each, in their order."""
    jobs = [encode(Kind.SUBMIT_JOB_BG, b"ahead", b"", b"%d" % number, magic=REQUEST) for number in range(100)]
    jobs[40] = encode(Kind.SUBMIT_JOB_BG, b"ahead", b"u" * 65, b"too long a unique", magic=REQUEST)
    with Peer(shop.port) as client:
        for sent in (jobs, jobs[:40]):
            client.socket.sendall(b"".join(sent))
            kinds = [client.get()[0] for _ in sent]
            assert [at for at, kind in enumerate(kinds) if kind is not Kind.JOB_CREATED] == [40][: len(sent) // 100]
    expected = [b"%d" % number for number in range(100) if number != 40]
    assert drain(shop.port, b"ahead", 139) == expected + expected[:40]
