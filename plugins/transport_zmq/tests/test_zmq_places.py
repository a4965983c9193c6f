"""Places at a ZeroMQ listener: whoever shows no key takes none from those who have one."""

import contextlib
import socket
import time
from urllib.parse import urlsplit

import pytest
import zmq
from dropr_transport_zmq import lines
from dropr_transport_zmq.frames import Kind, pack, unpack
from dropr_transport_zmq.keys import new_secret, public_of

from dropr_core.system import penalties
from dropr_core.testing.echo import request

WAIT = 30.0
HEAD = 4144
"""As large as dropr's: a piece that is not the last may be a little shorter (4096)."""


@pytest.fixture
def door(transport, echo):
    """An open door with three places, in plain text, whose answerer needs a head like dropr's."""
    echo.head_size = HEAD
    return transport(curve=False, max_requests=3, body_idle=600).listen("zmq+tcp://127.0.0.1:0", echo)


@pytest.mark.parametrize("shown", [4096, HEAD - 1])
def test_requests_short_of_their_head_take_no_place(door, transport, raw, echo, shown):
    """A stranger that holds back the last bytes of many heads is refused each time, and everybody else is served."""
    stranger = raw(zmq.DEALER)
    stranger.connect(door.url.removeprefix("zmq+"))
    for number in range(20):
        stranger.send_multipart([pack(Kind.ASK, number, 100_000), request(100_000)[:shown]])
    friend = transport(curve=False).connect(door.url)
    assert friend.ask(request(100_000), idle=WAIT).result(WAIT) == request(100_000)
    for _ in range(20):
        head, payload = stranger.recv_multipart()
        assert unpack(head).kind == Kind.REFUSED
        assert payload.startswith(b"bad_frame\0")
    assert any(not door.answering.busy or time.sleep(0.005) for _ in range(8000))
    assert echo.heads == [HEAD], "nobody was asked to judge less than a head"


def dial(url):
    """A raw connection to a listener."""
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=WAIT)


def gone(line):
    """Whether the other side has ended a raw connection; whatever it says before is read."""
    try:
        while line.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_strangers_wear_each_other_out(transport, secret, echo):
    """However many connections say nothing, the oldest go, and every caller with a request is answered."""
    listener = transport(key=secret, max_strangers_per_address=5).listen("zmq+tcp://127.0.0.1:0", echo)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(dial(listener.url)) for _ in range(50)]
        for _ in range(10):
            assert transport().connect(listener.url).ask(request(20), idle=WAIT).result(WAIT) == request(20)
        assert all(gone(line) for line in idle[:45])
        assert listener.lines.connections.strangers <= 5


def test_a_stranger_with_a_handshake_has_little_time(transport, secret, echo, raw):
    """Who finished the handshake with a key of its own, and is refused, is cut off; who was admitted is not."""
    listener = transport(key=secret, admission=1.5).listen("zmq+tcp://127.0.0.1:0", echo)
    friend = transport().connect(listener.url)
    assert friend.ask(request(20), idle=WAIT).result(WAIT) == request(20)
    stranger = raw(zmq.DEALER, server=listener.url.partition("?curve=")[2])
    stranger.setsockopt(zmq.RECONNECT_IVL, -1)
    monitor = stranger.get_monitor_socket(zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED)
    stranger.connect(listener.url.removeprefix("zmq+").partition("?")[0])
    stranger.send_multipart([pack(Kind.ASK, 1, 20), request(20, "no:sign")])
    assert unpack(stranger.recv_multipart()[0]).kind == Kind.REFUSED
    for expected in (zmq.Event.HANDSHAKE_SUCCEEDED, zmq.Event.DISCONNECTED):
        assert monitor.poll(WAIT * 1000)
        assert zmq.utils.monitor.recv_monitor_message(monitor)["event"] == expected
    stranger.disable_monitor()
    monitor.close()
    assert echo.asked.acquire(timeout=WAIT)  # the first one
    held = friend.ask(request(20, "hold"), idle=WAIT)
    assert echo.asked.acquire(timeout=WAIT)
    echo.let_go()
    assert held.result(WAIT) == request(20, "hold")
    assert listener.lines.connections.cut_off == 1
    assert listener.lines.connections.admitted == 1


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER"


def test_a_message_without_end_is_cut_off(transport, echo, monkeypatch):
    """ZeroMQ keeps the parts of a message until the last; a stranger that sends parts without end is ended early."""
    monkeypatch.setattr(lines, "LOOK_EVERY", 0.02)
    listener = transport(curve=False, admission=600).listen("zmq+tcp://127.0.0.1:0", echo)
    part = b"\x03" + (60_000).to_bytes(8, "big") + bytes(60_000)  # flags: there is more; eight bytes of length
    sent = 0
    with dial(listener.url) as stranger:
        stranger.sendall(GREETING + b"\x04" + bytes([len(READY)]) + READY)
        said = b""
        while b"READY" not in said:
            said += stranger.recv(1000)
        with pytest.raises(OSError, match=r"reset|pipe"):
            while sent < 1 << 32:
                stranger.sendall(part)
                sent += len(part)
    assert lines.MOST < sent < 1 << 30
    assert listener.lines.connections.cut_off == 1
    assert transport(curve=False).connect(listener.url).ask(request(20), idle=WAIT).result(WAIT) == request(20)


def test_over_the_limit_of_admitted_connections_a_caller_is_told_to_wait(transport, echo):
    """It is refused as busy, is not ended, and has a place as soon as another leaves."""
    listener = transport(curve=False, max_connections=1).listen("zmq+tcp://127.0.0.1:0", echo)
    first, second = (transport(curve=False).connect(listener.url) for _ in range(2))
    assert first.ask(request(20), idle=WAIT).result(WAIT) == request(20)
    assert second.ask(request(20), idle=WAIT).exception(WAIT).code == "busy"
    first.close()
    for _ in range(120):
        error = second.ask(request(20), idle=WAIT).exception(WAIT)
        if error is None:
            return
        assert error.code == "busy"
        time.sleep(0.5)  # who asks on and on is not answered any more
    raise AssertionError("the place of one that left was not given away")


def test_a_flood_of_a_stranger_is_thrown_away_unjudged(transport, raw, echo):
    """After so many refusals on its connection nothing of it is judged or answered; a peer is always heard out."""
    listener = transport(curve=False).listen("zmq+tcp://127.0.0.1:0", echo)
    stranger = raw(zmq.DEALER)
    stranger.connect(listener.url.removeprefix("zmq+"))
    many = lines.REFUSALS + 30
    for number in range(many):
        stranger.send_multipart([pack(Kind.ASK, number, 20), request(20, "no:sign")])
    for _ in range(lines.REFUSALS):
        assert unpack(stranger.recv_multipart()[0]).kind == Kind.REFUSED
    friend = transport(curve=False).connect(listener.url)
    assert friend.ask(request(20), idle=WAIT).result(WAIT) == request(20)
    for _ in range(many):
        assert friend.ask(request(20, "no:sign"), idle=WAIT).exception(WAIT).code == "bad_signature"
    assert any(listener.answering.ignored == 30 or time.sleep(0.005) for _ in range(8000))
    assert len(echo.heads) == lines.REFUSALS + 1 + many
    assert not stranger.poll(0)


def test_a_descriptor_that_became_another_connection_is_not_shut(monkeypatch, transport, echo):
    """Cutting off looks whether the descriptor still is the connection that it was; another one lives."""
    listener = transport(curve=False).listen("zmq+tcp://127.0.0.1:0", echo)
    monkeypatch.setattr(lines, "LOOK_EVERY", 600)
    with dial(listener.url) as one:
        assert any(listener.lines.connections.strangers or time.sleep(0.005) for _ in range(8000))
        place, line = next(iter(listener.lines._strangers.items()))
        other, end = socket.socketpair()
        with other, end:
            listener.lines._lines[line.fd] = lines.Line(other.fileno(), ("somebody", 1), place)
            listener.lines._cut(line.fd)
            other.sendall(b"lives")
            assert end.recv(5) == b"lives"
            one.settimeout(0.1)
            with pytest.raises(TimeoutError):
                while True:
                    assert one.recv(65536), "the connection behind the number was ended"


def test_keys_that_are_sent_away_fill_no_log(transport, secret, echo, caplog):
    """Each key has a line once; of the same one again and again, the 1st, 2nd, 4th … time."""
    listener = transport(key=secret, clients=(public_of(new_secret()),)).listen("zmq+tcp://127.0.0.1:0", echo)
    mine = new_secret()
    for key in [mine] * 9 + [new_secret()]:
        assert (
            transport(key=key).connect(listener.url).ask(request(20), idle=WAIT).exception(WAIT).code == "unauthorized"
        )
    said = [record.getMessage() for record in caplog.records if "was sent away" in record.getMessage()]
    assert [line.partition(" so far")[0].rpartition("(")[2] for line in said] == ["1", "2", "4", "8", "10"]
    assert public_of(mine) in said[0]


def test_a_penalised_address_has_few_new_connections_and_keeps_those_of_peers(transport, secret, echo, monkeypatch):
    """Once many were refused, new ones are cut off before their handshake; who was admitted goes on."""
    # Half a refusal less: a count halves even in 1e9 s, and by the next look a hair of the last one has gone.
    monkeypatch.setattr(penalties, "GRACE", 2.5)
    monkeypatch.setattr(penalties, "HALF_LIFE", 1e9)
    monkeypatch.setattr(penalties, "PASSES", 0.0)
    listener = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo)
    friend = transport().connect(listener.url)
    assert friend.ask(request(20), idle=WAIT).result(WAIT) == request(20)
    monkeypatch.setattr(penalties, "BURST", 0.0)
    for _ in range(1000):
        with contextlib.suppress(ConnectionError), dial(listener.url) as line:  # leaves without a request
            line.recv(1)
        if listener.lines.penalties.penalised("127.0.0.1", time.monotonic()):
            break
    cut_off = listener.lines.connections.cut_off
    for _ in range(20):
        with contextlib.suppress(ConnectionError), dial(listener.url) as line:  # cut off while it connects, or after it
            assert gone(line)
    assert any(listener.lines.connections.cut_off >= cut_off + 20 or time.sleep(0.005) for _ in range(8000))
    assert friend.ask(request(20), idle=WAIT).result(WAIT) == request(20)


def test_a_flood_on_one_connection_is_cut_off_and_no_longer_read(transport, echo, raw, monkeypatch):
    """Of a penalised address not even what is thrown away is taken in."""
    monkeypatch.setattr(penalties, "GRACE", 2.5)
    monkeypatch.setattr(penalties, "HALF_LIFE", 1e9)
    monkeypatch.setattr(lines, "REFUSALS", 5)
    listener = transport(curve=False).listen("zmq+tcp://127.0.0.1:0", echo)
    stranger = raw(zmq.DEALER)
    stranger.setsockopt(zmq.RECONNECT_IVL, -1)
    monitor = stranger.get_monitor_socket(zmq.Event.DISCONNECTED)
    stranger.connect(listener.url.removeprefix("zmq+"))
    with contextlib.suppress(zmq.Again):  # it may be cut off before all are sent: then there is nobody to send to
        for number in range(100):
            stranger.send_multipart([pack(Kind.ASK, number, 20), request(20, "no:sign")], zmq.NOBLOCK)
    assert monitor.poll(WAIT * 1000)
    stranger.disable_monitor()
    monitor.close()
    assert len(echo.heads) == 5
