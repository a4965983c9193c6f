"""What a worker says of handlers that take too long, with a clock that the tests move."""

import asyncio
import contextlib
import logging
import threading
from types import SimpleNamespace

import pytest

from dropr_core.processes.at_work import GRACE, LONG, AtWork
from dropr_core.processes.stacks import task_stack, thread_stack

LOG = logging.getLogger("dropr.test.at_work")


class Hand:
    """A clock, and how often somebody was woken."""

    def __init__(self):
        self.now, self.woken = 1000.0, 0

    def wake(self):
        self.woken += 1


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def at_work(hand):
    return AtWork({"jobs": None, "short": 10.0}, hand.wake, LOG, lambda: hand.now)


def message(channel="jobs", identity="m1"):
    return SimpleNamespace(channel=channel, id=identity)


def said(caplog):
    found = [(record.levelno, record.getMessage()) for record in caplog.records if record.name == LOG.name]
    caplog.clear()
    return found


def test_whoever_looks_is_woken_when_work_begins_and_only_then(hand, at_work):
    """Nothing is looked at while nothing is done, and a busy worker is not woken for each message."""
    for _ in range(3):
        at_work.end(at_work.begin(message()))
    assert (hand.woken, at_work.watched) == (1, True)
    at_work.look()
    assert not at_work.watched
    running = at_work.begin(message())
    at_work.look()
    assert (hand.woken, at_work.watched) == (2, True)
    assert at_work.now() == [running]


def test_a_handler_that_takes_long_is_named_with_its_stack_less_and_less_often(hand, at_work, caplog):
    """Without a timeout the log says after a minute where it is, then after two, then after four."""
    at_work.begin(message())
    words = []
    for second in range(0, 400, 10):
        hand.now = 1000.0 + second
        at_work.look()
        words += [(second, caplog.records[-1])] if caplog.records else []
        caplog.clear()
    assert [second for second, _ in words] == [60, 120, 240]
    _, record = words[0]
    assert record.getMessage() == "the handler of jobs is still at m1 after 60 s; it is at:"
    assert "test_a_handler_that_takes_long_is_named" in record.stack
    assert not at_work.stuck


def test_a_thread_that_does_not_end_in_its_time_makes_the_process_end(hand, at_work, caplog):
    """Its timeout over, the log names it once as an error; it cannot be stopped, so the process has to go."""
    at_work.begin(message("short"))
    hand.now += 9.9
    at_work.look()
    assert (said(caplog), at_work.stuck) == ([], "")
    hand.now += 0.1
    at_work.look()
    at_work.look()
    ((level, text),) = said(caplog)
    assert level == logging.ERROR
    assert text.startswith(
        "the handler of short is at m1 for 10 s, longer than its timeout of 10 s, and cannot be stopped"
    )
    assert at_work.stuck == "the handler of short takes longer than its timeout of 10 s and cannot be stopped"


def test_a_task_has_some_seconds_to_end_after_it_was_cancelled(hand, at_work, caplog):
    """A task is cancelled at its timeout by the loop; one that goes on is told of as a thread is."""

    async def main():
        task = asyncio.current_task()
        at_work.begin(message("short"), task)
        hand.now += 10 + GRACE - 0.1
        at_work.look()
        assert said(caplog) == []
        hand.now += 0.1
        at_work.look()

    asyncio.run(main())
    ((_, text),) = said(caplog)
    assert "and did not end when it was cancelled" in text
    assert at_work.stuck


def test_who_waits_for_a_blocked_loop_is_not_blamed(hand, at_work, caplog):
    """Of many tasks on a loop that one of them blocks, that one is told of."""

    async def main():
        blocker, other = (asyncio.create_task(asyncio.sleep(100)) for _ in range(2))
        at_work.begin(message(identity="m1"), blocker)
        at_work.begin(message(identity="m2"), other)
        hand.now += LONG
        at_work.look(blocker)
        for task in (blocker, other):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert [text.split(" after")[0] for _, text in said(caplog)] == ["the handler of jobs is still at m1"]


def test_the_stack_of_a_thread_begins_in_the_code_of_the_user():
    """Frames of dropr by which a handler is called say nothing about it; a thread that has ended has no stack."""
    there, go = threading.Event(), threading.Event()

    def handler():
        there.set()
        go.wait(60)

    thread = threading.Thread(target=handler)
    thread.start()
    there.wait(60)
    text = thread_stack(thread.ident)
    go.set()
    thread.join()
    assert "in handler" in text
    assert "go.wait(60)" in text
    assert thread_stack(thread.ident) == ""


def test_the_stack_of_a_task_reaches_the_innermost_that_it_awaits():
    """All that await each other are shown, not only the outermost as `Task.get_stack` has it."""

    async def inner():
        await asyncio.sleep(100)

    async def outer():
        await inner()

    async def main():
        task = asyncio.create_task(outer())
        await asyncio.sleep(0)
        text = task_stack(task)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return text

    text = asyncio.run(main())
    assert text.index("in outer") < text.index("in inner") < text.index("sleep(100)")
