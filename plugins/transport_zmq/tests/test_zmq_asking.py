"""The asking side against peers that misbehave or vanish: what is certain, what is unknown, what is refused."""

import socket
import threading

import pytest
from dropr_transport_zmq.frames import CHUNK, VERSION, Kind, pack, refusal
from zmq_peer import WAIT, get, url_of

from dropr_core.errors import Refused, Unanswered, Unreachable
from dropr_core.testing.echo import MIB, Echo, request


def test_fault_27_an_unknown_host_name(transport):
    """A name that DNS does not know is certainly unreachable."""
    connection = transport(curve=False).connect("zmq+tcp://no-such-host.invalid:8421")
    with pytest.raises(Unreachable, match="DNS"):
        connection.ask(b"x", idle=WAIT).result(WAIT)


def test_a_host_name_is_looked_up(transport, echo):
    """A name works like a number."""
    url = transport(curve=False).listen("zmq+tcp://localhost:0", echo).url
    assert transport(curve=False).connect(url).ask(request(20), idle=WAIT).result(WAIT) == request(20)


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 200])
def test_fault_31_another_program_at_the_address(connect, says):
    """What accepts the connection but speaks no ZeroMQ has certainly got no request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = []

        def serve():
            try:
                while True:
                    one, _ = server.accept()
                    accepted.append(one)
                    one.sendall(says)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        connection = connect(f"zmq+tcp://127.0.0.1:{server.getsockname()[1]}", connect=0.3)
        with pytest.raises(Unreachable):
            connection.ask(request(20), idle=WAIT).result(WAIT)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in accepted:
            one.close()


def test_fault_28_a_peer_that_never_answers(connect, peer):
    """A request that was sent and not answered is unknown after its idle time, and the peer is told to forget it."""
    future = connect(url_of(peer)).ask(request(20), idle=0.3)
    who, head, _ = get(peer)
    assert head.kind == Kind.ASK
    with pytest.raises(Unanswered, match="nothing came or went"):
        future.result(WAIT)
    assert get(peer) == (who, (Kind.CANCEL, head.request, 0), b"")


def test_fault_31_a_peer_dies_in_the_middle_of_its_answer(connect, peer):
    """Half an answer is none: the request is unknown at once, and does not wait for its idle time."""
    future = connect(url_of(peer)).ask(request(20), idle=600)
    who, head, _ = get(peer)
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 8 * CHUNK), b"x" * CHUNK])
    assert get(peer)[1].kind == Kind.GRANT
    peer.close()
    with pytest.raises(Unanswered, match="broke"):
        future.result(WAIT)


def test_a_request_under_way_is_unknown_and_a_waiting_one_certain(connect, peer):
    """After a break, what was handed over is unknown; what is asked then finds nobody and is certain."""
    connection = connect(url_of(peer))
    future = connection.ask(request(20), idle=600)
    get(peer)
    peer.close()
    assert isinstance(future.exception(WAIT), Unanswered)
    assert isinstance(connection.ask(request(20), idle=600).exception(WAIT), Unreachable)


def test_fault_42_the_listener_comes_back(transport, secret):
    """The same connection finds a listener that was closed and opened again, time after time."""
    asking = transport()
    url, connection = "zmq+tcp://127.0.0.1:0", None
    for _ in range(3):
        answering, echo = transport(key=secret), Echo()
        url = answering.listen(url, echo).url
        connection = connection or asking.connect(url)
        for _ in range(20):
            error = connection.ask(request(MIB), idle=WAIT).exception(WAIT)
            if error is None:
                break
            assert isinstance(error, Unanswered | Unreachable)
        assert error is None
        answering.close()
    for _ in range(20):  # the first may still meet the end of the old connection
        error = connection.ask(request(20), idle=WAIT).exception(WAIT)
        if isinstance(error, Unreachable):
            break
        assert isinstance(error, Unanswered)
    assert isinstance(error, Unreachable)


def test_an_answer_to_an_old_connection_is_ignored(connect, peer):
    """Answers to requests that nobody waits for change nothing."""
    connection = connect(url_of(peer))
    future = connection.ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    for kind in Kind:
        peer.send_multipart([who, pack(kind, head.request + 1000, 5), b"wrong"])
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 5), b"right"])
    assert future.result(WAIT) == b"right"


@pytest.mark.parametrize(
    "parts",
    [
        lambda n: [pack(Kind.ANSWER, n, 3), b"four"],
        lambda n: [pack(Kind.ANSWER, n, 1 << 62), b"x"],
        lambda n: [pack(Kind.MORE, n, 0), b"x"],
        lambda n: [pack(Kind.ASK, n, 1), b"x"],
        lambda n: [pack(99, n, 1), b"x"],
        lambda n: [pack(Kind.ANSWER, n, 9 * MIB), b""],
    ],
)
def test_fault_31_a_malformed_answer_is_unknown(connect, peer, parts):
    """Whatever an answer breaks of the rules, the request ends as unknown and the next one is served."""
    connection = connect(url_of(peer), max_answer=8 * MIB)
    future = connection.ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    peer.send_multipart([who, *parts(head.request)])
    assert isinstance(future.exception(WAIT), Unanswered)
    future = connection.ask(request(20), idle=WAIT)
    while (got := get(peer))[1].kind == Kind.CANCEL:
        pass
    peer.send_multipart([who, pack(Kind.ANSWER, got[1].request, 2), b"ok"])
    assert future.result(WAIT) == b"ok"


@pytest.mark.parametrize(
    "parts", [[], [b""], [b"", b""], [b"x" * 18], [b"\x01" * 18, b"", b""], [bytes([VERSION + 1]) * 18, b"x"]]
)
def test_messages_that_are_none_are_ignored(connect, peer, parts):
    """Frames that are no messages of this protocol neither end a request nor stop the thread."""
    future = connect(url_of(peer)).ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    peer.send_multipart([who, *parts])
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 2), b"ok"])
    assert future.result(WAIT) == b"ok"


def test_refusals_are_made_harmless(connect, peer):
    """Code and text of a stranger's refusal reach people as one line without control characters."""
    future = connect(url_of(peer)).ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    peer.send_multipart([who, pack(Kind.REFUSED, head.request), refusal("a\x1b[2Jb", "first\nsecond\xff\x00")])
    error = future.exception(WAIT)
    assert isinstance(error, Refused)
    assert error.code.isprintable()
    assert error.reason.isprintable()
