"""What stays in memory is told from what others do in the same process."""

import threading
import time
from collections import deque

import pytest

from dropr_core.testing import memory
from dropr_core.testing.memory import kept, peak

ROUNDS = 50


def test_what_a_call_leaves_each_time_is_found_with_its_place():
    """A few bytes a call are enough, and the line that allocates them is named."""
    held = []
    said = kept(lambda: held.append(bytes(200)), ROUNDS, 10)
    assert f"bytes stay after each of {ROUNDS} rounds" in said
    assert "test_memory.py" in said


def test_a_call_that_keeps_nothing_is_measured_once(monkeypatch):
    """It costs one stretch, and no waiting."""
    calls = []
    assert kept(lambda: calls.append(None) or bytes(10_000), ROUNDS, 0) == ""
    assert len(calls) == ROUNDS


@pytest.mark.parametrize("room", [30, 500])
def test_a_full_cache_that_was_there_before_is_no_leak(room):
    """What takes the place of something of which nobody knows the size looks like more, until all of it is new."""
    cache = deque((bytes(1000) for _ in range(room)), maxlen=room)
    assert kept(lambda: cache.append(bytes(1000)), ROUNDS, 0) == ""


def test_what_other_threads_allocate_is_no_leak():
    """Somebody who allocates all the time, whether the call is made or not, does not make it leak."""
    held, ends = [], threading.Event()

    def disturb():
        while not ends.wait(0.001):
            held.append(bytes(20_000))

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert kept(lambda: time.sleep(0.001), ROUNDS, 0) == ""
    finally:
        ends.set()
        thread.join()


def test_a_leak_is_found_beside_other_threads(monkeypatch):
    """What a thread allocates now and then hides no leak that is larger."""
    monkeypatch.setattr(memory, "SETTLING", 3)
    held, noise, ends = [], deque(maxlen=1000), threading.Event()

    def disturb():
        while not ends.wait(0.001):
            noise.append(bytes(10))

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert kept(lambda: held.append(bytes(20_000)), ROUNDS, 0) != ""
    finally:
        ends.set()
        thread.join()


def test_a_peak_is_what_one_call_held_at_a_time():
    """What was let go meanwhile does not count twice."""
    assert 100_000 < peak(lambda: [len(bytes(100_000)) for _ in range(10)]) < 200_000
