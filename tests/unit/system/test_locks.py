"""Locks that die with their process, however it ends, and with nobody else's."""

import os
import signal

import pytest

from dropr_core.errors import Held
from dropr_core.system.locks import FileLock, is_held


def test_one_holder_and_the_other_is_told_who_it_is(tmp_path):
    """The error names the process to stop; after a release the lock is free, and twice is nothing."""
    path = tmp_path / "lock"
    first, second = FileLock(path), FileLock(path)
    assert not is_held(path)
    first.acquire("daemon")
    assert is_held(path)
    with pytest.raises(Held, match=f"{path} is held by pid {os.getpid()} daemon; stop that process first"):
        second.acquire()
    first.release()
    first.release()
    assert not is_held(path)
    second.acquire("another purpose")
    assert path.read_text() == f"pid {os.getpid()} another purpose\n"
    second.release()


def test_looking_at_a_lock_does_not_take_it(tmp_path):
    """Nor does it make the file."""
    assert not is_held(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    lock.release()
    assert not is_held(lock.path)
    lock.acquire()
    lock.release()


def test_a_refused_lock_keeps_no_descriptor(tmp_path):
    """Who tries again and again runs out of nothing."""
    first = FileLock(tmp_path / "lock")
    first.acquire()
    numbers = set()
    for _ in range(5):
        with pytest.raises(Held):
            FileLock(first.path).acquire()
        fd = os.open(tmp_path, os.O_RDONLY)
        numbers.add(fd)
        os.close(fd)
    assert len(numbers) == 1
    first.release()


def test_a_killed_process_holds_nothing(tmp_path):
    """The kernel gives its lock up; nobody has to clean up."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        lock = FileLock(tmp_path / "lock")
        lock.acquire("child")
        os.write(writing, b"x")
        signal.pause()
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    assert is_held(tmp_path / "lock")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not is_held(tmp_path / "lock")
    os.close(reading)


def test_a_forked_child_cannot_keep_the_lock_of_its_parent(tmp_path):
    """It lives on after the parent has given the lock up, and the next one gets it."""
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"x")
        signal.pause()
    try:
        assert os.read(reading, 1) == b"x"
        assert is_held(lock.path)
        lock.release()
        assert not is_held(lock.path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_a_link_is_not_followed(tmp_path):
    """What another user put in the place of the lock is refused, and not written to."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(tmp_path / "lock").acquire()
    assert (tmp_path / "victim").read_text() == "precious"
