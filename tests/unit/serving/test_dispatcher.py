"""The dispatcher: long polls that wait without a thread each, and what it says when it cannot wait or answer."""

import logging
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from support.nodes import eventually

from dropr_core.contracts.transport import Caller
from dropr_core.errors import Refused, WriteFailed
from dropr_core.protocol.endpoint import Wait
from dropr_core.serving.dispatcher import Dispatcher
from dropr_core.serving.long_polls import LongPolls
from dropr_core.system.clock import FakeClock
from dropr_core.system.notifier import LOOK_AGAIN, Notifier

LOG = logging.getLogger("test.dispatcher")


class Counter:
    """Stands for the endpoint: a request is the name of a topic, and waits until that is in ``done``."""

    head_size = 8

    def __init__(self):
        self.done = set()
        self.asked = []

    def __call__(self, request, final, return_to):
        self.asked.append((request, final))
        if final or request in self.done:
            return_to.set_result(b"final" if final else b"news")
            return None
        return Wait((request,), 30.0)

    def close(self):
        """Nothing to let go of."""


@pytest.fixture
def notifier(tmp_path):
    notifier = Notifier(tmp_path / "notifier")
    yield notifier
    notifier.close()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def retry():
    return Counter()


@pytest.fixture
def room(notifier, clock, retry):
    room = LongPolls(notifier, clock, retry, LOG)
    yield room
    room.close()


def handles():
    """How many files this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


def enter(room, topic, seconds=30.0):
    future = Future()
    room.enter(topic, Wait((topic,), seconds), future)
    return future


def test_a_ring_answers_those_who_wait_for_it_and_nobody_else(room, notifier, retry):
    """One thread lets many wait; a notification wakes the right ones."""
    mail, other = enter(room, "mail"), enter(room, "other")
    eventually(lambda: len(retry.asked) >= 2)
    retry.done.add("mail")
    notifier.notify("mail")
    assert mail.result(10) == b"news"
    assert not other.done()
    room.close()
    assert other.result(10) == b"final"


def test_fault_85_a_long_poll_without_a_subscription_is_cut_short_and_the_others_go_on(
    room, notifier, clock, retry, monkeypatch, caplog
):
    """No file handle is left for a subscription: said once, that poll ends early, all others are served as ever."""
    before = enter(room, "before")
    eventually(lambda: retry.asked)
    listen = notifier.subscribe

    def refuse(*topics):
        if topics == ("deaf",):
            raise WriteFailed("cannot listen for wake-ups: Too many open files")
        return listen(*topics)

    monkeypatch.setattr(notifier, "subscribe", refuse)
    deaf = enter(room, "deaf")
    eventually(lambda: ("deaf", False) in retry.asked)
    after = enter(room, "after")
    eventually(lambda: ("after", False) in retry.asked)
    assert "Too many open files" in caplog.text
    clock.advance(LOOK_AGAIN)
    room._wake.wake()
    assert deaf.result(10) == b"final"
    retry.done.update(("before", "after"))
    notifier.notify("before")
    notifier.notify("after")
    assert [before.result(10), after.result(10)] == [b"news", b"news"]


def test_a_request_after_close_is_refused_as_busy_and_raises_nothing(notifier, clock, retry):
    """Closing while requests come in: the late ones get an answer, not an exception in the listener's thread."""
    dispatcher = Dispatcher(retry, notifier, clock, lambda _peer: None, LOG)
    dispatcher.close()
    dispatcher.close()
    future = dispatcher.answer(b"request", Caller("test"))
    error = future.exception(10)
    assert isinstance(error, Refused)
    assert error.code == "busy"


def test_a_long_poll_that_comes_while_the_desk_closes_is_answered_at_once(room):
    """Nobody is kept waiting in a room where nobody looks any more."""
    room.close()
    assert enter(room, "late").result(10) == b"final"


def test_a_room_without_a_thread_says_so_and_opens_when_there_is_one(room, retry, monkeypatch):
    """No thread can be started: that long poll fails, the next one waits as ever."""

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            enter(room, "first")
    retry.done.add("second")
    assert enter(room, "second").result(10) == b"news"


def test_the_room_gives_its_handles_back(notifier, clock, retry):
    """Entering, being answered and closing leave no file open."""
    before = handles()
    room = LongPolls(notifier, clock, retry, LOG)
    retry.done.add("mail")
    assert enter(room, "mail").result(10) == b"news"
    room.close()
    room.close()
    assert handles() == before
