"""Waking a thread that sleeps: at any moment, from anywhere, and never into a file that is another's."""

import os
import select
import threading

import pytest

from dropr_core.system import wake_up
from dropr_core.system.wake_up import WakeUp
from dropr_core.testing.forks import Child


@pytest.fixture
def wake():
    wake = WakeUp()
    yield wake
    wake.close()


def sleeps(wake):
    """Whether its sleeper would sleep."""
    return not select.select([wake], [], [], 0)[0]


def test_it_ends_the_next_sleep_and_no_other(wake):
    """Who is woken before he sleeps does not sleep; what was said is forgotten when he drains it."""
    assert sleeps(wake)
    wake.wake()
    wake.wake()
    assert not sleeps(wake)
    wake.drain()
    assert sleeps(wake)
    wake.drain()


def test_it_never_waits(wake):
    """A sleeper that does not come, as in a stopped process, holds nobody up who wakes it; once he comes it is all
    drained."""
    for _ in range(100_000):
        wake.wake()
    wake.drain()
    assert sleeps(wake)


def test_what_has_ended_is_not_woken():
    """After the end its numbers may be those of another file: nothing is written into that."""
    wake = WakeUp()
    numbers = wake.fileno(), wake.signal_fd()
    wake.close()
    wake.close()
    reading, writing = os.pipe()
    others = [os.dup2(writing, number) for number in numbers if number not in {reading, writing}]
    try:
        wake.wake()
        assert not select.select([reading], [], [], 0)[0]
        assert (wake.fileno(), wake.signal_fd()) == (-1, -1)
    finally:
        for fd in {reading, writing, *others}:
            os.close(fd)


def test_it_does_not_end_while_somebody_wakes(monkeypatch):
    """The sleeper that ends in the middle of a wake-up waits for it: the number is still its own."""
    wake = WakeUp()
    within, go = threading.Event(), threading.Event()
    write = os.write

    def slow(fd, data):
        within.set()
        assert go.wait(60)
        return write(fd, data)

    monkeypatch.setattr(wake_up.os, "write", slow)
    waker = threading.Thread(target=wake.wake)
    waker.start()
    assert within.wait(60)
    ends = threading.Thread(target=wake.close)
    ends.start()
    ends.join(0.05)
    assert ends.is_alive()
    assert wake.signal_fd() >= 0
    go.set()
    waker.join(60)
    ends.join(60)
    assert wake.signal_fd() == -1


def test_a_handler_of_a_signal_may_wake_and_close(monkeypatch):
    """It may run in the thread that is just waking: nothing waits for itself, nothing raises."""
    wake = WakeUp()
    write = os.write
    asked = []

    def interrupted(fd, data):
        if not asked:
            asked.append(fd)
            wake.wake()
            wake.close()
        return write(fd, data)

    monkeypatch.setattr(wake_up.os, "write", interrupted)
    wake.wake()
    assert asked
    assert wake.fileno() == -1


def test_a_forked_child_wakes_nobody_of_its_parent(wake):
    """The sleeper is a thread of the parent; and the lock may be held by a thread that the child does not have."""
    held, free = threading.Event(), threading.Event()

    def hold():
        with wake._turn:
            held.set()
            free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)

    def work(say):
        wake.wake()
        wake.close()
        say("done")

    with Child(work) as child:
        assert child.go().hear(30) == "done"
    free.set()
    holder.join(60)
    assert sleeps(wake)
    wake.wake()
    assert not sleeps(wake)
