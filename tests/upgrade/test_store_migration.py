"""Stores of the last release, with something in every state, in the hands of this tree.

The way to the next format is proved with a step that only these tests have, in the real code and on real stores of the
last release.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import apsw
import pytest
import yaml
from dropr_storage_fs.engine import formats
from dropr_storage_sqlite import storage as sqlite_storage
from support.interruptions import WRITES, chosen, count_steps, die, full, in_child
from upgrade import every_state

from dropr_core.api.node import Node
from dropr_core.errors import QueueFull, StoreBusy, StoreError, StoreReadOnly, StoreTooNew
from dropr_core.model.chunk_digest import LEAF, digest_of, leaves_of
from dropr_core.model.envelope import Reference
from dropr_core.storage_kit import migrating

KEY = "0123456789abcdef0123456789abcdef"
STORAGES = ["sqlite", "fs"]
pytestmark = pytest.mark.timeout(400)  # some are done again at many moments
STEP = """
CREATE TABLE extra(place INTEGER PRIMARY KEY, text TEXT NOT NULL);
INSERT INTO extra SELECT place, hex(id) FROM {table};
UPDATE {table} SET flags = flags;
CREATE INDEX extra_text ON extra(text);
"""


def configure(directory, storage):
    peer = {"url": "http://127.0.0.1:9", "key": KEY}
    mapping = {
        "node": "shop", "data": "./data", "storage": {"use": storage, "reserve": 0, "busy": "300ms"},
        "limits": {"min_free": 0}, "peers": {"ware": peer, "hut": dict(peer)},
        "channels": {"quick": {"to": "ware", "durability": "interval"}, "ended": {"to": "ware", "retention": "1d"},
                     "done": {"retention": "1d"}},
    }  # fmt: skip
    file = directory / "node.yaml"
    file.write_text(yaml.safe_dump(mapping))
    return file


@pytest.fixture(scope="module")
def made(last_release, tmp_path_factory):
    """Storage → (directory of a node that the last release left behind, its picture of the store)."""
    out = {}
    for storage in STORAGES:
        place = tmp_path_factory.mktemp(f"every-state-{storage}")
        said = last_release.python(every_state.__file__, "make", configure(place, storage), cwd=place)
        out[storage] = (place, json.loads(said.splitlines()[0]))
    return out


@pytest.fixture(params=STORAGES)
def storage(request):
    """Which storage it is about."""
    return request.param


@pytest.fixture
def old(made, storage, tmp_path):
    """(YAML of a copy of that node, picture)."""
    place, picture = made[storage]
    shutil.copytree(place, tmp_path / "node", dirs_exist_ok=True)
    return tmp_path / "node" / "node.yaml", picture


@pytest.fixture
def present(old):
    """The same, of the format of today: this tree has had it open."""
    file, picture = old
    assert see(file, read_only=False) == picture
    for aside in migrating.copies(file.parent / "data"):
        shutil.rmtree(aside.directory)
    return old


@pytest.fixture
def next_format(monkeypatch):
    """This tree, with one format more of each storage."""
    monkeypatch.setattr(formats, "VERSIONS", (1, 2, 3, 4))
    monkeypatch.setattr(formats, "OLDEST_WRITTEN", 4)
    for name, table in (("OUTBOX", "delivery"), ("INBOX", "message")):
        schema = getattr(sqlite_storage, name)
        monkeypatch.setattr(
            sqlite_storage, name, sqlite_storage.Schema(schema.half, (*schema.steps, STEP.format(table=table)))
        )
    return monkeypatch


def see(file, *, read_only=True):
    """The picture as this process sees it."""
    with Node.open(file, read_only=read_only) as node:
        found = every_state.picture(node)
    # Whoever opens it to write takes in what a killed process had staged; nobody else knows of it.
    for name, at in (("deliveries", 2), ("lanes", 0)):
        found[name] = [row for row in found[name] if "quick" not in row[at]]
    return found


def formats_of(data, storage):
    """The version of each half, as it stands in its file."""
    if storage == "sqlite":
        found = []
        for half in ("outbox", "inbox"):
            connection = apsw.Connection(str(data / f"{half}.db"))
            found.append(connection.pragma("user_version"))
            connection.close()
        return found
    return [formats.version_there(data / half) for half in ("outbox", "inbox")]


def put_back(aside, data, storage):
    """What the run-book says: the copy in the place of what was migrated."""
    for half in ("outbox", "inbox"):
        name = f"{half}.db" if storage == "sqlite" else half
        for wrong in data.glob(f"{name}*"):
            if wrong.name in {name, f"{name}-wal", f"{name}-shm"}:
                shutil.rmtree(wrong) if wrong.is_dir() else wrong.unlink()
    for directory in aside:
        for one in directory.iterdir():
            if one.name != migrating.NOTE:
                target = data / one.name
                shutil.copytree(one, target) if one.is_dir() else shutil.copy(one, target)


# ── the format of today ──────────────────────────────────────────────────────────────────────────


def test_a_store_of_the_last_release_is_opened_with_everything_in_it(old, storage):
    """Nothing is missing, nothing has moved; and each thing goes on from where it was."""
    file, picture = old
    assert see(file, read_only=storage == "fs") == picture  # who only looks does not migrate a database
    with Node.open(file) as node:
        assert every_state.picture(node)["stores"] == picture["stores"]
        assert [row[:2] for row in every_state.outcomes(node)] == [
            (number, every_state.MessageId((channel + bytes(14))[:14] + at.to_bytes(2, "big")).hex())
            for number, (channel, at) in enumerate([(b"buried", 1), (b"buried", 2), (b"done", 1), (b"done", 2)], 1)
        ]
        assert node.send(b"once", to="ware", channel="own", dedup_key="order 7").existed
        batch = node.outbox.take(every_state.Lane("ware", "underway", 5), 10, 1 << 20)
        assert [entry.sequence for entry in batch.entries] == list(range(1, 7))
        assert node.outbox.counts()["ware", "quick"]["queued"] == 1  # it stood in the log of a killed process
        leased = list(node.receive("leased", limit=3, timeout=30))
        assert [message.attempt for message in leased] == [2, 2, 1]
        assert node.inbox.kick(every_state.Selection(channel="buried")) == 2
        assert len(list(node.receive("buried", limit=2, timeout=30))) == 2
        assert not list(node.receive("delayed", wait=0))
        arriving = node.runtime.bodies.arrivals()
        reference = Reference(len(every_state.BODY), digest_of(leaves_of(every_state.BODY)))
        assert arriving.of("ware", every_state.HALF, reference).have() == LEAF
        arriving.close()


def test_old_and_new_processes_share_a_store_of_one_format(made, tmp_path, last_release):
    """While the formats are the same both work on it at once: each sees what the other one stored."""
    place, picture = made["fs"]  # that of SQLite has changed since
    shutil.copytree(place, tmp_path / "node")
    file = tmp_path / "node" / "node.yaml"
    code = (
        "import sys, dropr_core as d\n"
        "with d.open(sys.argv[1]) as node:\n"
        "    print('open', flush=True); sys.stdin.readline()\n"
        "    print([m.body for m in node.receive('both', limit=1, timeout=60)])\n"
        "    node.put(b'of the old', channel='both')\n"
    )
    with Node.open(file) as node, old_process(last_release, file, code) as process:
        node.put(b"of the new", channel="both")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "[b'of the new']\n"
        assert process.wait(60) == 0
        assert [message.body for message in node.receive("both", limit=1, timeout=60)] == [b"of the old"]
        assert len(every_state.picture(node)["deliveries"]) == len(picture["deliveries"]) + 1


# ── a format to come ─────────────────────────────────────────────────────────────────────────────


@contextmanager
def old_process(last_release, file, code):
    """A process of the last release that has said that the store is open; gone after the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], env={**os.environ, **last_release.env}, cwd=file.parent, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_migration_keeps_everything_and_a_copy(old, storage, last_release, next_format, caplog):
    """All is there, log and event say what was done; the last release refuses the store by name, and takes the copy."""
    file, picture = old
    data = file.parent / "data"
    before = formats_of(data, storage)
    caplog.set_level(logging.WARNING)
    assert see(file, read_only=False) == picture
    after = formats_of(data, storage)
    assert after == ([4, 4] if storage == "fs" else [sqlite_storage.OUTBOX.version, sqlite_storage.INBOX.version])
    assert f"format {before[0]} becomes {after[0]}" in caplog.text
    asides = [aside.directory for aside in migrating.copies(data)]
    assert all(str(aside) in caplog.text for aside in asides)
    assert sorted({half for aside in migrating.copies(data) for half in aside.before}) == ["inbox", "outbox"]
    assert see(file) == picture
    refused = last_release.python(every_state.__file__, "look", file, cwd=file.parent, fails=1)
    assert "StoreTooNew" in refused
    put_back(asides, data, storage)
    assert json.loads(last_release.python(every_state.__file__, "look", file, cwd=file.parent)) == picture
    assert see(file, read_only=False) == picture  # and up again: another copy in the place of the first
    assert formats_of(data, storage) == after
    assert len(migrating.copies(data)) == len(asides)


def test_going_back_without_the_copy_says_where_it_is(old, storage, next_format):
    """An older dropr that meets a migrated store names who made it, what to install, and the copy."""
    file, picture = old
    assert see(file, read_only=False) == picture
    next_format.undo()
    for read_only in (True, False):
        with pytest.raises(StoreTooNew, match=f"of dropr {migrating.own_version()}; this is dropr") as caught:
            see(file, read_only=read_only)
        assert "before-migration-" in str(caught.value)
        assert "nothing was changed" in str(caught.value)


def test_who_only_looks_migrates_nothing(old, storage, next_format):
    """`dropr list` of a new version on an old store: it looks, or says which process will migrate; nothing changes."""
    file, picture = old
    before = formats_of(file.parent / "data", storage)
    if storage == "sqlite":
        with pytest.raises(StoreReadOnly, match="has format 2, of an older dropr; the first process"):
            see(file)
    else:
        assert see(file) == picture
    assert formats_of(file.parent / "data", storage) == before


def test_a_store_in_use_is_not_migrated(old, storage, last_release, next_format):
    """Whoever has it open, of whatever version, is named; nothing is changed, and afterwards it goes."""
    file, picture = old
    data = file.parent / "data"
    before = formats_of(data, storage)
    code = (
        "import sys, dropr_core as d\n"
        "with d.open(sys.argv[1]) as node:\n"
        "    node.outbox.lanes(); node.inbox.counts()\n"
        "    print('open', flush=True); sys.stdin.readline()\n"
    )
    with old_process(last_release, file, code) as process:
        with pytest.raises(StoreBusy, match="only when nobody uses it") as caught:
            see(file, read_only=False)
        assert f"{process.pid} (" in str(caught.value)
        assert formats_of(data, storage) == before
        assert not migrating.copies(data)
    assert see(file, read_only=False) == picture


def test_a_process_without_a_connection_learns_of_the_migration(made, tmp_path, next_format):
    """Who had the store open, and no file of it at the moment, is told to restart with the newer version."""
    shutil.copytree(made["sqlite"][0], tmp_path / "node")
    file = tmp_path / "node" / "node.yaml"
    next_format.undo()
    with Node.open(file) as node:
        node.outbox.lanes()
        for half in (node.outbox, node.inbox):
            assert half.engine.pause()  # as around a fork
            half.engine.resume()
        with pytest.MonkeyPatch.context() as patch:
            for name, table in (("OUTBOX", "delivery"), ("INBOX", "message")):
                schema = getattr(sqlite_storage, name)
                patch.setattr(
                    sqlite_storage, name, sqlite_storage.Schema(schema.half, (*schema.steps, STEP.format(table=table)))
                )
            see(file, read_only=False)
        with pytest.raises(StoreTooNew):
            node.send(b"more", to="ware")
        with pytest.raises(StoreTooNew):
            node.inbox.counts()


# ── in the middle ────────────────────────────────────────────────────────────────────────────────


def check_interrupted(file, storage, before, picture):
    """A store of which a migration was stopped: the old version goes on or refuses, the new one ends it."""
    data = file.parent / "data"
    halves = formats_of(data, storage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "VERSIONS", (1, 2, 3))
        patch.setattr(formats, "OLDEST_WRITTEN", 1)
        for name in ("OUTBOX", "INBOX"):
            schema = getattr(sqlite_storage, name)
            patch.setattr(sqlite_storage, name, sqlite_storage.Schema(schema.half, schema.steps[:-1]))
        if halves == before:
            assert see(file, read_only=False) == picture
        else:
            with pytest.raises(StoreTooNew):
                see(file, read_only=False)
    assert see(file, read_only=False) == picture
    after = formats_of(data, storage)
    assert all(new > old for new, old in zip(after, before, strict=True))
    # The copies are those of the beginning, whole.
    asides = [aside.directory for aside in migrating.copies(data)]
    put_back(asides, data, storage)
    assert formats_of(data, storage) == before
    assert see(file, read_only=False) == picture


def work_of(file):
    def work(steps):
        steps.watch_sqlite()
        steps.watch_files()
        with Node.open(file):
            pass

    return work


def test_a_migration_that_is_killed_anywhere_can_be_gone_on_with(present, storage, tmp_path, next_format):
    """By whichever version is right: before the new format stands in a half the old one goes on with it, after that the
    new one does; nothing of the store is ever missing, and the copy is whole.
    """
    file, picture = present
    before = formats_of(file.parent / "data", storage)
    work, states = work_of, set()
    shutil.copytree(file.parent, tmp_path / "counted")
    total = count_steps(work(tmp_path / "counted" / "node.yaml"))
    for number in chosen(total, 8):
        place = tmp_path / str(number)
        shutil.copytree(file.parent, place)
        assert in_child(work(place / "node.yaml"), number)
        states.add(tuple(formats_of(place / "data", storage)))
        check_interrupted(place / "node.yaml", storage, before, picture)
        shutil.rmtree(place)
    assert total > 50, "little is interrupted"
    assert len(states) >= 2, "not before and after"


def test_a_migration_on_a_full_disk_changes_nothing(present, storage, tmp_path, next_format):
    """Whatever there is no room for: the store is as it was, or half done and gone on with when there is room again."""
    file, picture = present
    before = formats_of(file.parent / "data", storage)

    def work_at(file):
        def work(steps):
            steps.watch_files(WRITES)
            steps.limit_sqlite()
            try:
                with Node.open(file):
                    pass
            except StoreError as error:
                assert isinstance(error, QueueFull), error
                die()

        return work

    shutil.copytree(file.parent, tmp_path / "counted")
    total, hits = count_steps(work_at(tmp_path / "counted" / "node.yaml")), 0
    for number in chosen(total, 14 if storage == "sqlite" else 5):
        place = tmp_path / str(number)
        shutil.copytree(file.parent, place)
        if in_child(work_at(place / "node.yaml"), number, full):  # else it found a way: it did without a second name
            hits += 1
            check_interrupted(place / "node.yaml", storage, before, picture)
        shutil.rmtree(place)
    assert hits > 2


def test_no_room_for_the_copy_is_said_before_anything_is_changed(old, storage, next_format):
    """How much is needed and how much is there; the older dropr goes on."""
    file, _ = old
    data = file.parent / "data"
    before = formats_of(data, storage)
    next_format.setattr(migrating, "_free", lambda _data: 17)
    with pytest.raises(QueueFull, match="bytes, for a copy of it and for the work, and 17 are free"):
        see(file, read_only=False)
    assert formats_of(data, storage) == before
    assert not list(data.glob("before-*"))
