"""Wake-ups between processes: none is lost, nobody is in the way of a sender."""

import os
import shutil
import threading
import time

import pytest
from unit.system.wakeups import LONG, fifos, python, readable

from dropr_core.errors import Closed, WriteFailed
from dropr_core.system import notifier as notifier_module
from dropr_core.system.notifier import Notifier

NOTIFY = """
import sys, pathlib
from dropr_core.system.notifier import Notifier
Notifier(pathlib.Path(sys.argv[1])).notify(sys.argv[2])
"""


def test_a_ring_in_another_process_wakes_a_sleeper(notifier):
    """A process that notifies wakes one that sleeps in another."""
    with notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        child = python(NOTIFY, notifier.directory, "outbox")
        assert readable(subscription, LONG)
        assert subscription.wait(LONG)
        assert child.wait(LONG) == 0
        assert not readable(subscription)


def test_a_ring_wakes_only_its_own_topics(notifier):
    """A subscription on two topics hears both of them and no third."""
    with notifier.subscribe("inbox:a", "inbox:b/../c", "inbox:a") as subscription:
        for topic, heard in (("inbox:a", True), ("inbox:x", False), ("inbox:b/../c", True)):
            subscription.prepare()
            notifier.notify(topic)
            assert subscription.wait(0) is heard
    assert all(len(path.name) == 32 and path.stat().st_mode & 0o777 == 0o700 for path in notifier.directory.iterdir())
    assert notifier.directory.stat().st_mode & 0o777 == 0o700


def test_every_ear_of_a_topic_is_rung(notifier):
    """One notification wakes all listeners of its topic."""
    subscriptions = [notifier.subscribe("control") for _ in range(5)]
    for subscription in subscriptions:
        subscription.prepare()
    notifier.notify("control")
    assert all(subscription.wait(0) for subscription in subscriptions)
    for subscription in subscriptions:
        subscription.close()


def test_ringing_costs_no_system_call_while_nobody_waits(notifier, monkeypatch):
    """A sender pays nothing for a subscription that is awake: the flag is a byte in memory."""
    with notifier.subscribe("outbox") as subscription:
        notifier.notify("outbox")
        for name in ("open", "listdir", "scandir", "stat", "write", "pwrite"):
            monkeypatch.setattr(os, name, lambda *_, **__: pytest.fail("a system call"))
        for _ in range(100):
            notifier.notify("outbox")
        monkeypatch.undo()
        assert not readable(subscription)


def test_a_second_ring_is_free_until_the_ear_arms_again(notifier):
    """A burst of sends notifies a sleeper once."""
    with notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        for _ in range(100):
            notifier.notify("outbox")
        assert os.read(subscription.fileno(), 4096) == b"!"


def test_a_ring_between_arm_and_wait_is_kept(notifier):
    """What is notified after prepare() ends the wait that follows; prepare() forgets what was notified before."""
    with notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        notifier.notify("outbox")
        assert subscription.wait(0)
        subscription.prepare()
        notifier.notify("outbox")
        subscription.prepare()
        assert not subscription.wait(0)


def test_wait_arms_by_itself(notifier):
    """A subscription that was not prepared since its last wake-up is notified all the same."""
    with notifier.subscribe("outbox") as subscription:
        assert not subscription.wait(0)
        assert not subscription.wait(0)
        notifier.notify("outbox")
        assert subscription.wait(0)


def test_close_is_safe_twice_and_the_closed_ear_says_so(notifier):
    """A closed subscription leaves no FIFO behind and raises Closed when it is used."""
    subscription = notifier.subscribe("outbox")
    subscription.close()
    subscription.close()
    subscription.wake()
    assert fifos(notifier) == []
    for use in (subscription.prepare, subscription.drain, subscription.fileno, lambda: subscription.wait(0)):
        with pytest.raises(Closed):
            use()
    notifier.notify("outbox")
    notifier.close()
    notifier.close()


def test_a_vanished_directory_breaks_no_sender(notifier, tmp_path):
    """Ringing raises nothing where the directory is gone, and works again in a new one; listening says why not."""
    with notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        shutil.rmtree(notifier.directory)
        notifier.notify("outbox")
    with notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        notifier.notify("outbox")
        assert readable(subscription)
    gone = Notifier(tmp_path / "no" / "notifier")
    gone.notify("outbox")
    assert not gone.directory.parent.exists()
    with pytest.raises(WriteFailed, match="cannot listen"):
        gone.subscribe("outbox")


def test_a_forked_child_lets_go_of_its_parents_ears(notifier):
    """The child cannot use the subscription, does not remove its FIFO, and does not keep it alive."""
    with notifier.subscribe("outbox") as subscription:
        child = os.fork()
        if child == 0:
            try:
                subscription.prepare()
            except Closed:
                subscription.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        subscription.prepare()
        notifier.notify("outbox")
        assert readable(subscription)


def test_another_thread_can_rouse_a_sleeper(notifier):
    """Stopping a thread that sleeps in wait() needs no second pipe."""
    with notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        thread = threading.Thread(target=subscription.wake)
        thread.start()
        assert readable(subscription, LONG)
        assert subscription.wait(LONG)
        thread.join()


def test_wait_also_watches_other_files(notifier):
    """A pipe given to wait() ends it."""
    read, write = os.pipe()
    with notifier.subscribe("outbox") as subscription:
        os.write(write, b"x")
        assert subscription.wait(LONG, [read])
    os.close(read)
    os.close(write)


def test_a_sleeper_looks_again_although_nobody_rang(notifier, monkeypatch):
    """A sender killed between its commit and its notification delays a message by seconds, not for ever."""
    monkeypatch.setattr(notifier_module, "LOOK_AGAIN", 0.01)
    with notifier.subscribe("outbox") as subscription:
        assert subscription.wait(None)
        assert subscription.wait(LONG)
        assert not subscription.wait(0.01)


PRODUCE = """if True:
    import os, sys, pathlib; from dropr_core.system.notifier import Notifier
    notifier, queue = Notifier(pathlib.Path(sys.argv[1])), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    for number in range(int(sys.argv[3])):
        os.write(queue, b"x")
        notifier.notify("inbox:a" if number % 2 else "inbox:b")
"""


@pytest.mark.parametrize("producers", [1, 3])
def test_no_wake_up_is_lost_between_processes(notifier, tmp_path, monkeypatch, producers):
    """A consumer that sleeps whenever the queue looks empty gets every item, notified for only once."""
    monkeypatch.setattr(notifier_module, "LOOK_AGAIN", LONG)  # nothing but the notification may wake it
    queue, count = tmp_path / "queue", 2000
    queue.touch()
    with notifier.subscribe("inbox:a", "inbox:b") as subscription:
        children = [python(PRODUCE, notifier.directory, queue, count) for _ in range(producers)]
        seen = 0
        while seen < producers * count:
            subscription.prepare()
            size = queue.stat().st_size
            if size > seen:
                seen = size
            else:
                started = time.monotonic()
                subscription.wait(LONG)
                assert time.monotonic() - started < LONG, f"slept on after {seen} items"
        assert all(child.wait(LONG) == 0 for child in children)


def test_no_wake_up_is_lost_between_threads(notifier, monkeypatch):
    """Ping-pong of two threads, each asleep before the other notifies: 2,000 times, no hang."""
    monkeypatch.setattr(notifier_module, "LOOK_AGAIN", LONG)
    turns = [0]
    stuck = []

    def play(me, mine, other):
        with notifier.subscribe(mine) as subscription:
            while turns[0] < 2000:
                subscription.prepare()
                if turns[0] % 2 == me:
                    turns[0] += 1
                    notifier.notify(other)
                else:
                    started = time.monotonic()
                    subscription.wait(LONG)
                    if time.monotonic() - started >= LONG:
                        stuck.append(turns[0])
                        return
        notifier.notify(other)

    threads = [threading.Thread(target=play, args=args) for args in ((0, "ping", "pong"), (1, "pong", "ping"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG * 2)
    assert stuck == []
    assert turns[0] >= 2000
