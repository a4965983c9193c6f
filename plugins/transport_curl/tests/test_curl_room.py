"""A listener holds a bounded number of bytes of long requests, and slow lines do not hold up fast ones."""

import logging
import socket
import threading
import time
import weakref
from concurrent.futures import Future

import pytest
from dropr_transport_curl import CurlTransport, Options

WAIT = 30.0


class Holding:
    """An answerer that keeps every request until the test lets them go."""

    head_size = 64

    def __init__(self):
        self.held, self.most, self.let_go = 0, 0, threading.Event()
        self.came = threading.Semaphore(0)

    def admit(self, head, _caller):
        """Every request says its length in its beginning."""
        return int.from_bytes(head[:8], "big")

    def answer(self, request, _caller):
        """Answered when the test says so."""
        self.held += len(request)
        self.most = max(self.most, self.held)
        self.came.release()
        answered = Future()

        def finish():
            self.let_go.wait(WAIT)
            self.held -= len(request)
            answered.set_result(b"done")

        threading.Thread(target=finish, daemon=True).start()
        return answered


def test_a_herd_of_long_requests_is_read_a_few_at_a_time():
    """Of ten requests of 1 MiB a listener with room for three has three, and answers all ten."""
    size = 1 << 20
    transport = CurlTransport(Options(max_held=3 * size), logging.getLogger("test.curl"))
    answerer = Holding()
    listener = transport.listen("http://127.0.0.1:0/dropr", answerer)
    lines = []
    try:
        port = int(listener.url.split(":")[2].split("/")[0])
        for _ in range(10):
            line = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
            lines.append(line)
            head = b"POST /dropr HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
            body = size.to_bytes(8, "big") + bytes(size - 8)
            threading.Thread(target=line.sendall, args=(head + body,), daemon=True).start()
        for _ in range(3):
            assert answerer.came.acquire(timeout=WAIT)
        answerer.let_go.set()
        for line in lines:
            assert line.recv(100).startswith(b"HTTP/1.1 200 ")
        assert answerer.most <= 3 * size
    finally:
        answerer.let_go.set()
        for line in lines:
            line.close()
        transport.close()


class Large:
    """An answerer with an answer of 16 MiB, that knows whether anybody still has it."""

    head_size = 8

    def __init__(self):
        self.given = None

    def admit(self, head, _caller):
        """Every request says its length in its beginning."""
        return int.from_bytes(head[:8], "big")

    def answer(self, _request, _caller):
        """At once."""
        answered = Future()
        answered.set_result(bytes(16 << 20))
        self.given = weakref.ref(answered)
        return answered


@pytest.fixture
def asked():
    """A caller that has asked and reads nothing yet, and the answerer."""
    transport = CurlTransport(Options(body_idle=0.2), logging.getLogger("test.curl"))
    answerer = Large()
    listener = transport.listen("http://127.0.0.1:0/dropr", answerer)
    port = int(listener.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as line:
        line.sendall(b"POST /dropr HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n" + (8).to_bytes(8, "big"))
        yield line, answerer
    transport.close()


def test_an_answer_counts_until_its_caller_has_read_it(asked):
    """The host's future is kept while the caller reads, and gone soon after it has all."""
    line, answerer = asked
    have = len(line.recv(1 << 20))
    assert answerer.given() is not None
    while have < 16 << 20:
        assert answerer.given() is not None or have > 8 << 20
        have += len(line.recv(1 << 20))
    assert any(answerer.given() is None or time.sleep(0.01) for _ in range(3000))


def test_a_caller_that_reads_nothing_of_its_answer_is_cut_off(asked):
    """Its answer is not kept for as long as it likes."""
    line, answerer = asked
    assert any((answerer.given and answerer.given() is None) or time.sleep(0.01) for _ in range(3000))
    with pytest.raises(ConnectionResetError):
        while line.recv(1 << 20):
            pass
        raise ConnectionResetError
