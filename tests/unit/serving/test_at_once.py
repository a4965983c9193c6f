"""When a request is answered by the thread that read it."""

import logging
import threading

import pytest
from support.nodes import eventually

from dropr_core.contracts.transport import Caller
from dropr_core.protocol.messages import HEADS, PUSH
from dropr_core.serving.at_once import CROWD, HEELS, QUICK, SHORT, AtOnce
from dropr_core.serving.dispatcher import Dispatcher
from dropr_core.system.clock import FakeClock
from dropr_core.system.notifier import Notifier

CALLER = Caller("1.2.3.4:5")


class Time:
    """A clock that is set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def passes(self, seconds):
        """Some time is over; used as what is answered."""
        self.now += seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def rule(time):
    return AtOnce(time)


def test_a_short_request_that_comes_alone_is_answered_at_once(rule, time):
    """As long as answers are quick, also the tenth."""
    for _ in range(10):
        assert rule.may(500)
        rule.here(lambda: time.passes(QUICK / 2))
        time.passes(2 * HEELS)
    assert not rule.may(SHORT + 1)


def test_after_a_slow_answer_threads_do_it_until_they_are_quick_again(rule, time):
    """The thread that reads for all others is held up once."""
    assert rule.may(500)
    rule.here(lambda: time.passes(50 * QUICK))
    time.passes(1.0)
    sent_away = 0
    while not rule.may(500):
        rule.sent_away(sent_away)
        time.passes(QUICK / 10)
        rule.came_back(sent_away)
        sent_away += 1
        time.passes(1.0)
    assert 10 < sent_away < 100


def test_requests_on_each_others_heels_are_given_to_threads(rule, time):
    """They share the syncs of their commits; when it is quiet again the next one is answered at once."""
    assert rule.may(500)
    rule.here(lambda: time.passes(QUICK / 2))
    assert not rule.may(500), "it was waiting meanwhile"
    time.passes(2 * HEELS)
    assert not rule.may(500), "others may come soon"
    time.passes(CROWD)
    assert rule.may(500)


def test_while_a_thread_answers_nothing_is_answered_at_once(rule, time):
    """Two at the same time are a crowd."""
    rule.sent_away("first")
    time.passes(2 * HEELS)
    assert not rule.may(500)
    rule.came_back("first")
    time.passes(CROWD)
    assert rule.may(500)


class Endpoint:
    """Answers with the thread that was asked; a request is its verb."""

    head_size = 8

    class _Answers:
        def count(self, *_what):
            """Nobody counts."""

    answers = _Answers()

    def open(self, frame, _caller):
        """It is the verb."""

        class Request:
            peer, verb = "shop", bytes(frame).decode()

        return Request()

    def answer(self, _request):
        """Who answers."""
        return threading.current_thread().name.encode()

    def close(self):
        """Nothing to let go of."""


@pytest.mark.parametrize("at_once", [True, False])
def test_a_push_is_answered_by_the_thread_that_read_it_where_that_is_ours(tmp_path, at_once, time):
    """What may wait or be long is for threads; so is everything where the loop is somebody else's."""
    rule = AtOnce(time) if at_once else None
    dispatcher = Dispatcher(
        Endpoint(), Notifier(tmp_path), FakeClock(), lambda _peer: None, logging.getLogger("test"), at_once=rule
    )
    try:
        mine = threading.current_thread().name.encode()
        push = dispatcher.answer(PUSH.encode(), CALLER)
        assert (push.done() and push.result() == mine) or not at_once
        assert (push.result(10) == mine) == at_once
        time.passes(1.0)
        assert dispatcher.answer(HEADS.encode(), CALLER).result(10) != mine
        if rule is not None:
            eventually(lambda: not rule._away)
            time.passes(1.0)
            assert dispatcher.answer(PUSH.encode(), CALLER).result(0) == mine
    finally:
        dispatcher.close()
