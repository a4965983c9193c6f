"""The flush interval: what was committed is flushed soon, what fails is tried again, and idle costs nothing."""

import logging
import threading
from types import SimpleNamespace

import pytest

from dropr_core.errors import Closed, StoreGone, WriteFailed
from dropr_core.system import flusher as flushers
from dropr_core.system.flusher import Flusher

LOG = logging.getLogger("dropr.test.flusher")


class Disk:
    """Something to flush."""

    def __init__(self):
        self.flushes, self.error = 0, None
        self.begun = threading.Semaphore(0)
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.flusher = Flusher(0.001, self.flush, LOG, "flusher")

    def flush(self):
        """As a storage does: clean first, then flush."""
        self.flusher.clean()
        self.flushes += 1
        self.begun.release()
        assert self.goes_on.wait(60)
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def wait(self):
        """Until the next flush has begun."""
        assert self.begun.acquire(timeout=60)


@pytest.fixture
def disk():
    disk = Disk()
    yield disk
    disk.flusher.close()
    disk.flusher.close()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "flusher"]


def test_nothing_runs_before_there_is_something_to_flush(disk):
    """A store that is only read has no thread."""
    assert not threads()
    assert not disk.flusher.dirty
    disk.flusher.mark()
    disk.wait()
    assert len(threads()) == 1


def test_many_commits_have_one_flush(disk):
    """The one that begins after them; what is committed while a flush runs is not covered by that one."""
    disk.goes_on.clear()
    disk.flusher.mark()
    disk.wait()
    for _ in range(100):
        disk.flusher.mark()
    disk.goes_on.set()
    disk.wait()
    disk.flusher.close()
    assert disk.flushes == 2
    assert not disk.flusher.dirty


def test_a_flush_that_fails_is_tried_again(disk, monkeypatch, caplog):
    """Until it succeeds: what was committed is still only in memory."""
    monkeypatch.setattr(flushers, "RETRY", 0.001)
    disk.error = WriteFailed("disk on fire")
    disk.flusher.mark()
    disk.wait()
    disk.wait()
    assert "disk on fire" in caplog.text


@pytest.mark.parametrize("error", [StoreGone("gone"), Closed("closed")])
def test_a_store_that_is_gone_is_left_alone(disk, error):
    """Nobody writes into what is not there any more."""
    disk.error = error
    disk.flusher.mark()
    disk.wait()
    disk.flusher._thread.join(60)
    assert not threads()


def test_after_closing_nothing_begins(disk):
    """What is still dirty is the owner's to flush."""
    disk.flusher.close()
    disk.flusher.mark()
    assert disk.flusher.dirty
    assert not threads()
    assert disk.flushes == 0


def test_a_flush_of_somebody_else_counts(monkeypatch):
    """What was flushed meanwhile needs no other flush, and what was committed after that has an interval of its own."""
    now = [100.0]
    monkeypatch.setattr(flushers.time, "monotonic", lambda: now[0])
    flusher = Flusher(1000.0, lambda: None, LOG, "flusher")
    flusher.mark()
    now[0] += 900.0
    assert flusher._left(1000.0) == 100.0
    flusher.clean()
    assert flusher._left(1000.0) is None
    flusher.mark()
    now[0] += 100.0
    assert flusher._left(1000.0) == 900.0
    flusher.close()


def test_another_flush_covers_what_came_before_it_and_no_more(monkeypatch):
    """The time of what is unflushed runs from the last commit that was flushed in another way, and never backwards."""
    now = [100.0]
    monkeypatch.setattr(flushers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    flusher = Flusher(10.0, lambda: None, LOG, "flusher")
    assert flusher._left(10.0) is None
    flusher.mark()
    now[0] = 108.0
    assert flusher._left(10.0) == 2.0
    flusher.covered(105.0)
    assert flusher._left(10.0) == 7.0
    flusher.covered(103.0)
    assert flusher._left(10.0) == 7.0
    now[0] = 115.0
    assert flusher._left(10.0) == 0.0
    flusher.close()
