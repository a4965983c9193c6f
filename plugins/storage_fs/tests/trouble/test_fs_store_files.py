"""The files of a store as others meet them: who may read them, looking at a living or a dead store, freed segments,
locks, and pages of messages.
"""

import fcntl
import os
import shutil
import signal
import stat
from pathlib import Path

import pytest
from dropr_storage_fs.files import log as log_module
from dropr_storage_fs.files.log_reader import LogReader
from fs_trouble_rig import LANE, came, identity, push, queued, send

from dropr_core.contracts.storage import Ack, NewMessage, Selection
from dropr_core.errors import StoreReadOnly
from dropr_core.testing.forks import Child


def test_files_are_private_and_names_are_numbers(opener, tmp_path):
    """Modes are 0600 and 0700, and no name of a peer or channel is part of a path."""
    storage = opener()
    storage.outbox.append([NewMessage(identity(1), "../../etc/x", 5, ("there",), b"x")])
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert "etc" not in str(path.relative_to(tmp_path))


def tree(directory):
    return {path.relative_to(directory): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in Path(directory).rglob("*")}  # fmt: skip


def test_a_copy_of_a_dead_machine_can_be_looked_at_and_is_not_changed(opener, tmp_path):
    """Opened only to look: list, show and cat work, nothing is written, and writing is refused."""
    (tmp_path / "live").mkdir()
    storage = opener(tmp_path / "live")
    send(storage, 1, 2, 3)
    push(storage, 1, 2)
    shutil.copytree(tmp_path / "live", tmp_path / "dead")
    (place,) = (tmp_path / "dead").glob("outbox/logs/*/*.seg")
    place.write_bytes(place.read_bytes().rstrip(b"\0") + b"torn")
    before = tree(tmp_path / "dead")
    looking = opener(tmp_path / "dead", read_only=True)
    assert queued(looking) == [1, 2, 3]
    assert came(looking) == [1, 2]
    assert looking.outbox.envelope(identity(2)) == b"002" * 40
    assert looking.inbox.envelope(identity(2)) == b"002" * 40
    assert looking.outbox.counts()["there", "orders"]["queued"] == 3
    with pytest.raises(StoreReadOnly):
        send(looking, 4)
    looking.close()
    assert tree(tmp_path / "dead") == before


def test_looking_at_a_living_store_follows_it(opener):
    """A store that others have open is shown as it is now, and not disturbed."""
    storage = opener()
    send(storage, 1)
    looking = opener(read_only=True)
    assert queued(looking) == [1]
    send(storage, 2)
    push(storage, 1, 1)
    assert queued(looking) == [1, 2]
    assert came(looking) == [1]


def test_segments_of_what_is_done_are_removed(opener, tmp_path, monkeypatch):
    """What was delivered or processed frees its room, also across many segments, and what is left is whole."""
    monkeypatch.setattr(log_module, "SEGMENT_SIZE", 2000)
    storage = opener()
    worker = storage.inbox.register()
    for number in range(1, 101):
        send(storage, number)
        push(storage, number, number)
    while (batch := storage.outbox.take(LANE, 7, 1 << 20)) and batch.upto.sequence <= 90:
        storage.outbox.settle(LANE, batch.upto)
    for _ in range(90):
        storage.inbox.settle([Ack(claim) for claim in storage.inbox.claim(["orders"], 1, worker)])
    storage.outbox.sweep(1e9)
    storage.inbox.sweep()
    for half in ("outbox", "inbox"):
        assert len(list(tmp_path.glob(f"{half}/logs/*/*.seg"))) <= 4, half
    left = queued(storage)
    assert left == list(range(left[0], 101))
    assert came(storage) == list(range(91, 101))
    storage.close()
    again = opener()
    assert (queued(again), came(again)) == (left, list(range(91, 101)))
    assert again.outbox.counts()["there", "orders"]["queued"] == len(left)


def test_a_forked_child_does_not_keep_the_locks(opener, tmp_path):
    """A process that died is gone for others, though a child that it forked lives on."""
    storage = opener()

    def live(say):
        say("here")
        signal.pause()

    with Child(live) as child:
        assert child.go().hear() == "here"
        storage.close()
        fd = os.open(tmp_path / "outbox" / "life.lock", os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody has it
        finally:
            os.close(fd)


def test_who_walks_through_all_messages_searches_for_none(opener, monkeypatch):
    """The bytes of what the last page showed are read where they stand; what went meanwhile is not kept."""
    storage = opener()
    placed = send(storage, *range(1, 31))
    push(storage, 1, 30)
    with monkeypatch.context() as patch:
        patch.setattr(LogReader, "find", None)
        deliveries = storage.outbox.scan(Selection(), limit=100)
        infos = storage.inbox.scan(Selection(), limit=100)
        for number in range(30):
            assert storage.outbox.envelope(deliveries[number][1].id) == b"%03d" % (number + 1) * 40
            assert storage.inbox.envelope(infos[number].id) == b"%03d" % (number + 1) * 40
    storage.outbox.settle(LANE, storage.outbox.take(LANE, 10, 10_000).upto)
    assert [storage.outbox.envelope(one.id) is None for one in placed] == [True] * 10 + [False] * 20
