"""The main loop: nothing that should wake it is lost, whenever it comes.

A wake-up that is lost makes the test sleep for an hour, and its time-out fail it.
"""

import os
import select
import signal
import threading
import time

import pytest

from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat
from dropr_core.processes.mainloop import MainLoop


@pytest.fixture
def loop():
    with MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL)) as loop:
        yield loop


def test_what_was_posted_is_done_in_order_and_once(loop):
    """By the loop's own thread; what a call posts is for the next turn."""
    done = []
    loop.post(lambda: done.append(1))
    loop.post(lambda: (done.append(2), loop.post(lambda: done.append(3))))
    assert loop.run_posts() == 2
    assert done == [1, 2]
    assert loop.run_posts() == 1
    assert loop.run_posts() == 0
    assert done == [1, 2, 3]


def test_a_post_before_the_sleep_ends_it_at_once(loop):
    """The moment between looking and sleeping is the one in which wake-ups get lost."""
    loop.post(lambda: None)
    loop.sleep(None)
    loop.run_posts()
    loop.wake()
    loop.sleep(None)


def test_a_post_of_another_thread_ends_the_sleep(loop):
    """However long that was meant to be."""
    done = threading.Event()
    thread = threading.Timer(0.01, lambda: loop.post(done.set))
    thread.start()
    while not loop.run_posts():
        loop.sleep(None)
    thread.join()
    assert done.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_ends_the_sleep(loop, number):
    """Also one that comes just before it; Ctrl-C is no KeyboardInterrupt in the middle of a turn."""
    os.kill(os.getpid(), number)
    loop.sleep(None)
    assert loop.stopping
    assert not loop.reload


def test_sighup_asks_for_a_reload_and_ends_nothing(loop):
    """The owner of the loop clears it."""
    os.kill(os.getpid(), signal.SIGHUP)
    loop.sleep(None)
    assert (loop.reload, loop.stopping) == (True, False)


def test_a_readable_descriptor_ends_the_sleep(loop):
    """What it has to say is left for its owner to read."""
    reading, writing = os.pipe()
    os.write(writing, b"x")
    loop.sleep(None, reading)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)


def test_it_never_wakes_before_the_time(loop):
    """A fraction of a millisecond too early, again and again, is a busy loop."""
    for milliseconds in (0.2, 0.9, 1.5):
        begun = time.monotonic()
        loop.sleep(milliseconds / 1000)
        assert time.monotonic() - begun >= milliseconds / 1000


def test_signals_are_what_they_were_afterwards():
    """A process may have more than one loop in its life, and tests have many."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL)):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_after_closing_a_wake_up_harms_nobody():
    """A thread may post while the process ends; the descriptor may be somebody else's by then."""
    loop = MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL))
    number = loop._wake.signal_fd()
    loop.close()
    loop.close()
    reading, writing = os.pipe()
    os.dup2(writing, number)
    try:
        loop.wake()
        loop.post(lambda: None)
        assert not select.select([reading], [], [], 0)[0]
    finally:
        for fd in {reading, writing, number}:
            os.close(fd)
