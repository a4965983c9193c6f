"""The answering side against strangers: malformed messages, garbage on the port, callers that stall or vanish."""

import os
import socket
import stat
import threading
import time
from urllib.parse import urlsplit

import pytest
import zmq
from dropr_transport_zmq.frames import (
    CHUNK,
    FIRST_WINDOW,
    HEAD_BYTES,
    MAX_FRAME,
    OPENING,
    VERSION,
    WINDOW,
    Kind,
    pack,
    unpack,
)
from dropr_transport_zmq.keys import public_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropr_core.errors import Unreachable
from dropr_core.testing.echo import MIB, Echo, request

WAIT = 30.0


@pytest.fixture
def door(transport, echo):
    """An open door in plain text, with short patience."""
    return transport(curve=False, body_idle=0.3).listen("zmq+tcp://127.0.0.1:0", echo)


@pytest.fixture
def caller(raw, door):
    """A bare DEALER that may say anything."""
    dealer = raw(zmq.DEALER)
    dealer.connect(door.url.removeprefix("zmq+"))
    return dealer


def get(dealer):
    """The next message at a bare dealer: head, payload."""
    head, payload = dealer.recv_multipart()
    return unpack(head), payload


def say(dealer, kind, number, value=0, payload=b""):
    """Send one message."""
    dealer.send_multipart([pack(kind, number, value), payload])


def alive(dealer, number=777_777):
    """The door still answers this caller."""
    say(dealer, Kind.ASK, number, 20, request(20))
    while True:
        head, payload = get(dealer)
        if head.request == number:
            assert (head.kind, payload) == (Kind.ANSWER, request(20))
            return


def becomes_quiet(door):
    """Whether nothing is under way any more, soon: the answer may be here before its sender has noted it."""
    return any(not door.answering.busy or time.sleep(0.005) for _ in range(8000))


HEADS = st.one_of(
    st.binary(max_size=40),
    st.builds(
        pack,
        st.sampled_from([*Kind, 0, 99, 255]),
        st.sampled_from([0, 1, 2, (1 << 64) - 1]),
        st.sampled_from([0, 1, 20, 64, CHUNK, 1 << 40, (1 << 64) - 1]),
    ),
    st.builds(lambda head: bytes([VERSION + 1]) + head[1:], st.builds(pack, st.just(1), st.integers(0, 9))),
)
KNOWN = (request(64), request(20), request(64)[:20], b"x" * 5000)
PAYLOADS = st.one_of(st.binary(max_size=200), st.sampled_from(KNOWN))
MESSAGES = st.one_of(
    st.tuples(HEADS, PAYLOADS).map(list),
    st.lists(st.binary(max_size=64), min_size=1, max_size=5),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, min_size=1, max_size=6))
def test_fault_31_no_message_of_a_stranger_stops_the_door(caller, messages):
    """Whatever frames a stranger sends, it and others are still served afterwards."""
    for parts in messages:
        caller.send_multipart(parts)
    alive(caller)


def test_requests_that_are_whole_reach_the_host_once(caller, echo):
    """A second request under the number of one that is under way is refused with it, never answered twice."""
    say(caller, Kind.ASK, 5, 25, request(25, "hold"))
    say(caller, Kind.ASK, 5, 25, request(25, "hold"))
    head, payload = get(caller)
    assert (head.kind, head.request) == (Kind.REFUSED, 5)
    assert payload.startswith(b"bad_frame\0")
    echo.let_go()
    alive(caller)
    assert echo.answered == 2


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([(Kind.ASK, 10, b"x" * 20)], b"bad_frame"),
        ([(Kind.ASK, 30_000, request(30_000)[:5000]), (Kind.MORE, 4000, b"x" * 5000)], b"bad_frame"),
        ([(Kind.ASK, 30_000, request(30_000)[:5000]), (Kind.MORE, 5000, b"crumb")], b"bad_frame"),
        ([(Kind.ASK, 30_000, request(30_000)[:5000]), (Kind.ANSWER, 5, b"")], b"bad_frame"),
        ([(Kind.ASK, 20, request(30)[:20])], b"bad_frame"),
    ],
)
def test_broken_rules_are_refused(caller, messages, code):
    """Wrong lengths, offsets, crumbs and kinds end the request with a refusal."""
    for kind, value, payload in messages:
        say(caller, kind, 9, value, payload)
    while (got := get(caller))[0].kind == Kind.GRANT:
        pass
    assert got[0][:2] == (Kind.REFUSED, 9)
    assert got[1].partition(b"\0")[0] == code
    alive(caller)


def test_another_version_is_told_so(caller):
    """A message of a later version is refused with that word, under the number of its request."""
    caller.send_multipart([bytes([VERSION + 1]) + pack(Kind.ASK, 42, 20)[1:] + b"more", b"x"])
    head, payload = get(caller)
    assert (head.kind, head.request) == (Kind.REFUSED, 42)
    assert payload.startswith(b"version\0")


def test_fault_30_a_frame_beyond_the_limit_ends_the_connection(caller, echo):
    """A frame longer than the limit is not even kept; the caller is cut off, and may come again."""
    caller.send_multipart([pack(Kind.ASK, 1, 1 << 30), b"x" * (MAX_FRAME + 1)])
    alive_after = False
    for number in range(2, 200):
        say(caller, Kind.ASK, number, 20, request(20))
        if caller.poll(200):
            alive_after = get(caller)[0].kind == Kind.ANSWER
            break
    assert alive_after
    assert 1 << 30 not in echo.heads


def test_fault_29_a_caller_that_stalls_is_given_up(caller):
    """Half a request whose rest does not come is forgotten, and the caller is told."""
    say(caller, Kind.ASK, 3, 50_000, request(50_000)[:5000])
    assert get(caller)[0].kind == Kind.GRANT
    head, payload = get(caller)
    assert (head.kind, head.request) == (Kind.FAILED, 3)
    assert b"too long" in payload
    alive(caller)


def test_a_large_request_is_answered_with_the_window_of_the_next_ones(caller):
    """Who sends more than the first window is told once what later requests may begin with, and they may."""
    size = FIRST_WINDOW + CHUNK
    say(caller, Kind.ASK, 1, size, request(size)[:CHUNK])
    told = [get(caller)[0] for _ in range(2)]
    assert [(head.request, head.number) for head in told if head.request == OPENING] == [(OPENING, WINDOW)]
    body = request(FIRST_WINDOW + 4 * CHUNK)
    for sent in range(0, len(body), CHUNK):  # no grant is waited for
        say(caller, Kind.MORE if sent else Kind.ASK, 2, sent or len(body), body[sent : sent + CHUNK])
    kinds = []
    while (head := get(caller)[0]).kind != Kind.ANSWER:
        assert head.request == 2
        kinds.append(head.kind)
    assert set(kinds) == {Kind.GRANT}


def test_a_caller_that_does_not_take_its_answer_is_given_up(caller, door):
    """An answer whose receiver grants nothing is not kept for ever."""
    body = request(MIB)
    sent = 0
    while sent < len(body):
        piece = body[sent : sent + CHUNK]
        say(caller, Kind.MORE if sent else Kind.ASK, 4, sent or len(body), piece)
        sent += len(piece)
        if sent < len(body):
            assert get(caller)[0].kind == Kind.GRANT
    while (got := get(caller))[0].kind != Kind.FAILED:
        assert got[0].kind in (Kind.ANSWER, Kind.MORE, Kind.GRANT)
    assert becomes_quiet(door)


def test_cancel_forgets_the_request(caller, echo, door):
    """What the asker gave up is not answered any more."""
    say(caller, Kind.ASK, 6, 25, request(25, "hold"))
    assert echo.asked.acquire(timeout=WAIT)
    say(caller, Kind.CANCEL, 6)
    alive(caller)
    assert becomes_quiet(door)
    echo.let_go()
    alive(caller, 8)


def test_an_answer_to_a_departed_caller_is_dropped(raw, door, echo):
    """A caller that died while its request was under way leaves nothing behind."""
    dealer = raw(zmq.DEALER)
    dealer.connect(door.url.removeprefix("zmq+"))
    say(dealer, Kind.ASK, 1, 25, request(25, "hold"))
    assert echo.asked.acquire(timeout=WAIT)
    dealer.close()
    other = raw(zmq.DEALER)
    other.connect(door.url.removeprefix("zmq+"))
    alive(other)
    echo.let_go()
    for number in range(500):
        alive(other, number)
        if not door.answering.busy:
            break
    assert becomes_quiet(door)


def test_too_many_at_once_are_told_to_come_back(transport, echo):
    """Above 'max_requests' a caller is refused as busy and nothing grows."""
    url = transport(curve=False, max_requests=3).listen("zmq+tcp://127.0.0.1:0", echo).url
    connection = transport(curve=False).connect(url)
    held = [connection.ask(request(20, "hold"), idle=WAIT) for _ in range(3)]
    for _ in held:
        assert echo.asked.acquire(timeout=WAIT)
    assert connection.ask(request(20), idle=WAIT).exception(WAIT).code == "busy"
    echo.let_go()
    assert all(future.result(WAIT) for future in held)
    assert connection.ask(request(20), idle=WAIT).result(WAIT)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), b"\xff" + bytes(8) + b"\x7f" + bytes(60)],
    ids=["nothing", "http", "noise", "zmtp"],
)
@pytest.mark.parametrize("curve", [False, True])
def test_garbage_on_the_port(transport, echo, secret, garbage, curve):
    """Bytes that are no ZeroMQ disturb nobody."""
    url = transport(key=secret, curve=curve).listen("zmq+tcp://127.0.0.1:0", echo).url
    parts = urlsplit(url)
    for _ in range(5):
        with socket.create_connection((parts.hostname, parts.port)) as line:
            line.sendall(garbage)
    assert transport(curve=curve).connect(url).ask(request(20), idle=WAIT).result(WAIT) == request(20)


def test_the_listener_says_its_public_key(transport, echo, secret):
    """The url of an open door is what peers put into their files."""
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    assert url.endswith(f"?curve={public_of(secret)}")
    assert secret not in url


def test_listening_without_a_key_is_refused(transport, echo):
    """Nobody listens in plain text by accident, and the error says both ways out."""
    with pytest.raises(Unreachable, match="curve: false"):
        transport().listen("zmq+tcp://127.0.0.1:0", echo)


def test_a_socket_file_belongs_to_its_owner_and_is_not_stolen(transport, echo, tmp_path):
    """Only this user may use the socket; a second listener is refused; a dead one's file is no hindrance."""
    path = tmp_path / "dropr.sock"
    listener = transport().listen(f"zmq+ipc://{path}", echo)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Unreachable, match="held by pid"):
        transport().listen(f"zmq+ipc://{path}", Echo())
    assert transport().connect(listener.url).ask(request(20), idle=WAIT).result(WAIT) == request(20)
    listener.close()
    path.touch()
    transport().listen(f"zmq+ipc://{path}", echo)
    assert transport().connect(f"zmq+ipc://{path}").ask(request(20), idle=WAIT).result(WAIT) == request(20)


def test_a_listener_that_drains_takes_nothing_new_from_old_callers(transport, echo):
    """While a door closes, a request on a standing connection is certain not to have been taken."""
    listener = transport(curve=False).listen("zmq+tcp://127.0.0.1:0", echo)
    connection = transport(curve=False).connect(listener.url)
    held = connection.ask(request(20, "hold"), idle=WAIT)
    assert echo.asked.acquire(timeout=WAIT)
    closing = threading.Thread(target=listener.close, kwargs={"drain": WAIT})
    closing.start()
    error = None
    while error is None:
        error = connection.ask(request(20), idle=WAIT).exception(WAIT)
    assert isinstance(error, Unreachable)
    echo.let_go()
    assert held.result(WAIT) == request(20, "hold")
    closing.join()


def test_a_caller_that_reads_nothing_is_not_tried_for_ever(transport, raw, echo):
    """Whoever takes no answers for too long is forgotten, with all that waits for it, and others are served."""
    door = transport(curve=False, body_idle=0.3, high_water=8).listen("zmq+tcp://127.0.0.1:0", echo)
    dealer = raw(zmq.DEALER)
    dealer.setsockopt(zmq.RCVHWM, 1)
    dealer.connect(door.url.removeprefix("zmq+"))
    for number in range(300):
        say(dealer, Kind.ASK, number, CHUNK, request(CHUNK))
    other = transport(curve=False).connect(door.url)
    for _ in range(3000):
        assert other.ask(request(20), idle=WAIT).result(WAIT) == request(20)
        if echo.asked.acquire(blocking=False) and not door.answering.busy:
            break
    assert becomes_quiet(door)


def test_ip_version_6(transport, echo, secret):
    """Addresses of IPv6 stand in brackets."""
    try:
        url = transport(key=secret).listen("zmq+tcp://[::1]:0", echo).url
    except Unreachable:
        pytest.skip("this machine has no IPv6")
    assert transport().connect(url).ask(request(20), idle=WAIT).result(WAIT) == request(20)


def test_closing_never_hangs_on_a_caller_that_reads_nothing(transport, raw, echo):
    """Answers that nobody takes do not keep a transport from closing."""
    transport_ = transport(curve=False, linger=0.1, body_idle=600)
    dealer = raw(zmq.DEALER)
    dealer.setsockopt(zmq.RCVHWM, 1)
    dealer.connect(transport_.listen("zmq+tcp://127.0.0.1:0", echo).url.removeprefix("zmq+"))
    for number in range(200):
        say(dealer, Kind.ASK, number, CHUNK, request(CHUNK))
    for _ in range(200):
        assert echo.asked.acquire(timeout=WAIT)
    closing = threading.Thread(target=transport_.close)
    closing.start()
    closing.join(WAIT)
    assert not closing.is_alive()


def test_heads_have_the_documented_size():
    """docs/transports/zmq.md says 18 bytes."""
    assert HEAD_BYTES == 18
