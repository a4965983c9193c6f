"""`dropr fsck` on a real node: damage is planted, found, explained, repaired, and the node goes on."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("dropr_storage_sqlite")
import apsw

from dropr_core.api.node import Node
from dropr_core.bodies.store import BodyFiles
from dropr_core.cli.app import application
from dropr_core.contracts.storage import Job, Selection, Storage
from dropr_core.model.message import State
from dropr_core.model.names import parse_id
from dropr_core.system.exit_codes import Exit
from dropr_core.system.locks import FileLock
from dropr_core.system.presence import Presence

YAML = """
node: shop
data: ./data
storage: %s
peers:
  berlin: {url: "https://127.0.0.1:9", key: "0123456789abcdef-this-is-secret"}
  rome: {url: "https://127.0.0.1:9", key: "0123456789abcdef-this-is-secret"}
limits: {min_free: 0}
channels:
  orders: {to: berlin, serializer: text, receipt: true}
  movies: {to: [berlin, rome]}
"""
LARGE = 200_000


@pytest.fixture
def file(tmp_path):
    """The configuration of a node with messages of every kind in its store."""
    path = tmp_path / "shop.yaml"
    path.write_text(YAML % "sqlite")
    with Node.open(path) as node:
        for number in range(20):
            node.send(f"order {number}", channel="orders")
            node.put(f"job {number}".encode(), channel="jobs")
        node.send(os.urandom(LARGE), channel="movies")
        node.put(os.urandom(LARGE), channel="films")
    return path


@pytest.fixture
def data(file):
    return file.parent / "data"


@pytest.fixture
def fsck(file):
    """Run the verb with --json; its findings that are no notes."""

    def fsck(*arguments, code=0, notes=False):
        result = CliRunner().invoke(application(), ["fsck", "--json", "-c", str(file), *arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return [one for one in json.loads(result.stdout)["findings"] if notes or one["severity"] != "note"]

    return fsck


def change(path, statement, *values):
    """Change a database file behind the node's back."""
    connection = apsw.Connection(str(path))
    connection.execute(statement, values).fetchall()
    assert connection.changes()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def snapshot(data):
    """Every file that holds anything."""
    return {
        path: path.read_bytes()
        for path in data.rglob("*")
        if path.is_file() and path.stat().st_size and not path.name.endswith("-shm") and path.suffix != ".lock"
    }


def mends(fsck, data, *words):
    """Found, without a change; repaired; nothing is left. Returns what was found."""
    before = snapshot(data)
    found = fsck(code=Exit.FAILED)
    assert snapshot(data) == before
    text = json.dumps(found)
    for word in words:
        assert word in text, text
    repaired = fsck("--repair")
    assert repaired
    assert all(one["repaired"] for one in repaired)
    assert fsck() == []
    return found


def counts(file):
    with Node.open(file, read_only=True) as node:
        sent = [one.state for _, one in node.outbox.scan(Selection(), limit=1000)]
        return sent, [one.state for one in node.inbox.scan(Selection(), limit=1000)]


def works(file, *, jobs):
    """The node takes, gives and ships messages."""
    with Node.open(file) as node:
        node.send("another", channel="orders")
        for lane in node.outbox.lanes():
            assert node.outbox.take(lane.lane, 1000, 10**9) is not None
            node.outbox.clear_in_flight(lane.lane)
        assert len(list(node.receive("jobs", wait=0))) == jobs


def test_a_sound_node_is_told_so(file, fsck, data):
    """Nothing is wrong: exit 0, one line with how many messages were looked at, not a byte changes."""
    before = snapshot(data)
    result = CliRunner().invoke(application(), ["fsck", "-c", str(file)])
    assert result.exit_code == 0, result.output
    assert "nothing is wrong with the store of shop: 43 messages looked at" in result.stdout
    assert snapshot(data) == before
    assert fsck("--repair") == []
    works(file, jobs=20)


def test_counters_off_by_one_are_explained_and_repaired(file, fsck, data):
    """The text says what is counted and what is there, the lane's name, and what --repair does."""
    change(data / "outbox.db", "UPDATE lane SET depth = depth - 1 WHERE channel = 'orders'")
    result = CliRunner().invoke(application(), ["fsck", "-c", str(file)])
    assert result.exit_code == Exit.FAILED
    assert "lane berlin:orders:5: 19 queued deliveries" in result.stdout
    assert "--repair counts anew" in result.stdout
    assert "1 finding, 0 repaired, 1 left" in result.stdout
    before = counts(file)
    mends(fsck, data, "berlin:orders:5")
    assert counts(file) == before
    works(file, jobs=20)


def flip(path, table, where):
    """Flip one bit in the middle of an envelope."""
    connection = apsw.Connection(str(path))
    query = f"SELECT rowid, envelope FROM {table} WHERE {where} ORDER BY rowid LIMIT 1 OFFSET 7"
    rowid, data = connection.execute(query).fetchall()[0]
    connection.close()
    bad = bytearray(data)
    bad[len(bad) // 2] ^= 1
    change(path, f"UPDATE {table} SET envelope = ? WHERE rowid = ?", bytes(bad), rowid)
    return bytes(bad)


def test_fault_51_a_flipped_byte_costs_one_message_and_keeps_its_bytes(file, fsck, data):
    """A damaged delivery is dead, a damaged arrival buried, each with the reason; all others stay as they are."""
    sent = flip(data / "outbox.db", "delivery", "envelope IS NOT NULL")
    got = flip(data / "inbox.db", "message", "true")
    before = counts(file)
    found = mends(fsck, data, "checksum does not match", "berlin")
    assert {one["half"] for one in found} == {"outbox", "inbox"}
    after = counts(file)
    assert after[0].count(State.DEAD) == after[1].count(State.BURIED) == 1
    assert [len(one) for one in after] == [len(one) for one in before]
    with Node.open(file, read_only=True) as node:
        dead = next(one for _, one in node.outbox.scan(Selection(states=frozenset({State.DEAD}))))
        buried = next(one for one in node.inbox.scan(Selection(states=frozenset({State.BURIED}))))
        assert "fsck" in dead.reason
        assert "fsck" in buried.reason
        assert node.outbox.envelope(dead.id) == sent
        assert node.inbox.envelope(buried.id) == got
    assert len(fsck(notes=True)) == 2, "the two that are kept are noted, and no more"
    works(file, jobs=19)


def test_a_message_in_the_place_of_another_is_found(file, fsck, data):
    """An envelope that is whole but belongs to another message is not given out as this one."""
    change(data / "inbox.db", "UPDATE message SET envelope = (SELECT envelope FROM message ORDER BY place LIMIT 1) "
                              "WHERE place = (SELECT place FROM message ORDER BY place LIMIT 1 OFFSET 3)")  # fmt: skip
    mends(fsck, data, "that of message")


def body_of(data, way):
    """The file of the one large body."""
    (path,) = (path for path in (data / "bodies" / way).rglob("*-*") if path.is_file())
    return path


@pytest.mark.parametrize("way", ["sent", "come"])
def test_a_missing_body_costs_its_message_only(file, fsck, data, way):
    """The file is gone: its deliveries are dead, its arrival is buried, the rest goes on."""
    body_of(data, way).unlink()
    found = mends(fsck, data, "is missing")
    assert len(found) == (2 if way == "sent" else 1)
    works(file, jobs=20)


@pytest.mark.parametrize("way", ["sent", "come"])
@pytest.mark.parametrize("harm", ["digest", "size"])
def test_a_damaged_body_is_moved_aside_whole(file, fsck, data, way, harm):
    """Wrong digest or length: the message becomes a dead letter, and the bytes are in bodies/damaged."""
    path = body_of(data, way)
    path.chmod(0o600)
    with path.open("r+b") as body:
        if harm == "digest":
            body.seek(LARGE // 2)
            body.write(b"damaged")
        else:
            body.truncate(LARGE // 3)
    bad = path.read_bytes()
    mends(fsck, data, "another digest" if harm == "digest" else "bytes, not")
    (aside,) = (data / "bodies" / "damaged").iterdir()
    assert aside.read_bytes() == bad
    with Node.open(file) as node:
        node.runtime.sweep_bodies()
    assert aside.read_bytes() == bad, "no sweep takes it"
    works(file, jobs=20)


def test_bodies_without_a_message_and_unfinished_ones_are_noted(file, fsck, data):
    """What a dead process left is the daemon's to remove: a note, exit 0, and no change."""
    sent = data / "bodies" / "sent"
    (sent / ("ab" * 16 + "-" + "cd" * 8)).write_bytes(b"orphan")
    (sent / "0123456789abcdef.new").write_bytes(b"part")
    notes = fsck("--repair", notes=True)
    assert {one["severity"] for one in notes} == {"note"}
    assert len(notes) == 2
    assert len(list(sent.iterdir())) == 3


def test_when_messages_were_lost_their_bodies_are_kept(file, fsck, data):
    """A body whose message row is gone with the damage is moved aside before the daemon would sweep it."""
    change(data / "outbox.db", "DELETE FROM delivery WHERE shared IS NOT NULL")
    change(data / "inbox.db", "INSERT INTO ready VALUES(5, 1, '', NULL)")
    body = body_of(data, "sent").read_bytes()
    mends(fsck, data, "without a message")
    assert [path.read_bytes() for path in (data / "bodies" / "damaged").iterdir()] == [body]


def test_fault_52_a_damaged_page_is_stepped_around(file, fsck, data):
    """The file is replaced by a copy of what can be read; the damaged one stays beside it; the node goes on."""
    with Node.open(file) as node:
        node.inbox.put("more", 5, "x", [Job(parse_id(os.urandom(16)), os.urandom(3000)) for _ in range(50)])
    path = data / "inbox.db"
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'delayed'").fetchall()[0][0]
    size = connection.pragma("page_size")
    connection.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * size : root * size] = b"\x5a" * size
    path.write_bytes(content)
    CliRunner().invoke(application(), ["fsck", "--repair", "-c", str(file)])  # the made up messages are buried too
    assert fsck() == []
    kept = [one for one in data.glob("inbox.db.damaged-*") if not one.name.endswith(("-wal", "-shm"))]
    assert [one.read_bytes() for one in kept] == [bytes(content)]
    works(file, jobs=20)


def test_an_unreadable_file_is_never_presented_as_an_empty_queue(file, fsck, data):
    """Garbage in the place of a half: damage, exit 1, with --repair too; nothing is made anew."""
    (data / "inbox.db").write_bytes(b"\0garbage" * 5000)
    (data / "inbox.db-wal").unlink(missing_ok=True)
    before = (data / "inbox.db").read_bytes()
    for arguments in ((), ("--repair",)):
        found = fsck(*arguments, code=Exit.FAILED)
        assert any(one["half"] == "inbox" and one["severity"] == "damage" for one in found)
    assert (data / "inbox.db").read_bytes() == before


@pytest.mark.parametrize("name", ["daemon.lock", "run/angel.lock"])
def test_no_repair_while_a_process_of_the_node_runs(file, fsck, data, name):
    """Daemon or angel hold their lock: exit 69 naming the holder; a look is fine."""
    lock = FileLock(data / name)
    lock.acquire("dropr test")
    try:
        result = CliRunner().invoke(application(), ["fsck", "--repair", "-c", str(file)])
        assert result.exit_code == Exit.UNAVAILABLE
        assert f"pid {os.getpid()} dropr test" in result.stderr
        assert fsck() == []
    finally:
        lock.release()


def test_no_repair_beside_a_server_or_a_consumer(file, fsck, data):
    """A living server or worker, or any consumer, stops a repair; so does whoever has the store open."""
    server = Presence(data / "run", "server")
    server.announce({"urls": []})
    result = CliRunner().invoke(application(), ["fsck", "--repair", "-c", str(file)])
    assert (result.exit_code, "server" in result.stderr) == (Exit.UNAVAILABLE, True)
    server.withdraw()
    with Node.open(file) as node:
        consumer = node.consumer("jobs")
        consumer.claim(1)
        assert "consumer" in CliRunner().invoke(application(), ["fsck", "--repair", "-c", str(file)]).stderr
        consumer.close()
        node.send("x", channel="orders")
        result = CliRunner().invoke(application(), ["fsck", "--repair", "-c", str(file)])
        assert result.exit_code == Exit.UNAVAILABLE
        assert "open in another process" in result.stderr
    assert fsck("--repair") == []


def test_a_storage_without_a_check_of_its_own_has_its_messages_checked(tmp_path):
    """`check` is optional: by default a storage finds nothing, and the walk through the messages is the core's."""
    path = tmp_path / "plain.yaml"
    path.write_text(YAML % "memory")
    with Node.open(path) as node:
        node.send("hello", channel="orders")
        node.inbox.put("jobs", 5, "x", [Job(parse_id(os.urandom(16)), b"no envelope")])
        result = CliRunner().invoke(application(), ["fsck", "--json", "-c", str(path)])
        assert result.exit_code == Exit.FAILED, result.output
        (found,) = json.loads(result.stdout)["findings"]
        assert (found["half"], found["severity"]) == ("inbox", "damage")
    assert list(Storage.check(None, repair=True)) == []


def test_a_node_that_never_was_is_not_made(tmp_path):
    """No data directory: exit 66, and none is made."""
    path = tmp_path / "new.yaml"
    path.write_text(YAML % "sqlite")
    result = CliRunner().invoke(application(), ["fsck", "--repair", "-c", str(path)])
    assert result.exit_code == Exit.NO_INPUT
    assert not (tmp_path / "data").exists()
    assert BodyFiles(Path("nowhere")).any() is False
