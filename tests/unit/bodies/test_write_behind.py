"""Large bodies are written by a thread of their own: errors come through, and what is stored is what was hashed."""

import errno
import io
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from dropr_core.api.body_source import Rejoined
from dropr_core.bodies import write_behind
from dropr_core.bodies.files import PIECE, BodyFile
from dropr_core.bodies.store import BodyFiles
from dropr_core.bodies.write_behind import STROKE, SYNC_EVERY, UNSYNCED, EarlySync
from dropr_core.errors import QueueFull, TooBig, WriteFailed
from dropr_core.model.chunk_digest import digest_of, leaves_of
from dropr_core.model.names import IdMaker

make = IdMaker()
DATA = os.urandom(3 * SYNC_EVERY + 1000)


BEFORE = set[threading.Thread]()
"""Threads that earlier tests of this process have left, of the same names."""


@pytest.fixture
def bodies(tmp_path):
    BEFORE.clear()
    BEFORE.update(threading.enumerate())
    return BodyFiles(tmp_path / "bodies", 0)


def stored(bodies, written):
    written.release()
    path = next((bodies.directory / "sent").iterdir())
    return path.read_bytes()[: written.reference.size]


def threads():
    return [thread.name for thread in set(threading.enumerate()) - BEFORE if thread.name.startswith("dropr-body")]


def struck(monkeypatch, name, number, after):
    """The call ``name`` of `os` fails once it was made ``after`` times; returns the numbers of calls."""
    calls, real = [], getattr(os, name)

    def call(*words):
        calls.append(words)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))
        return real(*words)

    monkeypatch.setattr(write_behind.os, name, call)
    return calls


@pytest.mark.parametrize(
    ("name", "number", "after", "error"),
    [
        ("write", errno.ENOSPC, 20, QueueFull),
        ("write", errno.EIO, 60, WriteFailed),
        ("fdatasync", errno.EIO, 0, WriteFailed),
    ],
)
def test_an_error_behind_is_told_and_nothing_stays(bodies, monkeypatch, name, number, after, error):
    """Whichever piece or sync meets it, the send fails, its file goes, and so do the threads."""
    struck(monkeypatch, name, number, after)
    with pytest.raises(error):
        bodies.write(make(), io.BytesIO(DATA))
    assert list((bodies.directory / "sent").iterdir()) == []
    assert threads() == []


def test_an_error_of_the_last_early_sync_is_told(bodies, monkeypatch):
    """The final sync need not repeat what an earlier one was told of: the kernel says it once."""
    calls = struck(monkeypatch, "fdatasync", errno.EIO, 0)
    with pytest.raises(WriteFailed):
        bodies.write(make(), io.BytesIO(DATA[: SYNC_EVERY + PIECE]))
    assert len(calls) == 1


def test_too_long_a_stream_ends_the_threads_before_the_file_is_closed(bodies):
    """What is still waiting to be written goes to no file, least of all to the next one with the same number."""
    with pytest.raises(TooBig):
        bodies.write(make(), io.BytesIO(DATA), limit=2 * SYNC_EVERY)
    assert threads() == []
    assert list((bodies.directory / "sent").iterdir()) == []


def test_the_disk_has_work_before_the_end(bodies, monkeypatch):
    """A body is synced as it grows, so that nobody else's commit waits for all of it."""
    calls = struck(monkeypatch, "fdatasync", errno.EIO, 100)
    assert stored(bodies, bodies.write(make(), io.BytesIO(DATA))) == DATA
    assert len(calls) in {1, 2}  # for 12 MiB, the first of which the caller wrote; fewer where the first takes long


class SlowDisk:
    """Syncs that end when they are waited for, or are told to; each notes what it met."""

    def __init__(self):
        self.begun, self.waited = [], 0
        self.queued = False
        """Whether the syncs of other bodies come first."""
        self.error = None

    def submit(self, call, fd):
        assert (call, fd) == (os.fdatasync, 7)
        disk = self

        class Sync(Future):
            def result(self, timeout=None):
                disk.waited += not self.done()
                self.end()
                return super().result(timeout)

            def end(self):
                if self.done():
                    return
                if disk.error is None:
                    self.set_result(None)
                else:
                    self.set_exception(disk.error)

        sync = Sync()
        if not self.queued:
            sync.set_running_or_notify_cancel()
        self.begun.append(sync)
        return sync


def test_writing_goes_on_while_a_sync_is_under_way():
    """The next piece waits for no disk; but it does before a slow one is behind by more than it may be."""
    disk = SlowDisk()
    early = EarlySync(7, disk)
    early.wrote(SYNC_EVERY)
    early.wrote(UNSYNCED - 1)
    assert (len(disk.begun), disk.waited) == (1, 0)
    early.wrote(1)
    assert (len(disk.begun), disk.waited) == (2, 1)
    assert not early.behind


def test_the_next_sync_begins_with_the_first_piece_after_one():
    """What gathered while the disk was busy is given to it as soon as it is not."""
    disk = SlowDisk()
    early = EarlySync(7, disk)
    early.wrote(SYNC_EVERY)
    early.wrote(SYNC_EVERY)
    disk.begun[0].end()
    early.wrote(1)
    assert (len(disk.begun), disk.waited) == (2, 0)
    assert not early.behind


def test_a_body_does_not_go_ahead_of_syncs_that_have_not_begun():
    """Where many bodies come at once each of them waits for its turn: together they would leave the disk too much."""
    disk = SlowDisk()
    disk.queued = True
    early = EarlySync(7, disk)
    early.wrote(SYNC_EVERY)
    early.wrote(SYNC_EVERY)
    assert (len(disk.begun), disk.waited) == (2, 1)


@pytest.mark.parametrize("more", [0, 1, SYNC_EVERY, UNSYNCED])
def test_an_error_of_a_sync_is_told_however_much_was_written_meanwhile(more):
    """By the next piece that waits for it, or at the end: the final sync would not hear of it."""
    disk = SlowDisk()
    disk.error = OSError(errno.EIO, "planted")
    early = EarlySync(7, disk)
    early.wrote(SYNC_EVERY)
    with pytest.raises(OSError, match="planted"):
        early.wrote(more)
        early.wait()


def test_without_threads_the_caller_writes(bodies, monkeypatch):
    """Where no thread is to be had a body is stored all the same."""

    def none(*_args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", none)
    written = bodies.write(make(), io.BytesIO(DATA))
    assert written.reference.digest == digest_of(leaves_of(DATA))
    assert stored(bodies, written) == DATA


def test_a_source_that_uses_its_buffer_again_is_stored_as_it_was_hashed(bodies, monkeypatch):
    """A piece that its source changes before it is written was taken as it was."""
    over, write = threading.Event(), os.write

    def late(*words):
        assert threading.current_thread() is threading.main_thread() or over.wait(60)
        return write(*words)

    class Reusing:
        def __init__(self):
            self.buffer, self.left = bytearray(PIECE), 7

        def read(self, _size):
            self.left -= 1
            self.buffer[:] = bytes([self.left]) * PIECE
            if not self.left:
                over.set()
            return self.buffer if self.left else b""

    monkeypatch.setattr(write_behind.os, "write", late)
    written = bodies.write(make(), Reusing())
    data = stored(bodies, written)
    assert data == b"".join(bytes([number]) * PIECE for number in range(6, 0, -1))
    assert written.reference.digest == digest_of(leaves_of(data))


def test_a_body_of_one_piece_needs_no_thread(bodies, monkeypatch):
    """Most bodies are short: they pay for no thread."""
    monkeypatch.setattr(write_behind, "ThreadPoolExecutor", None)
    data = DATA[:PIECE]
    assert stored(bodies, bodies.write(make(), io.BytesIO(data))) == data


def test_bodies_are_written_in_round_strokes(bodies, monkeypatch):
    """Though a stream's beginning was read before, each write but the last is a stroke, at a multiple of it."""
    calls = struck(monkeypatch, "write", errno.EIO, 10_000)
    source = io.BytesIO(DATA)
    stored(bodies, bodies.write(make(), Rejoined(source.read(65_537), source)))
    sizes = [len(words[1]) for words in calls][: len(DATA) // STROKE]
    assert sizes == [STROKE] * len(sizes)


def test_what_has_passed_is_a_hint_and_no_use_of_a_closed_file(bodies, monkeypatch):
    """The kernel is told of bytes that nobody wants again, and never with the number of a file that was closed."""
    identity = make()
    written = bodies.write(identity, io.BytesIO(DATA))
    written.release()
    told = struck(monkeypatch, "posix_fadvise", errno.EINVAL, 0)
    load = bodies.load(identity, written.reference)
    assert isinstance(load, BodyFile)
    load.passed(0, PIECE)
    assert [words[1:3] for words in told] == [(0, PIECE)]
    assert load.read(0, 100) == DATA[:100]
    load.close()
    load.passed(PIECE, PIECE)
    assert len(told) == 1
