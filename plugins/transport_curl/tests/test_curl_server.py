"""The answering side: what it takes and refuses, and its life as a listener or a mounted application."""

import asyncio
import errno
import logging
import socket
import threading
import time

import pytest
from curl_callers import WAIT, post, talk
from dropr_transport_curl import CurlTransport, Options, accepting, asgi_app

from dropr_core.errors import Unreachable
from dropr_core.system import penalties
from dropr_core.testing.transport_contract import Echo, request

pytestmark = pytest.mark.usefixtures("_short_goodbyes")


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
