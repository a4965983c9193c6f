"""Faults of stores and of handling as a node meets them, that no other test holds: its own SQLite file, no network."""

import contextlib
import os
import subprocess
import sys

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite.engine import connection as opening

import dropr_core as dropr
from dropr_core.angel.heartbeat import Heartbeat
from dropr_core.cli.failures import explain
from dropr_core.config.node import load, parse
from dropr_core.contracts.storage import Selection
from dropr_core.errors import ConfigError, LeaseLost, QueueFull, StoreError, WriteFailed
from dropr_core.model.message import State
from dropr_core.model.names import parse_id
from dropr_core.processes import daemon as daemon_module
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.server import make_dispatcher
from dropr_core.system.exit_codes import Exit

YAML = """
node: ware
data: ./data
limits: {min_free: 0}
storage: {use: sqlite, reserve: 0}
peers: {shop: {key: 0123456789abcdef0123, mode: pull}}
channels: {jobs: {retry_backoff_min: 0}}
"""


@pytest.fixture
def node(tmp_path):
    with dropr.Node.open(parse(YAML, tmp_path)) as opened:
        yield opened


def spoil(path, message_id):
    """Change one byte in the middle of a stored envelope, as a dying disk would."""
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        (data,) = connection.execute("SELECT envelope FROM message WHERE id = ?", (message_id,)).fetchone()
        changed = bytearray(data)
        changed[-1] ^= 0xFF
        connection.execute("UPDATE message SET envelope = ? WHERE id = ?", (bytes(changed), message_id))


def test_fault_51_a_message_that_is_damaged_at_rest_is_named_and_buried_and_the_next_goes_on(node, caplog):
    """Other bytes than were written are never delivered: the checksum finds them, and nobody else waits."""
    bad, good = node.put(b"to be damaged", channel="jobs"), node.put(b"sound", channel="jobs")
    identity = parse_id(bad)
    spoil(node.config.data / "inbox.db", identity)
    assert [(received.id, received.body) for received in node.receive("jobs", wait=0)] == [(good, b"sound")]
    assert f"message {bad} is damaged at rest and buried" in caplog.text
    info = node.inbox.status(identity)
    assert info.state is State.BURIED
    assert "damaged at rest" in info.reason
    assert node.inbox.counts()["jobs"]["buried"] == 1


def refuse(*_changes):
    """In place of `Inbox.settle` and `acknowledge`, on a broken disk."""
    raise WriteFailed("inbox.db: Input/output error")


def test_fault_67_a_loop_whose_acknowledgement_cannot_be_written_is_told_and_the_work_stays_done(node, monkeypatch):
    """The disk refuses to settle what a loop has noted as done: the loop says so, and once the disk is well the message
    is settled by the word of the lease sheet and not worked on again.
    """
    node.put(b"work", channel="jobs")
    with monkeypatch.context() as patch, pytest.raises(WriteFailed, match="Input/output"):
        for _received in node.receive("jobs"):
            patch.setattr(node.inbox, "settle", refuse)
            patch.setattr(node.inbox, "acknowledge", refuse)
    assert list(node.receive("jobs", wait=0)) == []
    assert node.inbox.counts()["jobs"]["processed"] == 1


@pytest.mark.parametrize("how", ["with", "ack"])
def test_fault_67_an_acknowledgement_that_cannot_be_written_is_raised_and_the_message_comes_back(
    node, monkeypatch, how
):
    """The disk refuses the acknowledgement: whoever works is told, the lease stays, and nothing is lost by it."""
    node.put(b"work", channel="jobs")
    with monkeypatch.context() as patch:
        consumer = node.consumer("jobs")
        (received,) = consumer.claim()
        patch.setattr(node.inbox, "settle", refuse)
        with pytest.raises(WriteFailed, match="Input/output"):
            if how == "ack":
                received.ack()
            else:
                with received:
                    pass
        assert received.lease_holds
        assert node.consumer("jobs").claim() == []
        consumer.close()
    (again,) = node.receive("jobs", wait=0)
    assert again.body == b"work"


def test_fault_60_who_lost_the_lease_is_told_and_the_second_run_stands(node):
    """A consumer that was given up (machine asleep, lock lost) acknowledges late: LeaseLost, nothing changes."""
    node.put(b"work", channel="jobs")
    asleep, awake = node.consumer("jobs"), node.consumer("jobs")
    (late,) = asleep.claim()
    node.inbox.retire(asleep._consumer)
    (second,) = awake.claim()
    second.ack()
    assert not late.lease_holds
    for end in (late.ack, late.release, late.bury):
        with pytest.raises(LeaseLost, match=r"another consumer may have it|settled before"):
            end()
    assert node.inbox.counts()["jobs"].get("buried", 0) == 0
    assert list(node.receive("jobs", wait=0)) == []


WIPER = """
import sys, dropr_core
from dropr_core.contracts.storage import Selection
with dropr_core.open(sys.argv[1]) as node:
    print("wiping", flush=True)
    while True:
        for number in range(200):
            node.put(b"%d" % number, channel="past")
        for batch in node.receive_batches("past", wait=0):
            pass
        print(node.inbox.wipe(Selection(channel="past")), flush=True)
"""


def test_fault_79_a_wipe_that_is_killed_leaves_no_orphan_and_loses_nothing(tmp_path):
    """SIGKILL in the middle of wipes, again and again: what lives is there, counts are right, files are whole."""
    file = tmp_path / "node.yaml"
    file.write_text(YAML.replace("jobs:", "past: {retention: 1d}, jobs:"))
    with dropr.open(file) as node:
        alive = [node.put(b"alive", channel="jobs") for _ in range(5)]
        for lives in range(5):
            child = subprocess.Popen([sys.executable, "-c", WIPER, str(file)], stdout=subprocess.PIPE)
            for _ in range(2 + lives):
                assert child.stdout.readline()
            child.kill()
            child.wait()
            child.stdout.close()
            for batch in node.receive_batches("past", wait=0):
                assert batch
            counts = node.inbox.counts()["past"]
            shown = node.inbox.scan(Selection(channel="past"), limit=10_000)
            assert counts.get("done", 0) == len(shown) == sum(info.state is State.DONE for info in shown)
        node.inbox.wipe(Selection())
        with contextlib.closing(apsw.Connection(str(node.config.data / "inbox.db"))) as look:
            assert look.pragma("integrity_check") == "ok"
            assert look.execute("SELECT count(*) FROM message").fetchone() == (5,)
            for table in ("lease", "ended", "expiry"):
                assert look.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        assert [received.id for received in node.receive("jobs", wait=0)] == alive


CRAMPED = """
import os, pathlib, resource, sys
import dropr_core
from dropr_core.errors import DroprError
node = dropr_core.open(sys.argv[1])
config = node.config
node.put(b"before", channel="jobs")
node.send(b"before", to="shop")
free = os.open("/dev/null", os.O_RDONLY)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
said = []
for name, call in (
    ("file", lambda: dropr_core.open(sys.argv[1])),
    ("open", lambda: dropr_core.open(config)),
    ("receive", lambda: next(node.receive("jobs"))),
    ("large", lambda: node.send(pathlib.Path(sys.argv[2]), to="shop")),
):
    try:
        call()
    except DroprError as error:
        said.append(f"{name}: {type(error).__name__}: {error}")
node.send(b"during", to="shop")
node.put(b"during", channel="jobs")
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(*said, sep="\\n")
print(*(received.body for received in node.receive("jobs", wait=0)))
print(node.outbox.peers()["shop"].waiting)
"""


def test_fault_85_a_process_without_file_handles_says_so_and_goes_on_when_there_are_some(tmp_path):
    """No handle is left: what needs one is a clear error, what has its own goes on, and nothing has to be restarted."""
    file = tmp_path / "node.yaml"
    file.write_text(YAML)
    large = tmp_path / "large"
    large.write_bytes(bytes(100_000))
    command = [sys.executable, "-c", CRAMPED, str(file), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *said, bodies, waiting = done.stdout.splitlines()
    assert [line.split(":")[0] for line in said] == ["file", "open", "receive", "large"]
    assert all("Too many open files" in line for line in said), said
    assert all("UsageError" not in line and "dropr init" not in line for line in said), said
    assert bodies == "b'before' b'during'"
    assert int(waiting) >= 2


def test_fault_85_a_process_that_cannot_read_its_file_for_want_of_handles_is_no_misconfigured_one(
    tmp_path, monkeypatch
):
    """The angel would leave a misconfigured child down for ever: a passing shortage must be tried again."""
    file = tmp_path / "node.yaml"
    with pytest.raises(ConfigError, match=r"No such file.*dropr init") as missing:
        load(file)

    def refuse(path, **_more):
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(type(file), "read_text", refuse)
    with pytest.raises(ConfigError, match=r"node\.yaml: cannot be read: Too many open files$") as passing:
        load(file)
    assert explain(missing.value)[0] == Exit.CONFIG
    assert explain(passing.value)[0] == Exit.OS_ERROR


def test_fault_85_no_inodes_left_is_a_full_disk(node, monkeypatch):
    """Files cannot be made though bytes are free: `send` of a large body is QueueFull, small messages go on."""
    real = os.open

    def full(path, flags, *rest, **more):
        if flags & os.O_CREAT and "bodies" in str(path):
            raise OSError(28, "No space left on device", str(path))
        return real(path, flags, *rest, **more)

    large = node.config.data.parent / "large"
    large.write_bytes(bytes(100_000))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(QueueFull):
            node.send(large, to="shop")
        node.send(b"small", to="shop")
    node.send(large, to="shop")
    assert node.outbox.peers()["shop"].waiting == 2


def test_fault_11_a_store_that_lost_its_permission_says_so_at_send_and_goes_on_when_it_is_back(node, monkeypatch):
    """The medium became read-only while it was in use: each `send` is a clear error that names the file."""
    node.send(b"before", to="shop")
    connect = opening.connect

    def only_to_read(*arguments, **more):
        connection = connect(*arguments, **more)
        connection.pragma("query_only", 1)
        return connection

    with monkeypatch.context() as medium:
        medium.setattr(opening, "connect", only_to_read)  # a connection that could not write is opened anew
        for writer in node.outbox.engine._writers.values():
            writer.pragma("query_only", 1)
        for _ in range(3):
            with pytest.raises(StoreError, match=r"outbox\.db.*(read|permission)"):
                node.send(b"during", to="shop")
    node.send(b"after", to="shop")
    assert node.outbox.peers()["shop"].waiting == 2


def full(*_args, **_more):
    """What a full disk says to whoever makes or writes a file."""
    raise OSError(28, "No space left on device", "somewhere")


def test_fault_09_a_full_disk_stops_neither_the_daemon_nor_the_answers_to_peers(node, monkeypatch, caplog):
    """What is only a help (clock file, request to retry, sweep) fails on a full disk, and the mail goes on without."""
    node.send(b"waits", to="shop")
    monkeypatch.setattr(daemon_module, "keep_clock", full)
    monkeypatch.setattr(node.runtime, "sweep_bodies", full)
    monkeypatch.setattr(node.runtime, "retry_now", full)
    with MainLoop(Heartbeat.from_environment()) as loop:
        daemon = daemon_module.Daemon(node.runtime, loop)
        turned = []
        monkeypatch.setattr(daemon._carrier.links, "turn", lambda: turned.append(1))
        daemon.turn()
        daemon._drain()
        daemon.close()
    assert caplog.text.count("No space left") == 1
    assert turned
    dispatcher = make_dispatcher(node.runtime, node.runtime.log)
    dispatcher._note("shop")
    dispatcher.close()
