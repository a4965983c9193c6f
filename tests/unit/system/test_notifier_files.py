"""What a notifier keeps open and leaves behind: bounded numbers of files, however many topics, listeners and deaths."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from unit.system.wakeups import LONG, descriptors, fifos, python, readable

from dropr_core.system import notifier as notifier_module
from dropr_core.system import notifier_flags as flags_module
from dropr_core.system.notifier import Notifier


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


def old(directory, seconds=flags_module.SETTLED + 1):
    """Give a directory a date of some time ago."""
    at = time.time() - seconds
    os.utime(directory, (at, at))


@pytest.fixture
def lookups(notifier, monkeypatch):
    """Notifies some listeners, all of whom must hear of it; how often the directory was listed for that."""
    listing, listed = os.listdir, []
    monkeypatch.setattr(os, "listdir", lambda path: (listed.append(path), listing(path))[1])

    def count(*listeners):
        for one in listeners:
            one.prepare()
        listed.clear()
        notifier.notify("outbox")
        assert all(map(readable, listeners))
        return len(listed)

    return count


def test_who_listens_is_looked_up_when_the_directory_has_changed(notifier, lookups):
    """A message costs a look at its date; but while that is young a change might not show in it."""
    with notifier.subscribe("outbox") as first:
        assert [lookups(first) for _ in range(2)] == [1, 1]
        (topic,) = notifier.directory.iterdir()
        old(topic)
        assert [lookups(first) for _ in range(3)] == [1, 0, 0]
        with notifier.subscribe("outbox") as second:
            assert lookups(first, second) == 1
        old(topic, flags_module.SETTLED + 2)
        assert [lookups(first) for _ in range(2)] == [1, 0]


def test_more_listeners_than_are_kept_are_looked_up_each_time(notifier):
    """However old their directory is."""
    with contextlib.ExitStack() as stack:
        all_ = [stack.enter_context(notifier.subscribe("outbox")) for _ in range(flags_module.MAX_KEPT + 2)]
        (topic,) = notifier.directory.iterdir()
        for _ in range(3):
            old(topic)
            for one in all_:
                one.prepare()
            notifier.notify("outbox")
            assert all(map(readable, all_))


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
