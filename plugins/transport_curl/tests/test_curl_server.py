"""The answering side against callers that misbehave, and its life as a listener or a mounted application."""

import asyncio
import contextlib
import errno
import logging
import socket
import threading
import time

import pytest
from dropr_transport_curl import CurlTransport, Options, accepting, asgi, asgi_app, guard
from dropr_transport_curl.accepting import Visit

from dropr_core.errors import Unreachable
from dropr_core.system import penalties
from dropr_core.system.connections import Connections
from dropr_core.testing.transport_contract import Echo, request

WAIT = 30.0


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch):
    monkeypatch.setattr(asgi, "_LINGER", 0.1)


@pytest.fixture
def serve():
    opened = []

    def start(url="http://127.0.0.1:0/dropr", **options):
        transport = CurlTransport(Options(**options), logging.getLogger("test.curl"))
        opened.append(transport)
        echo = Echo()
        return transport.listen(url, echo), echo

    yield start
    for transport in opened:
        transport.close()


def talk(listener, *parts, end=False):
    """Send raw bytes and return everything that comes back until the server hangs up."""
    port = int(listener.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as line:
        for part in parts:
            line.sendall(part)
        if end:
            line.shutdown(socket.SHUT_WR)
        back = b""
        try:
            while more := line.recv(65536):
                back += more
        except ConnectionResetError:
            pass
        return back


def dial(listener):
    """A raw connection."""
    return socket.create_connection(("127.0.0.1", int(listener.url.split(":")[2].split("/")[0])), timeout=WAIT)


def status(line):
    """The status of the next answer on a raw connection; the answer is read to its end."""
    back = b""
    while b"\r\n\r\n" not in back:
        back += line.recv(65536)
    head, _, body = back.partition(b"\r\n\r\n")
    length = next(int(part[15:]) for part in head.lower().split(b"\r\n") if part.startswith(b"content-length:"))
    while len(body) < length:
        body += line.recv(65536)
    return int(head.split()[1])


def gone(line):
    """Whether the server ended it."""
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


def post(body, length=None, path="/dropr", more=b"Connection: close\r\n"):
    size = len(body) if length is None else length
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n" % (path.encode(), size, more) + body


def test_the_answer_has_our_type_and_no_chatter(serve):
    """An answer carries the content type and its length, and neither date nor server."""
    listener, _ = serve()
    head, _, body = talk(listener, post(request(30))).partition(b"\r\n\r\n")
    assert body == request(30)
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 200 ok"
    assert sorted(line.split(b":")[0] for line in lines[1:]) == [b"connection", b"content-length", b"content-type"]


def test_fault_37_refused_before_the_body_is_sent(serve):
    """The refusal comes after the head, while the caller still holds back megabytes, and then the line closes."""
    listener, echo = serve()
    back = talk(listener, post(request(Echo.head_size, "no:peer"), length=100_000_000, more=b""))
    assert back.startswith(b"HTTP/1.1 401")
    assert b"dropr-code: unknown_peer" in back
    assert echo.answered == 0


def test_bodies_in_chunks_are_taken(serve):
    """A caller that does not announce its length is served within the same limits."""
    listener, _ = serve()
    head = b"POST /dropr HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    whole = request(100)
    parts = [b"%x\r\n%s\r\n" % (50, whole[:50]), b"%x\r\n%s\r\n0\r\n\r\n" % (50, whole[50:])]
    assert talk(listener, head, *parts).endswith(whole)


def test_a_body_that_never_ends_is_cut_at_the_admitted_length(serve):
    """More bytes than the request says are refused at once, not collected."""
    listener, echo = serve()
    head = b"POST /dropr HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    back = talk(listener, head, b"%x\r\n%s\r\n" % (10_000, request(5000) + b"." * 5000))
    assert back.startswith(b"HTTP/1.1 400")
    assert echo.answered == 0


def test_a_caller_that_hangs_up_in_the_middle_is_forgotten(serve):
    """Half a request never reaches the host."""
    listener, echo = serve()
    talk(listener, post(request(100)[:50], length=100), end=True)
    assert b"200 OK" in talk(listener, post(request(30)))
    assert echo.answered == 1


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE"])
def test_only_posts_are_taken(serve, method):
    """Other methods get a 405 that says what this is."""
    listener, _ = serve()
    back = talk(listener, b"%s /dropr HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % method)
    assert back.startswith(b"HTTP/1.1 405")


@pytest.mark.parametrize(
    ("path", "status"), [("/dropr/x", b"200"), ("/droprx", b"404"), ("/", b"404"), ("/dropr", b"200")]
)
def test_paths(serve, path, status):
    """The url's path and everything below it is the door; the rest is not."""
    listener, _ = serve()
    assert talk(listener, post(request(30), path=path)).startswith(b"HTTP/1.1 " + status)


def test_garbage_is_refused(serve):
    """Bytes that are no HTTP get a 400 and the line closes."""
    listener, _ = serve()
    assert talk(listener, b"\x00\xff nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_garbage_fills_no_log(serve, caplog, monkeypatch):
    """Of a hundred requests that are no HTTP seven are worth a line, which says how many there were."""
    monkeypatch.setattr(penalties, "GRACE", 1000)
    listener, _ = serve()
    for _ in range(100):
        assert talk(listener, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    lines = [record.getMessage() for record in caplog.records if "Invalid HTTP" in record.getMessage()]
    assert [line.partition(" so far")[0].rpartition("(")[2] for line in lines] == ["1", "2", "4", "8", "16", "32", "64"]
    assert listener.url in lines[0]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_system_without_descriptors_is_asked_again_later(serve, monkeypatch, caplog, number):
    """It costs one line and a rest, no hot loop; callers who wait are served as soon as there is room."""
    monkeypatch.setattr(accepting, "REST", 0.05)
    listener, _ = serve()
    real, tries = listener._server._socket, []

    class Scarce:
        def fileno(self):
            return real.fileno()

        def accept(self):
            tries.append(1)
            if len(tries) <= 3:
                raise OSError(number, "no more")
            return real.accept()

        def close(self):
            real.close()

    monkeypatch.setattr(listener._server, "_socket", Scarce())
    assert talk(listener, post(request(30))).startswith(b"HTTP/1.1 200")
    assert 4 <= len(tries) <= 6
    assert caplog.text.count("no new connections for a while") == 1


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


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://no-such-host.invalid:0/", "not known here"),
        ("http://192.0.2.1:0/", "no address of this machine"),
        ("https://127.0.0.1:0/", "tls.cert"),
    ],
)
def test_why_it_cannot_listen(serve, url, words):
    """What keeps a listener from opening is said in words that help."""
    with pytest.raises(Unreachable, match=words):
        serve(url)


def test_a_taken_port_is_named(serve):
    """The error for a taken port names the port and what to do."""
    listener, _ = serve()
    with pytest.raises(Unreachable, match="is taken by another program"):
        serve(listener.url)


def test_ipv6_and_names(serve):
    """Listeners take IPv6 addresses and host names, and say a url that works."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener, _ = serve("http://[::1]:0/dropr")
    except Unreachable:
        pytest.skip("no IPv6 on this machine's loopback")
    transport = CurlTransport(Options(), logging.getLogger("test.curl"))
    assert transport.connect(listener.url).ask(request(30), idle=WAIT).result(WAIT) == request(30)
    transport.close()


def test_a_listener_at_rest_costs_nothing(serve):
    """An idle listener and an idle client wake up (almost) never: no tick, no polling."""
    listener, _ = serve()
    transport = CurlTransport(Options(), logging.getLogger("test.curl"))
    transport.connect(listener.url).ask(request(30), idle=WAIT).result(WAIT)
    turns = []
    loop = listener._server.loop
    loop.call_soon_threadsafe(lambda: turns.append(loop._selector.select))
    original, counted = loop._selector.select, []
    loop._selector.select = lambda timeout=None: (counted.append(timeout), original(timeout))[1]
    engine_threads = [thread for thread in threading.enumerate() if thread.name == "dropr-curl"]
    time.sleep(0.5)
    assert len(counted) <= 3
    assert engine_threads
    transport.close()


def test_mounted_in_another_application():
    """The application takes POSTs under a mount of Starlette's, wherever that is."""
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/post/office", app=asgi_app(Echo()))])
    sent = []

    async def run(path):
        sent.clear()
        body = [{"type": "http.request", "body": request(40), "more_body": False}]
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "", "headers": [],
            "query_string": b"", "http_version": "1.1", "scheme": "http", "client": None, "server": ("x", 80),
        }  # fmt: skip

        async def receive():
            return body.pop()

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)
        return sent[0]["status"], sent[-1]["body"]

    assert asyncio.run(run("/post/office/"))[1] == request(40)
    assert asyncio.run(run("/post/office/deep/down"))[1] == request(40)
    assert asyncio.run(run("/elsewhere"))[0] == 404
