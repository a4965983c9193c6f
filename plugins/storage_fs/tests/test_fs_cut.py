"""What was taken back or given up is gone, though the failing disk kept it from being cut off."""

import errno
import os

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.engine.replica import Replica
from dropr_storage_fs.files import disk

from dropr_core.contracts.storage import Arrival, Job, NewMessage, Put, Selection
from dropr_core.errors import StoreError
from dropr_core.model.names import START, Head, MessageId, SourceLane, StoreId
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import make_context

SOURCE = SourceLane("shop", StoreId(b"store--1"), "orders", 5)


def identity(number):
    return MessageId(number.to_bytes(16, "big"))


@pytest.fixture
def storage(tmp_path):
    opened = dropr_storage(Options(reserve=0, flush=600.0), make_context(tmp_path, FakeClock()))
    yield opened
    opened.close()


def push(storage, number):
    """One message of a lane; its head then."""
    after = Head(number - 1, identity(number - 1)) if number > 1 else START
    job = Job(identity(number), b"envelope", number)
    return storage.inbox.accept([Arrival(SOURCE, after, Head(number, identity(number)), [job])])[0].head.sequence


def send(storage, number):
    """One message that is known by its content; whether it was sent before."""
    message = NewMessage(identity(number), "orders", 5, ("there",), b"envelope", fingerprint=b"f" * 16)
    return storage.outbox.append([message])[0].existed


def read_only(*_):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def fail_to_write(patched):
    """The frame is in its log, and the disk turns read-only before the journal is written."""
    patched.setattr(Replica, "write_journal", lambda *_, **__: read_only())


def fail_to_flush(patched):
    """Both are written, and nothing can be flushed."""
    patched.setattr(disk, "flush_file", read_only)


def set_right(half):
    """What the next who writes does after a flush that failed."""
    with half._lock:
        half._replica.follow()
        half._recovery.start_over()


@pytest.mark.parametrize("fail", [fail_to_write, fail_to_flush])
@pytest.mark.parametrize("times", [1, 2])
def test_a_message_whose_disk_failed_is_taken_when_it_comes_again(storage, fail, times):
    """The sender is not told that it is there: the frame that could not be cut off counts for nothing."""
    assert push(storage, 1) == 1
    engine = storage.inbox.engine
    with pytest.MonkeyPatch.context() as patched:
        fail(patched)
        patched.setattr(os, "ftruncate", read_only)
        for _ in range(times):
            with pytest.raises(StoreError):
                push(storage, 2)
    set_right(engine)
    assert [head.sequence for head in storage.inbox.heads("shop").values()] == [1]
    assert push(storage, 2) == 2
    assert [one.id for one in storage.inbox.scan(Selection())] == [identity(1), identity(2)]


@pytest.mark.parametrize("fail", [fail_to_write, fail_to_flush])
def test_a_send_that_failed_is_not_known_by_its_content(storage, fail):
    """Whoever sends it again with the same key has it stored, and is not told that it was."""
    assert not send(storage, 1)
    engine = storage.outbox.engine
    with pytest.MonkeyPatch.context() as patched:
        fail(patched)
        patched.setattr(os, "ftruncate", read_only)
        with pytest.raises(StoreError):
            send(storage, 2)
    set_right(engine)
    assert not send(storage, 2)
    assert [one.id for _, one in storage.outbox.scan(Selection())] == [identity(1), identity(2)]


@pytest.mark.parametrize("half", ["outbox", "inbox"])
def test_nobody_is_told_of_a_twin_whose_flush_may_still_fail(storage, tmp_path, monkeypatch, half):
    """Who sends or puts the same again while the first one flushes is not told that it is there."""
    job = Job(identity(9), b"envelope", possible_duplicate=True)

    def put(where):
        return send(where, 9) if half == "outbox" else where.inbox.put_all([Put("orders", 5, "n", [job])])

    other = dropr_storage(Options(reserve=0, flush=600.0), make_context(tmp_path, FakeClock()))
    push(storage, 1)  # queue and lane are there
    send(storage, 1)
    told = []

    def flush(_fd):
        monkeypatch.setattr(disk, "flush_file", read_only)
        try:
            told.append(put(other))
        except StoreError:
            told.append("failed")
        read_only()

    monkeypatch.setattr(disk, "flush_file", flush)
    with pytest.raises(StoreError):
        put(storage)
    assert told == ["failed"]
    other.close()


def head(storage):
    return max(storage.inbox.heads("shop").values()).sequence


@pytest.mark.parametrize("ask", [lambda other: push(other, 2), head], ids=["push again", "heads"])
def test_nobody_is_told_of_a_message_whose_flush_may_still_fail(storage, tmp_path, monkeypatch, ask):
    """Another process is asked while the first one flushes: it flushes too, and fails with it."""
    other = dropr_storage(Options(reserve=0, flush=600.0), make_context(tmp_path, FakeClock()))
    assert push(storage, 1) == 1
    told = []

    def flush(_fd):
        monkeypatch.setattr(disk, "flush_file", read_only)
        try:
            told.append(ask(other))
        except StoreError:
            told.append("failed")
        read_only()

    monkeypatch.setattr(disk, "flush_file", flush)
    with pytest.raises(StoreError):
        push(storage, 2)
    assert told == ["failed"]
    monkeypatch.undo()
    assert push(other, 2) == 2
    assert [one.id for one in storage.inbox.scan(Selection())] == [identity(1), identity(2)]
    other.close()
