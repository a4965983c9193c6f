"""What the storage of plain files does when the disk or the files are not what they should be."""

import errno
import fcntl
import logging
import os
import shutil
import signal
import stat
from pathlib import Path

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.files import log as log_module
from dropr_storage_fs.files.log_reader import LogReader

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Arrival, Job, NewMessage, Selection
from dropr_core.errors import QueueFull, StoreGone, StoreReadOnly, StoreTooNew, WriteFailed
from dropr_core.model.names import START, Head, Lane, MessageId, SourceLane, StoreId
from dropr_core.system.clock import FakeClock
from dropr_core.testing.forks import Child

LANE = Lane("there", "orders", 5)
SOURCE = SourceLane("shop", StoreId(b"store--1"), "orders", 5)


@pytest.fixture
def events():
    return []


@pytest.fixture
def opener(tmp_path, events):
    opened = []

    def open_store(directory=tmp_path, **more):
        values = {
            "node": "n", "data": directory, "clock": FakeClock(), "log": logging.getLogger("t"), "min_free": 0,
            "event": lambda name, details: events.append((name, details)),
        }  # fmt: skip
        opened.append(dropr_storage(Options(reserve=0), Context(**values | more)))
        return opened[-1]

    yield open_store
    for storage in opened:
        storage.close()


def identity(number):
    return MessageId(number.to_bytes(16, "big"))


def send(storage, *numbers, peers=("there",), size=40):
    return storage.outbox.append([NewMessage(identity(n), "orders", 5, peers, b"%03d" % n * size) for n in numbers])


def queued(storage, lane=LANE):
    """Numbers that are queued."""
    page = storage.outbox.scan(Selection(peer=lane.peer), limit=10_000)
    return [int.from_bytes(delivery.id, "big") for _, delivery in page if delivery.state == "queued"]


def push(storage, first, last):
    after = START if first == 1 else Head(first - 1, identity(first - 1))
    jobs = [Job(identity(n), b"%03d" % n * 40, n) for n in range(first, last + 1)]
    return storage.inbox.accept([Arrival(SOURCE, after, Head(last, identity(last)), jobs)])[0]


def came(storage):
    return [int.from_bytes(info.id, "big") for info in storage.inbox.scan(Selection(), 0, 10_000)]


def test_files_are_private_and_names_are_numbers(opener, tmp_path):
    """Modes are 0600 and 0700, and no name of a peer or channel is part of a path."""
    storage = opener()
    storage.outbox.append([NewMessage(identity(1), "../../etc/x", 5, ("there",), b"x")])
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert "etc" not in str(path.relative_to(tmp_path))


# ── damage ───────────────────────────────────────────────────────────────────────────────────────


def damaged(opener, tmp_path, pattern, offsets):
    """For each offset: a copy of a store of 12 messages a half with that byte flipped, opened again."""
    storage = opener(tmp_path / "whole") if (tmp_path / "whole").mkdir() is None else None
    for number in range(1, 13):
        send(storage, number)
        push(storage, number, number)
    storage.close()
    (place,) = (tmp_path / "whole").glob(pattern)
    name, data = place.relative_to(tmp_path / "whole"), place.read_bytes()
    for offset in offsets(data):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        (copy / name).write_bytes(data[:offset] + bytes([data[offset] ^ 0x41]) + data[offset + 1 :])
        yield offset, opener(copy)
        shutil.rmtree(copy)


@pytest.mark.parametrize("half", ["outbox", "inbox"])
def test_fault_52_a_flipped_bit_in_a_log_costs_that_record_alone_and_is_named(half, opener, tmp_path, events):
    """Wherever it is: the store opens, all other messages are read, in order, and an event names the file."""
    pattern = f"{half}/logs/00000/*.seg"

    def offsets(data):
        return range(64, len(data.rstrip(b"\0")), 13)

    for offset, storage in damaged(opener, tmp_path, pattern, offsets):
        events.clear()
        there = queued(storage) if half == "outbox" else came(storage)
        assert there == sorted(there)
        missing = set(range(1, 13)) - set(there)
        assert len(missing) <= 1, f"offset {offset}: {missing} are gone"
        if missing:
            storage.close()
            again = opener(tmp_path / "copy")
            assert len(queued(again) if half == "outbox" else came(again)) == 11, "the second opening sees less"
            again.close()
            storage = opener(tmp_path / "copy")  # noqa: PLW2901
        if missing and missing != {12}:
            assert any(name == "corrupt" and half in details["file"] for name, details in events), f"offset {offset}"
        send(storage, 13)
        assert push(storage, 13, 13).taken or 12 in missing
        assert queued(storage)[-1] == 13
        storage.close()


def test_fault_52_a_flipped_bit_in_a_journal_costs_no_message(opener, tmp_path, events):
    """A journal with damage in its middle still tells the rest, and every message is there."""
    storage = opener(tmp_path / "whole") if (tmp_path / "whole").mkdir() is None else None
    send(storage, 1, peers=("there", "other"))
    for number in range(2, 7):
        send(storage, number)
    for number in (2, 3):
        storage.outbox.cancel(identity(number))
    push(storage, 1, 3)
    storage.close()
    (place,) = (tmp_path / "whole").glob("outbox/journal.*")
    data = place.read_bytes()
    for offset in range(32, len(data), 7):
        events.clear()
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        (copy / place.relative_to(tmp_path / "whole")).write_bytes(
            data[:offset] + bytes([data[offset] ^ 0x41]) + data[offset + 1 :]
        )
        try:
            again = opener(copy)
        except Exception as error:
            raise AssertionError(f"offset {offset} of {len(data)}") from error
        assert {4, 5, 6} <= set(queued(again)), f"offset {offset}: {queued(again)}"
        assert any(name in {"corrupt", "torn"} for name, _ in events), f"offset {offset}: nobody was told"
        again.close()
        shutil.rmtree(copy)


def test_fault_81_a_newer_store_is_refused_untouched(opener, tmp_path):
    """A journal of a later version is refused with a clear text and not changed."""
    from dropr_storage_fs.engine import journal

    opener().close()
    (place,) = tmp_path.glob("inbox/journal.*")
    data = bytearray(place.read_bytes())
    data[8] = 9
    end = journal.START.size
    data[end - 4 : end] = journal.crc32(data[: end - 4]).to_bytes(4, "little")
    place.write_bytes(data)
    with pytest.raises(StoreTooNew, match="9"):
        opener()
    assert place.read_bytes() == data


def test_fault_12_a_half_that_is_gone_is_not_made_anew(opener, tmp_path):
    """A removed directory is said, when opening and while open, and never healed by an empty one."""
    storage = opener()
    send(storage, 1)
    shutil.move(tmp_path / "outbox", tmp_path / "elsewhere")
    with pytest.raises(StoreGone):
        send(storage, 2)
    with pytest.raises(StoreGone):
        opener()
    shutil.move(tmp_path / "elsewhere", tmp_path / "outbox")
    assert queued(opener()) == [1]


# ── errors of the disk ───────────────────────────────────────────────────────────────────────────


def failing(monkeypatch, name, number, *, skip=0, times=1):
    """Let a call of the operating system fail."""
    real, calls = getattr(os, name), []

    def broken(*values):
        calls.append(values)
        if skip < len(calls) <= skip + times:
            raise OSError(number, os.strerror(number))
        return real(*values)

    monkeypatch.setattr(os, name, broken)
    return calls


@pytest.mark.parametrize("skip", range(4))
def test_fault_8_an_error_of_fdatasync_is_a_failed_write(skip, opener, monkeypatch, events):
    """The call fails, nothing of it is stored, the file is not flushed again, and the next call goes through."""
    storage = opener()
    send(storage, 1, peers=("there", "other"))
    push(storage, 1, 1)
    with monkeypatch.context() as patch:
        failing(patch, "fdatasync", errno.EIO, skip=skip)
        done, number = [], 2
        for _ in range(4):
            try:
                send(storage, number, peers=("there", "other"))
                done.append(number)
            except WriteFailed:
                pass
            number += 1
        assert len(done) == 3
    assert queued(storage) == [1, *done]
    assert queued(storage, LANE._replace(peer="other")) == [1, *done]
    assert any(name == "write_failed" for name, _ in events)
    storage.close()
    again = opener()
    assert queued(again) == queued(again, LANE._replace(peer="other")) == [1, *done]
    assert came(again) == [1]


def test_fault_8_a_push_that_failed_may_come_again(opener, monkeypatch):
    """After an error of fdatasync the head stands where it stood, and the same push is taken."""
    storage = opener()
    push(storage, 1, 2)
    for name in ("fdatasync", "fdatasync"):
        with monkeypatch.context() as patch:
            failing(patch, name, errno.EIO)
            with pytest.raises(WriteFailed):
                push(storage, 3, 4)
        assert storage.inbox.heads("shop")[SOURCE].sequence == 2
        assert came(storage) == [1, 2]
    assert push(storage, 3, 4).taken
    assert came(storage) == [1, 2, 3, 4]
    storage.close()
    assert came(opener()) == [1, 2, 3, 4]


@pytest.mark.parametrize("again", [False, True])
def test_fault_8_whoever_waited_for_the_same_flush_is_told(again, opener, monkeypatch):
    """Another process's flush fails, and what was not flushed is cut off: nobody may take it for stored."""
    storage, other = opener(), opener()
    send(storage, 1)
    real, calls = os.fdatasync, []

    def meanwhile(fd):
        calls.append(fd)
        if len(calls) == 1:  # of the first, under way: the other one writes, and fails
            with pytest.raises(WriteFailed):
                send(other, 3)
            if again:
                send(other, 4)
        elif len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", meanwhile)
        with pytest.raises(WriteFailed):
            send(storage, 2)
    assert queued(storage) == queued(other) == ([1, 4] if again else [1])
    send(storage, 5)
    assert queued(other)[-1] == 5


@pytest.mark.parametrize("skip", range(6))
def test_fault_9_a_full_disk_stores_nothing_by_halves(skip, opener, monkeypatch):
    """ENOSPC at any write: QueueFull, and either all of the call is there or nothing; then it goes on."""
    storage = opener()
    send(storage, 1)
    push(storage, 1, 1)
    sent, taken = [1], 1
    with monkeypatch.context() as patch:
        failing(patch, "pwrite", errno.ENOSPC, skip=skip, times=2)
        for number in range(2, 7):
            try:
                send(storage, number, number + 100, peers=("there", "other"))
                sent += [number, number + 100]
            except QueueFull:
                pass
            try:
                push(storage, taken + 1, taken + 2)
                taken += 2
            except QueueFull:
                pass
    assert queued(storage) == sent
    assert queued(storage, LANE._replace(peer="other")) == sent[1:]
    assert came(storage) == list(range(1, taken + 1))
    send(storage, 200)
    storage.close()
    again = opener()
    assert queued(again) == [*sent, 200]
    assert came(again) == list(range(1, taken + 1))


def test_a_failed_flush_leaves_the_acknowledged_alone(opener, monkeypatch):
    """Acks that were promised before an error stay done; what was written again is written to another file."""
    storage = opener()
    push(storage, 1, 3)
    worker = storage.inbox.register()
    storage.inbox.settle([Ack(claim) for claim in storage.inbox.claim(["orders"], 2, worker)])
    storage.inbox.flush()
    with monkeypatch.context() as patch:
        failing(patch, "fdatasync", errno.EIO)
        with pytest.raises(WriteFailed):
            push(storage, 4, 4)
    assert came(storage) == [3]
    assert push(storage, 4, 4).taken
    storage.close()
    assert came(opener()) == [3, 4]


# ── looking ──────────────────────────────────────────────────────────────────────────────────────


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


# ── segments ─────────────────────────────────────────────────────────────────────────────────────


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


def test_the_reading_of_a_log_that_lost_a_segment_goes_on(opener, tmp_path, monkeypatch, events):
    """A segment with a damaged header is named; those before and behind it are read."""
    monkeypatch.setattr(log_module, "SEGMENT_SIZE", 2000)
    storage = opener()
    for number in range(1, 61):
        send(storage, number)
    storage.close()
    places = sorted(tmp_path.glob("outbox/logs/*/*.seg"))
    assert len(places) > 3
    places[1].write_bytes(b"garbage!" + places[1].read_bytes()[8:])
    again = opener()
    there = queued(again)
    assert there[0] == 1
    assert there[-1] == 60
    assert 30 < len(there) < 60
    assert any(name == "corrupt" and places[1].name in details["file"] for name, details in events)
    assert places[1].exists(), "what cannot be read is evidence"


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
