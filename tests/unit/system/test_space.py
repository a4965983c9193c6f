"""Room on the disk: the floor, and the reserve."""

import errno
import os
import threading
import types

import pytest

from dropr_core.errors import QueueFull
from dropr_core.system.clock import FakeClock
from dropr_core.system.space import CHECK_EVERY, GIB, Space, floor_of


@pytest.fixture
def clock():
    """A clock that the test moves."""
    return FakeClock()


def disk(monkeypatch, free, total=100 * GIB):
    """The disk has so many bytes free."""
    answer = types.SimpleNamespace(f_bavail=free, f_blocks=total, f_frsize=1)
    monkeypatch.setattr("dropr_core.system.space.os.statvfs", lambda _path: answer)
    monkeypatch.setattr("dropr_core.system.space.os.fstatvfs", lambda _fd: answer)


def test_the_floor_is_the_larger_of_a_gibibyte_and_two_percent():
    """Unless the user says another one; 0 is none."""
    assert floor_of(10 * GIB, None) == GIB
    assert floor_of(100 * GIB, None) == 2 * GIB
    assert floor_of(100 * GIB, 5) == 5
    assert floor_of(100 * GIB, 0) == 0


def test_below_the_floor_nothing_more_is_taken_until_there_is_room(monkeypatch, tmp_path, clock):
    """QueueFull names the directory and the floor; the first call after room was made goes through."""
    space = Space(tmp_path, clock, None, 0, "outbox.reserve")
    disk(monkeypatch, GIB)
    with pytest.raises(QueueFull, match="floor"):
        space.check()
    disk(monkeypatch, 3 * GIB)
    space.check()


def test_a_reserve_that_was_given_up_is_made_again_when_there_is_room(monkeypatch, tmp_path, clock):
    """Also without a floor and without a sweep: whoever sends looks at most twice a second."""
    space, reserve = Space(tmp_path, clock, 0, 65536, "inbox.reserve"), tmp_path / "inbox.reserve"
    space.keep_reserve()
    assert reserve.stat().st_size == 65536
    assert reserve.stat().st_blocks * 512 >= 65536, "it has to hold blocks, not only a size"
    full = QueueFull("full")
    full.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert space.relieve(full)
    assert not space.relieve(full), "it can be given up once"
    disk(monkeypatch, 65536)
    clock.advance(CHECK_EVERY)
    space.check()
    assert not reserve.exists(), "there is no room for one"
    disk(monkeypatch, GIB)
    clock.advance(CHECK_EVERY)
    space.check()
    assert reserve.stat().st_size == 65536


@pytest.mark.parametrize("cause", [None, OSError(errno.EMFILE, "many files")])
def test_the_reserve_is_not_spent_where_room_does_not_help(tmp_path, clock, cause):
    """A limit of the user, or file handles that are missing, leave it where it is."""
    space = Space(tmp_path, clock, 0, 65536, "inbox.reserve")
    space.keep_reserve()
    full = QueueFull("full")
    full.__cause__ = cause
    assert not space.relieve(full)
    assert (tmp_path / "inbox.reserve").exists()


def test_without_a_reserve_nothing_is_made(tmp_path, clock):
    """``reserve: 0`` leaves no file."""
    space = Space(tmp_path, clock, 0, 0, "inbox.reserve")
    space.keep_reserve()
    space.check()
    assert list(tmp_path.iterdir()) == []


def test_a_question_under_way_is_no_answer(monkeypatch, tmp_path, clock):
    """While one thread waits for the first answer of a slow disk, another one asks for itself: it is not full."""
    disk(monkeypatch, 50 * GIB)
    real, asked, answered = os.statvfs, threading.Event(), threading.Event()
    first = threading.Lock()

    def slow(path):
        if first.acquire(blocking=False):
            asked.set()
            assert answered.wait(30)
        return real(path)

    monkeypatch.setattr("dropr_core.system.space.os.statvfs", slow)
    space = Space(tmp_path, clock, None, 0, "outbox.reserve")
    waiting = threading.Thread(target=space.check)
    waiting.start()
    try:
        assert asked.wait(30)
        space.check()
    finally:
        answered.set()
        waiting.join(30)
