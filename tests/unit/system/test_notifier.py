"""Wake-ups between processes: none is lost, nobody is in the way of a sender."""

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dropr_core.errors import Closed, WriteFailed
from dropr_core.system import notifier as notifier_module
from dropr_core.system import notifier_flags as flags_module
from dropr_core.system.notifier import Notifier

LONG = 60.0


@pytest.fixture
def notifier(tmp_path):
    return Notifier(tmp_path / "notifier")


def readable(subscription, seconds=0.0):
    """Whether it was really notified: wait() may also send its caller to look again."""
    return bool(select.select([subscription], [], [], seconds)[0])


def python(code, *arguments, **more):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **more)


def fifos(notifier):
    return [path for path in notifier.directory.glob("*/*") if path.is_fifo()]


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


def test_the_fifo_of_a_dead_listener_is_removed(notifier):
    """kill -9 on a listener leaves a FIFO; the next notification clears it away and reaches the living."""
    code = """if True:
        import sys, pathlib; from dropr_core.system.notifier import Notifier
        subscription = Notifier(pathlib.Path(sys.argv[1])).subscribe("outbox")
        subscription.prepare()
        print("prepared", flush=True)
        sys.stdin.read()
    """
    child = python(code, notifier.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout.readline() == "prepared\n"
        child.send_signal(signal.SIGKILL)
        child.wait(LONG)
    with notifier.subscribe("outbox") as subscription:
        assert len(fifos(notifier)) == 2
        subscription.prepare()
        notifier.notify("outbox")
        assert readable(subscription)
        assert len(fifos(notifier)) == 1
    assert fifos(notifier) == []


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


def test_leftovers_of_a_killed_maker_are_swept(notifier):
    """Unfinished files are passed over by ringers and removed when they are old."""
    notifier.subscribe("outbox").close()
    topic = next(notifier.directory.iterdir())
    os.mkfifo(topic / ".1-old")
    os.mkfifo(topic / ".2-new")
    os.utime(topic / ".1-old", (1, 1))
    with notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        notifier.notify("outbox")
        assert readable(subscription)
    assert sorted(path.name for path in topic.iterdir()) == [".2-new", "flag"]


def test_many_topics_cost_a_bounded_number_of_files(notifier, monkeypatch):
    """A notifier that notifies for thousands of channels does not run out of file descriptors."""
    monkeypatch.setattr(notifier_module, "MAX_FLAGS", 4)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(40):
        notifier.notify(f"inbox:{number}")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 5


def test_who_is_known_is_woken_before_anything_is_looked_up(notifier, monkeypatch):
    """The second notification of a listener is one write behind its flag; what is listed only finds others."""
    with notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        notifier.notify("outbox")
        subscription.prepare()
        listing, woken = os.listdir, []

        def listed(path):
            woken.append(readable(subscription))
            return listing(path)

        monkeypatch.setattr(os, "listdir", listed)
        notifier.notify("outbox")
        assert woken == [True]


def test_a_listener_that_comes_later_is_found_and_one_that_left_is_let_go_of(notifier):
    """What is kept open of a topic follows who listens there, and costs nothing when nobody does."""
    before = None
    for _ in range(3):
        with notifier.subscribe("outbox") as first, notifier.subscribe("outbox") as second:
            for one in (first, second):
                one.prepare()
            notifier.notify("outbox")
            assert readable(first)
            assert readable(second)
            with notifier.subscribe("outbox") as third:
                third.prepare()
                notifier.notify("outbox")
                assert readable(third)
        with notifier.subscribe("outbox") as last:  # raises the flag
            last.prepare()
            notifier.notify("outbox")
            assert readable(last)
            before = before or descriptors()
            assert descriptors() == before


def test_who_listens_in_a_directory_that_was_made_anew_is_woken_by_an_old_notifier(notifier):
    """What a notifier keeps open of a topic is let go of when another one stands there."""
    old = notifier.subscribe("outbox")
    old.prepare()
    notifier.notify("outbox")
    old.prepare()
    shutil.rmtree(notifier.directory)
    with notifier.subscribe("outbox") as fresh:
        for _ in range(3):
            fresh.prepare()
            notifier.notify("outbox")
            assert readable(fresh)
    old.close()


def test_many_topics_keep_a_bounded_number_of_ways_open(notifier):
    """A notifier whose topics all have a listener keeps few of them open, and wakes everybody."""
    topics = [f"inbox:{number}" for number in range(3 * flags_module.MAX_WAYS)]
    with notifier.subscribe(*topics) as subscription:
        before = descriptors()
        for topic in topics:
            subscription.prepare()
            notifier.notify(topic)
            assert readable(subscription), topic
        most = flags_module.MAX_WAYS * (1 + flags_module.MAX_KEPT) + len(topics)  # one mapped flag each
        assert descriptors() <= before + most


def test_a_flag_that_is_up_is_not_raised_again(notifier, monkeypatch):
    """Of a daemon's topics a message takes one flag down: preparing again is one write, not one for each."""
    writes = []
    with notifier.subscribe("outbox", "control", "schedules") as subscription:
        subscription.prepare()
        notifier.notify("outbox")
        write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda *what: writes.append(what) or write(*what))
        subscription.prepare()
        assert len(writes) == 1
        subscription.prepare()
        assert len(writes) == 1


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_subscribers_of_a_process_share_the_descriptors_of_their_topics(notifier):
    """A hundred channels and sixteen threads cost a descriptor for each of them and a few more, not for each pair."""
    topics, before = [f"inbox:{number}" for number in range(100)], descriptors()
    subscriptions = [notifier.subscribe(*topics) for _ in range(16)]
    assert descriptors() <= before + 100 + 16 + flags_module.MAX_MAPPED
    for subscription in subscriptions:
        subscription.prepare()
    notifier.notify("inbox:99")
    assert all(readable(subscription) for subscription in subscriptions)
    notifier.close()
    for subscription in subscriptions:
        subscription.close()
    assert descriptors() == before


def test_more_topics_than_may_be_kept_open_work_all_the_same(notifier, monkeypatch):
    """Beyond the bound a flag is opened each time that it is raised: slower, and woken like any other."""
    monkeypatch.setattr(flags_module, "MAX_FLAGS", 3)
    before = descriptors()
    with notifier.subscribe(*(f"inbox:{number}" for number in range(10))) as subscription:
        assert descriptors() == before + 1 + 2 * 3, "each of the few is mapped as well"
        for number in range(10):
            subscription.prepare()
            notifier.notify(f"inbox:{number}")
            assert readable(subscription), number


def test_a_second_subscriber_does_not_share_the_flag_of_a_vanished_directory(notifier):
    """Where the directory was made anew, whoever subscribes now is woken, although an older one holds the old flag."""
    with notifier.subscribe("outbox") as old:
        shutil.rmtree(notifier.directory)
        with notifier.subscribe("outbox") as new:
            new.prepare()
            Notifier(notifier.directory).notify("outbox")
            assert readable(new)
        assert not readable(old)


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
