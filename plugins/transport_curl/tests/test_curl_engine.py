"""Who sends a request: the thread that asks, while the one that carries requests sleeps."""

import logging
import socket
import threading
from concurrent.futures import Future

import pytest
from dropr_transport_curl import CurlTransport, Options
from dropr_transport_curl.engine import Engine
from dropr_transport_curl.slot import Request

from dropr_core.errors import Unanswered

WAIT = 30.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.dropr.v1\r\nContent-Length: 1\r\n\r\n."


@pytest.fixture
def came():
    return threading.Semaphore(0)


@pytest.fixture
def answers():
    return threading.Semaphore(0)


@pytest.fixture
def server(raw, came, answers):
    """Tells of each request that came, and answers it when it may."""

    def script(connection, server):
        while True:
            server.read_request(connection)
            came.release()
            answers.acquire(timeout=WAIT)
            connection.sendall(ANSWER)

    return raw(script)


@pytest.fixture
def engine():
    woken, waker = socket.socketpair()
    made = Engine(Options(), woken.fileno(), lambda: None)
    yield made
    made.give_up(None, "the test is over")
    made.close()
    woken.close()
    waker.close()


def request(server, idle=WAIT):
    future = Future()
    future.set_running_or_notify_cancel()
    return Request(server.url, b"request", idle, future, None)


@pytest.fixture
def drive(engine, answers):
    return lambda future: turn_until(engine, answers, future)


def turn_until(engine, answers, future):
    answers.release()
    for _ in range(3000):
        if future.done():
            return future.result()
        engine.turn(engine.sleep(min(engine.pause() or 0.01, 0.01)))
    raise AssertionError("no answer within 30 s")


def test_on_a_kept_connection_begin_sends_by_itself(server, engine, came, drive):
    """The peer has the request before anybody turns the engine."""
    first = request(server)
    engine.begin(first)
    assert drive(first.future) == b"."
    assert came.acquire(timeout=WAIT)
    second = request(server)
    engine.begin(second)
    assert came.acquire(timeout=WAIT)
    assert drive(second.future) == b"."


def test_who_sleeps_is_woken_only_for_what_is_due_before_the_sleep_ends(server, engine, drive):
    """After one message the next ones let the thread sleep; one that must be looked at sooner does not."""
    assert engine.pause() is None
    first = request(server)
    assert not engine.begin(first)  # nobody knew when to look at it
    drive(first.future)
    assert engine.pause() > 1.0  # it sleeps on for a while, though nothing is under way
    second = request(server)
    assert engine.begin(second)
    drive(second.future)
    engine.pause()
    hasty = request(server, idle=0.5)
    assert not engine.begin(hasty)
    drive(hasty.future)


def test_a_defect_met_by_who_asks_ends_what_is_under_way_and_nothing_else(server, answers, monkeypatch):
    """Neither is the request lost that met it, nor does the transport stop working."""
    answers.release(100)
    transport = CurlTransport(Options(), logging.getLogger("test.curl"))
    try:
        connection = transport.connect(server.url)
        assert connection.ask(b"request", idle=WAIT).result(WAIT) == b"."
        real, left = Engine.begin, [RuntimeError("a defect")]

        def begin(engine, asked):
            if left:
                raise left.pop()
            return real(engine, asked)

        monkeypatch.setattr(Engine, "begin", begin)
        for _ in range(50):
            try:
                assert connection.ask(b"request", idle=WAIT).result(WAIT) == b"."
            except Unanswered:  # under way when it happened
                pass
        assert connection.ask(b"request", idle=WAIT).result(WAIT) == b"."
    finally:
        transport.close()
