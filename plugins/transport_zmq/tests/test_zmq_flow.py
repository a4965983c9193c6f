"""How much the asking side sends before it is told to go on, and that requests take turns."""

from dropr_transport_zmq.frames import CHUNK, FIRST_WINDOW, OPENING, WINDOW, Kind, pack
from zmq_peer import WAIT, get, url_of

from dropr_core.errors import Unanswered, Unreachable
from dropr_core.testing.echo import MIB, Echo, request


def test_no_more_than_the_window_is_sent_without_a_grant(connect, peer):
    """A peer that grants nothing gets the first window and not a byte more; a grant lets the rest go."""
    size = FIRST_WINDOW + 3 * CHUNK
    future = connect(url_of(peer)).ask(request(size), idle=WAIT)
    got = b""
    while len(got) < FIRST_WINDOW:
        who, head, payload = get(peer)
        assert head.number == (size if head.kind == Kind.ASK else len(got))
        got += payload
    assert len(got) == FIRST_WINDOW
    assert not peer.poll(100)
    peer.send_multipart([who, pack(Kind.GRANT, head.request, size), b""])
    while len(got) < size:
        got += get(peer)[2]
    assert got == request(size)
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 0), b""])
    assert future.result(WAIT) == b""


def test_a_request_begins_with_the_window_that_the_listener_has_said(connect, peer):
    """After GRANT for all requests a later one goes out so far without waiting; a new connection begins small again."""
    connection = connect(url_of(peer))
    first = connection.ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    peer.send_multipart([who, pack(Kind.GRANT, OPENING, 2 * FIRST_WINDOW), b""])
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 0), b""])
    assert first.result(WAIT) == b""
    connection.ask(request(8 * FIRST_WINDOW), idle=WAIT)
    got = b""
    while len(got) < 2 * FIRST_WINDOW:
        got += get(peer)[2]
    assert len(got) == 2 * FIRST_WINDOW
    assert not peer.poll(100)


def test_after_a_large_answer_the_next_may_begin_with_the_full_window(connect, peer):
    """An asker that got a large answer says with its next request how much of the answer may come at once."""
    connection = connect(url_of(peer))
    size = FIRST_WINDOW + CHUNK
    first = connection.ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    for sent in range(0, size, CHUNK):
        kind, number = (Kind.MORE, sent) if sent else (Kind.ANSWER, size)
        peer.send_multipart([who, pack(kind, head.request, number), request(size)[sent : sent + CHUNK]])
    assert first.result(WAIT) == request(size)
    connection.ask(request(20), idle=WAIT)
    later = []
    while not later or later[-1][0] != (Kind.GRANT, WINDOW):  # until it has come; grants of the first come before
        _, head, _ = get(peer)
        later.append(((head.kind, head.number), head.request))
    assert later[-1][1] == next(request for (kind, _), request in later if kind == Kind.ASK)


def test_high_water_marks_never_block_the_asker(connect, peer):
    """A peer that reads nothing fills bounded queues; what cannot be queued fails, and `ask` returns at once."""
    connection = connect(url_of(peer), high_water=8, max_waiting=300)
    futures = [connection.ask(request(FIRST_WINDOW), idle=1.0) for _ in range(301)]
    assert isinstance(futures[-1].exception(WAIT), Unreachable)  # above max_waiting: at once
    errors = [future.exception(WAIT) for future in futures]
    assert {type(error) for error in errors} <= {Unreachable, Unanswered}
    assert sum(isinstance(error, Unreachable) for error in errors) > 1  # those of which nothing was handed over


def test_a_small_request_passes_a_big_one(transport, secret):
    """Requests take turns: one of 16 MiB does not keep a small one waiting until it is through."""
    echo = Echo()
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    connection = transport().connect(url)
    order = []
    big = connection.ask(request(16 * MIB), idle=WAIT)
    big.add_done_callback(lambda _: order.append("big"))
    small = connection.ask(request(20), idle=WAIT)
    small.add_done_callback(lambda _: order.append("small"))
    assert big.result(WAIT) == request(16 * MIB)
    assert order == ["small", "big"]
