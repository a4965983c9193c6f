"""The answering side against callers that are slow, too many, or refused again and again."""

import contextlib
import socket
import time

import pytest
from curl_callers import WAIT, dial, gone, post, status, talk
from dropr_transport_curl import accepting, asgi, guard
from dropr_transport_curl.accepting import Visit

from dropr_core.system.connections import Connections
from dropr_core.testing.transport_contract import request

pytestmark = pytest.mark.usefixtures("_short_goodbyes")


def test_fault_58_endless_headers_are_cut_off(serve):
    """A head that grows without end is cut off after a bounded number of bytes."""
    listener, _ = serve()
    port = int(listener.url.split(":")[2].split("/")[0])
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as line:
        line.sendall(b"POST /dropr HTTP/1.1\r\n")
        with pytest.raises(OSError, match=r"reset|pipe"):
            while sent < 100_000_000:
                line.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
                sent += 1000
    assert sent < 50_000_000


def test_a_slow_head_is_cut_off(serve):
    """A caller that never finishes its headers, or never begins, loses its connection after the option 'admission'."""
    listener, _ = serve(admission=0.1)
    assert talk(listener, b"POST /dropr HTTP/1.1\r\n") == b""
    assert talk(listener) == b""


def test_a_slow_head_is_cut_off_later_too(serve, monkeypatch):
    """So does one whose first request was fine."""
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.1)
    listener, _ = serve()
    whole = request(30)
    assert talk(listener, post(whole, more=b""), b"POST /dropr HTTP/1.1\r\n").endswith(whole)


def test_a_slow_body_is_cut_off(serve):
    """A caller that stops in the middle of its body gets a 408 after the option 'body_idle'."""
    listener, echo = serve(body_idle=0.1)
    assert talk(listener, post(request(100)[:50], length=100)).startswith(b"HTTP/1.1 408")
    assert echo.answered == 0


def test_a_trickling_body_is_cut_off(serve):
    """A caller whose body moves below the least rate is cut off although it is never idle."""
    listener, _ = serve(min_rate=100_000, rate_window=0.1)
    port = int(listener.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=0.01) as line:
        line.sendall(post(b"", length=100_000))
        back = b""
        for _ in range(1000):
            try:
                line.sendall(b".")
                back = line.recv(100)
                break
            except TimeoutError:
                continue
    assert back.startswith(b"HTTP/1.1 408")


def test_too_many_connections_are_told_to_wait(serve):
    """Over the limit of admitted connections callers get a 503, which means: not taken, later."""
    listener, echo = serve(max_connections=2)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            line = stack.enter_context(dial(listener))
            line.sendall(post(request(30), more=b""))
            assert status(line) == 200
        assert talk(listener, post(request(30))).startswith(b"HTTP/1.1 503")
    assert echo.answered == 2
    for _ in range(500):
        if talk(listener, post(request(30))).startswith(b"HTTP/1.1 200"):
            return
    raise AssertionError("the places of those who left are not given away")


def test_a_refused_caller_may_go_on(serve):
    """Whose request was read to its end and refused keeps its connection: it costs no new one, nor a new handshake."""
    listener, _ = serve()
    with dial(listener) as line:
        for _ in range(3):
            line.sendall(post(request(30, "no:sign"), more=b""))
            assert status(line) == 401


def test_a_refused_stranger_waits_longer_each_time_and_a_peer_never():
    """So that a flood over connections that are kept is as slow as it has places."""
    connections, told = Connections(admitted=1, strangers=1, per_address=1, patience=10.0), []
    here, there = socket.socketpair()
    with here, there:
        visit = Visit(connections, here, "192.0.2.1", 0.0, told.append)
        waits = [visit.refused() for _ in range(50)]
        assert told == ["192.0.2.1"] * 50
        assert waits == sorted(waits)
        assert (waits[0], waits[1], waits[-1]) == (0.02, 0.04, 1.0)
        assert visit.admit()
        assert visit.refused() == 0.0


def test_a_stranger_that_leaves_while_it_waits_is_forgotten(serve, monkeypatch):
    """Its refusal is neither kept nor written; the next caller is served."""
    monkeypatch.setattr(accepting, "FIRST_PAUSE", 600.0)
    monkeypatch.setattr(accepting, "LONGEST_PAUSE", 600.0)
    listener, echo = serve()
    for _ in range(3):
        with dial(listener) as line:
            line.sendall(post(request(30, "no:sign"), more=b""))
            assert any(listener._server._state.tasks or time.sleep(0.005) for _ in range(8000))
        assert any(not listener._server._state.tasks or time.sleep(0.005) for _ in range(8000))
    assert len(echo.heads) == 3
    assert talk(listener, post(request(30))).startswith(b"HTTP/1.1 200")


def test_strangers_wear_each_other_out(serve):
    """However many connections say nothing, the oldest of them go, and each caller with a request is answered."""
    listener, _ = serve(max_strangers_per_address=5)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(dial(listener)) for _ in range(50)]
        for _ in range(20):
            assert talk(listener, post(request(30))).startswith(b"HTTP/1.1 200")
        for line in idle[:45]:
            assert gone(line)
    assert listener.connections.strangers <= 5


def test_the_admitted_are_not_worn_out(serve):
    """A connection on which a request was admitted stays, whoever comes after it."""
    listener, _ = serve(max_strangers=3, admission=1.5)
    with dial(listener) as friend, contextlib.ExitStack() as stack:
        friend.sendall(post(request(30), more=b""))
        assert status(friend) == 200
        idle = [stack.enter_context(dial(listener)) for _ in range(20)]
        assert all(gone(line) for line in idle), "some by those after them, the last ones by time"
        friend.sendall(post(request(30), more=b""))
        assert status(friend) == 200


def test_a_caller_that_leaves_a_long_poll_frees_it(serve, monkeypatch):
    """When a caller of a long poll hangs up, the connection is forgotten before the answer exists."""
    monkeypatch.setattr(asgi, "_WATCH_AFTER", 0.01)
    listener, echo = serve()
    port = int(listener.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(post(request(30, "hold")))
        assert echo.asked.acquire(timeout=WAIT)
    deadline = time.monotonic() + WAIT
    while listener._server._state.tasks and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not listener._server._state.tasks
    echo.let_go()
    assert b"200 OK" in talk(listener, post(request(30)))
