"""Places at a ZeroMQ listener: whoever shows no key takes none from those who have one."""

import time

import pytest
import zmq
from dropr_transport_zmq.frames import Kind, pack, unpack

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
    assert any(not door.answering.busy or time.sleep(0.005) for _ in range(2000))
    assert echo.heads == [HEAD], "nobody was asked to judge less than a head"
