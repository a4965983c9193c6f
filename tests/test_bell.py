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
from dropr_core.system import notifier as bell_module
from dropr_core.system.notifier import Bell

LONG = 60.0


@pytest.fixture
def bell(tmp_path):
    return Bell(tmp_path / "bell")


def readable(ear, seconds=0.0):
    """Whether it was really rung: wait() may also send its caller to look again."""
    return bool(select.select([ear], [], [], seconds)[0])


def python(code, *arguments, **more):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **more)


def fifos(bell):
    return [path for path in bell.directory.glob("*/*") if path.is_fifo()]


RING = """
import sys, pathlib
from dropr_core.system.notifier import Bell
Bell(pathlib.Path(sys.argv[1])).ring(sys.argv[2])
"""


def test_a_ring_in_another_process_wakes_a_sleeper(bell):
    """A process that rings wakes one that sleeps in another."""
    with bell.listen("outbox") as ear:
        ear.arm()
        child = python(RING, bell.directory, "outbox")
        assert readable(ear, LONG)
        assert ear.wait(LONG)
        assert child.wait(LONG) == 0
        assert not readable(ear)


def test_a_ring_wakes_only_its_own_topics(bell):
    """An ear on two topics hears both of them and no third."""
    with bell.listen("inbox:a", "inbox:b/../c", "inbox:a") as ear:
        for topic, heard in (("inbox:a", True), ("inbox:x", False), ("inbox:b/../c", True)):
            ear.arm()
            bell.ring(topic)
            assert ear.wait(0) is heard
    assert all(len(path.name) == 32 and path.stat().st_mode & 0o777 == 0o700 for path in bell.directory.iterdir())
    assert bell.directory.stat().st_mode & 0o777 == 0o700


def test_every_ear_of_a_topic_is_rung(bell):
    """One ring wakes all listeners of its topic."""
    ears = [bell.listen("control") for _ in range(5)]
    for ear in ears:
        ear.arm()
    bell.ring("control")
    assert all(ear.wait(0) for ear in ears)
    for ear in ears:
        ear.close()


def test_ringing_costs_no_system_call_while_nobody_waits(bell, monkeypatch):
    """A sender pays nothing for an ear that is awake: the flag is a byte in memory."""
    with bell.listen("outbox") as ear:
        bell.ring("outbox")
        for name in ("open", "listdir", "scandir", "stat", "write", "pwrite"):
            monkeypatch.setattr(os, name, lambda *_, **__: pytest.fail("a system call"))
        for _ in range(100):
            bell.ring("outbox")
        monkeypatch.undo()
        assert not readable(ear)


def test_a_second_ring_is_free_until_the_ear_arms_again(bell):
    """A burst of sends rings a sleeper once."""
    with bell.listen("outbox") as ear:
        ear.arm()
        for _ in range(100):
            bell.ring("outbox")
        assert os.read(ear.fileno(), 4096) == b"!"


def test_a_ring_between_arm_and_wait_is_kept(bell):
    """What is rung after arm() ends the wait that follows; arm() forgets what was rung before."""
    with bell.listen("outbox") as ear:
        ear.arm()
        bell.ring("outbox")
        assert ear.wait(0)
        ear.arm()
        bell.ring("outbox")
        ear.arm()
        assert not ear.wait(0)


def test_wait_arms_by_itself(bell):
    """An ear that was not armed since its last wake-up is rung all the same."""
    with bell.listen("outbox") as ear:
        assert not ear.wait(0)
        assert not ear.wait(0)
        bell.ring("outbox")
        assert ear.wait(0)


def test_the_fifo_of_a_dead_listener_is_removed(bell):
    """kill -9 on a listener leaves a FIFO; the next ring clears it away and reaches the living."""
    code = """if True:
        import sys, pathlib; from dropr_core.system.notifier import Bell
        ear = Bell(pathlib.Path(sys.argv[1])).listen("outbox"); ear.arm(); print("armed", flush=True); sys.stdin.read()
    """
    child = python(code, bell.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout.readline() == "armed\n"
        child.send_signal(signal.SIGKILL)
        child.wait(LONG)
    with bell.listen("outbox") as ear:
        assert len(fifos(bell)) == 2
        ear.arm()
        bell.ring("outbox")
        assert readable(ear)
        assert len(fifos(bell)) == 1
    assert fifos(bell) == []


def test_close_is_safe_twice_and_the_closed_ear_says_so(bell):
    """A closed ear leaves no FIFO behind and raises Closed when it is used."""
    ear = bell.listen("outbox")
    ear.close()
    ear.close()
    ear.rouse()
    assert fifos(bell) == []
    for use in (ear.arm, ear.drain, ear.fileno, lambda: ear.wait(0)):
        with pytest.raises(Closed):
            use()
    bell.ring("outbox")
    bell.close()
    bell.close()


def test_a_vanished_directory_breaks_no_sender(bell, tmp_path):
    """Ringing raises nothing where the directory is gone, and works again in a new one; listening says why not."""
    with bell.listen("outbox") as ear:
        ear.arm()
        shutil.rmtree(bell.directory)
        bell.ring("outbox")
    with bell.listen("outbox") as ear:
        ear.arm()
        bell.ring("outbox")
        assert readable(ear)
    gone = Bell(tmp_path / "no" / "bell")
    gone.ring("outbox")
    assert not gone.directory.parent.exists()
    with pytest.raises(WriteFailed, match="cannot listen"):
        gone.listen("outbox")


def test_a_forked_child_lets_go_of_its_parents_ears(bell):
    """The child cannot use the ear, does not remove its FIFO, and does not keep it alive."""
    with bell.listen("outbox") as ear:
        child = os.fork()
        if child == 0:
            try:
                ear.arm()
            except Closed:
                ear.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        ear.arm()
        bell.ring("outbox")
        assert readable(ear)


def test_another_thread_can_rouse_a_sleeper(bell):
    """Stopping a thread that sleeps in wait() needs no second pipe."""
    with bell.listen("outbox") as ear:
        ear.arm()
        thread = threading.Thread(target=ear.rouse)
        thread.start()
        assert readable(ear, LONG)
        assert ear.wait(LONG)
        thread.join()


def test_wait_also_watches_other_files(bell):
    """A pipe given to wait() ends it."""
    read, write = os.pipe()
    with bell.listen("outbox") as ear:
        os.write(write, b"x")
        assert ear.wait(LONG, [read])
    os.close(read)
    os.close(write)


def test_a_sleeper_looks_again_although_nobody_rang(bell, monkeypatch):
    """A ringer killed between its commit and its ring delays a message by seconds, not for ever."""
    monkeypatch.setattr(bell_module, "LOOK_AGAIN", 0.01)
    with bell.listen("outbox") as ear:
        assert ear.wait(None)
        assert ear.wait(LONG)
        assert not ear.wait(0.01)


def test_leftovers_of_a_killed_maker_are_swept(bell):
    """Unfinished files are passed over by ringers and removed when they are old."""
    bell.listen("outbox").close()
    topic = next(bell.directory.iterdir())
    os.mkfifo(topic / ".1-old")
    os.mkfifo(topic / ".2-new")
    os.utime(topic / ".1-old", (1, 1))
    with bell.listen("outbox") as ear:
        ear.arm()
        bell.ring("outbox")
        assert readable(ear)
    assert sorted(path.name for path in topic.iterdir()) == [".2-new", "flag"]


def test_many_topics_cost_a_bounded_number_of_files(bell, monkeypatch):
    """A bell that rings for thousands of channels does not run out of file descriptors."""
    monkeypatch.setattr(bell_module, "MAX_FLAGS", 4)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(40):
        bell.ring(f"inbox:{number}")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 5


PRODUCE = """if True:
    import os, sys, pathlib; from dropr_core.system.notifier import Bell
    bell, queue = Bell(pathlib.Path(sys.argv[1])), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    for number in range(int(sys.argv[3])):
        os.write(queue, b"x")
        bell.ring("inbox:a" if number % 2 else "inbox:b")
"""


@pytest.mark.parametrize("producers", [1, 3])
def test_no_wake_up_is_lost_between_processes(bell, tmp_path, monkeypatch, producers):
    """A consumer that sleeps whenever the queue looks empty gets every item, rung for only once."""
    monkeypatch.setattr(bell_module, "LOOK_AGAIN", LONG)  # nothing but the ring may wake it
    queue, count = tmp_path / "queue", 2000
    queue.touch()
    with bell.listen("inbox:a", "inbox:b") as ear:
        children = [python(PRODUCE, bell.directory, queue, count) for _ in range(producers)]
        seen = 0
        while seen < producers * count:
            ear.arm()
            size = queue.stat().st_size
            if size > seen:
                seen = size
            else:
                started = time.monotonic()
                ear.wait(LONG)
                assert time.monotonic() - started < LONG, f"slept on after {seen} items"
        assert all(child.wait(LONG) == 0 for child in children)


def test_no_wake_up_is_lost_between_threads(bell, monkeypatch):
    """Ping-pong of two threads, each asleep before the other rings: 2,000 times, no hang."""
    monkeypatch.setattr(bell_module, "LOOK_AGAIN", LONG)
    turns = [0]
    stuck = []

    def play(me, mine, other):
        with bell.listen(mine) as ear:
            while turns[0] < 2000:
                ear.arm()
                if turns[0] % 2 == me:
                    turns[0] += 1
                    bell.ring(other)
                else:
                    started = time.monotonic()
                    ear.wait(LONG)
                    if time.monotonic() - started >= LONG:
                        stuck.append(turns[0])
                        return
        bell.ring(other)

    threads = [threading.Thread(target=play, args=args) for args in ((0, "ping", "pong"), (1, "pong", "ping"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG * 2)
    assert stuck == []
    assert turns[0] >= 2000
