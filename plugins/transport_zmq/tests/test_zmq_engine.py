"""The engine's thread: what is posted is done, and who asks lets it run."""

import logging
import threading
from functools import partial
from types import SimpleNamespace

import pytest
from dropr_transport_zmq import ZmqConnection
from dropr_transport_zmq import engine as engine_module
from dropr_transport_zmq.engine import Engine

LONG = 60.0


@pytest.fixture
def engine():
    """One that has begun, and is closed after the test."""
    engine = Engine(logging.getLogger("test.zmq"))
    engine.run(lambda: None)
    yield engine
    engine.close()


@pytest.fixture
def patient(monkeypatch):
    """Nobody gives up, however busy the machine is; and nothing is a burst."""
    monkeypatch.setattr(engine_module, "PATIENCE", LONG)
    monkeypatch.setattr(engine_module, "BURST", 0.0)


def test_what_many_threads_post_is_done(engine):
    """Each of them waits for its own work: a wake-up that is taken for that of another one would leave it waiting."""
    done = []

    def ask():
        done.extend(engine.run(partial(int, number)) for number in range(300))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sorted(done) == sorted(list(range(300)) * 4)


def test_who_hands_over_lets_the_thread_run(engine, patient):
    """The request is with ZeroMQ when `hand_over` returns: nobody else runs Python meanwhile."""
    done = []
    engine.hand_over(lambda: done.append("sent"))
    done.append("returned")
    engine.run(lambda: None)
    assert done == ["sent", "returned"]


def test_a_burst_is_handed_over_without_waiting(engine, monkeypatch):
    """Only the first of many requests costs a change of threads and back."""
    monkeypatch.setattr(engine_module, "PATIENCE", LONG)
    engine.hand_over(lambda: None)
    monkeypatch.setattr(engine_module, "BURST", LONG)
    begin, order = threading.Event(), []
    engine.hand_over(lambda: begin.wait(LONG) and order.append("work"))
    order.append("handed over")
    begin.set()
    engine.run(lambda: None)
    assert order == ["handed over", "work"]


def test_the_thread_itself_never_waits_for_itself(engine, patient):
    """An answer may bring the next request, in the thread that sends it."""
    done = threading.Event()
    engine.run(lambda: engine.hand_over(done.set))
    assert done.wait(LONG)


def test_only_a_short_request_is_waited_for():
    """What takes a while is sent while its asker makes the next one."""
    asked = []

    class Noted:
        def hand_over(self, work):
            asked.append("handed over")

        def post(self, work):
            asked.append("posted")

    connection = ZmqConnection(Noted(), SimpleNamespace(ask=print), "tcp://there:1", 10)
    for size in (200, 65536, 65537, 400_000):
        connection.ask(bytes(size), idle=LONG)
    assert asked == ["handed over", "handed over", "posted", "posted"]
