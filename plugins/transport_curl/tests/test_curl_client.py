"""The asking side against servers that misbehave: what is certain, what is unknown, what is refused."""

import logging
import threading
import time

import pytest
from dropr_transport_curl import CurlTransport, Options

from dropr_core.errors import Closed, Refused, Unanswered, Unreachable

WAIT = 30.0
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.dropr.v1\r\n"


@pytest.fixture
def make():
    opened = []

    def start(**options):
        opened.append(CurlTransport(Options(**options), logging.getLogger("test.curl")))
        return opened[-1]

    yield start
    for transport in opened:
        transport.close()


@pytest.fixture
def ask(make):
    def ask(url, body=b"request", *, idle=WAIT, **options):
        return make(**options).connect(url).ask(body, idle=idle).result(WAIT)

    return ask


def answer(status, text=b"", headers=b""):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s" % (status, len(text), headers, text)


def test_a_request_is_one_plain_post(raw, ask):
    """The request goes out at once, without waiting for a 100, with our content type and nothing of the environment."""
    server = raw(OK + b"Content-Length: 6\r\n\r\nanswer")
    assert ask(server.url, b"x" * 2_000_000) == b"answer"
    head, body = server.seen[0]
    lines = {line.split(b":")[0].lower(): line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")[1:]}
    assert head.startswith(b"POST /dropr HTTP/1.1")
    assert lines[b"content-type"] == b"application/vnd.dropr.v1"
    assert lines[b"content-length"] == b"2000000"
    assert not {b"expect", b"cookie", b"authorization", b"accept-encoding"} & set(lines)
    assert len(body) == 2_000_000


def test_connections_are_kept_and_used_again(raw, make):
    """Requests one after the other go through one TCP connection."""
    accepted = []

    def script(connection, server):
        accepted.append(connection)
        while True:
            server.read_request(connection)
            connection.sendall(OK + b"Content-Length: 1\r\n\r\n.")

    server = raw(script)
    transport = make()
    connection = transport.connect(server.url)
    for _ in range(20):
        assert connection.ask(b"request", idle=WAIT).result(WAIT) == b"."
    transport.close()
    assert len(accepted) == 1


def test_fault_27_an_unknown_host_name(ask):
    """A name that DNS does not know is certainly unreachable, and the error says what to check."""
    with pytest.raises(Unreachable, match="DNS"):
        ask("http://no-such-host.invalid:8420/")


def test_fault_27_connect_time_is_bounded(ask):
    """An address that never answers a connection attempt is given up after the option 'connect'."""
    import socket

    listener = socket.socket()  # a full backlog: the kernel drops further attempts in silence
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fill = []
    try:
        for _ in range(4):
            fill.append(socket.socket())
            fill[-1].setblocking(False)
            fill[-1].connect_ex(listener.getsockname())
        with pytest.raises(Unreachable):
            ask(f"http://127.0.0.1:{listener.getsockname()[1]}/", connect=0.3)
    finally:
        for one in (*fill, listener):
            one.close()


def test_fault_28_half_open(raw, ask):
    """A server that accepts and never reads nor answers is given up as unknown after the idle time."""
    server = raw(lambda connection, server: server.done.wait(WAIT))
    with pytest.raises(Unanswered, match="nothing came or went"):
        ask(server.url, idle=0.2)


def test_fault_28_a_big_request_that_nobody_reads(raw, ask):
    """A request that fills the socket's buffers and then stands still is idle too."""
    server = raw(lambda connection, server: server.done.wait(WAIT))
    with pytest.raises(Unanswered):
        ask(server.url, b"x" * 30_000_000, idle=0.2)


def test_slow_but_steady_is_no_idleness(raw, ask):
    """An answer whose bytes come with pauses shorter than the idle time arrives, however long it takes."""

    def script(connection, server):
        server.read_request(connection)
        connection.sendall(OK + b"Content-Length: 8\r\n\r\n")
        for _ in range(8):
            connection.sendall(b".")
            server.done.wait(0.2)

    assert ask(raw(script).url, idle=0.8) == b"." * 8


def test_fault_29_a_trickle_is_given_up(raw, ask):
    """An answer that moves, but below the least rate, is given up as unknown."""

    def script(connection, server):
        server.read_request(connection)
        connection.sendall(OK + b"Content-Length: 1000000\r\n\r\n")
        while not server.done.wait(0.02):
            connection.sendall(b".")

    with pytest.raises(Unanswered, match="min_rate"):
        ask(raw(script).url, min_rate=10_000, rate_window=0.3)


def test_fault_29_waiting_for_an_answer_is_no_trickle(raw, ask):
    """A long poll sends nothing for longer than the rate's window and is left alone."""

    def script(connection, server):
        server.read_request(connection)
        server.done.wait(0.6)
        connection.sendall(OK + b"Content-Length: 1\r\n\r\n.")

    assert ask(raw(script).url, min_rate=1_000_000, rate_window=0.1) == b"."


def test_fault_30_headers_then_nothing(raw, ask):
    """Headers that promise a body which never comes are unknown after the idle time."""

    def script(connection, server):
        server.read_request(connection)
        connection.sendall(OK + b"Content-Length: 100\r\n\r\n")
        server.done.wait(WAIT)

    with pytest.raises(Unanswered):
        ask(raw(script).url, idle=0.2)


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n", b"", b"Content-Length: 99999999999\r\n"])
def test_fault_30_an_endless_body(raw, ask, framing):
    """An answer over the limit is cut off there, whichever way its length is told."""

    def script(connection, server):
        server.read_request(connection)
        connection.sendall(OK + framing + b"\r\n")
        chunk = b"x" * 65536
        while not server.done.is_set():
            connection.sendall(b"10000\r\n" + chunk + b"\r\n" if framing.startswith(b"T") else chunk)

    with pytest.raises(Unanswered, match="max_answer"):
        ask(raw(script).url, max_answer=1 << 20)


def test_fault_30_endless_headers(raw, ask):
    """Headers without an end are cut off."""

    def script(connection, server):
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not server.done.is_set():
            connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")

    with pytest.raises(Unanswered):
        ask(raw(script).url)


@pytest.mark.parametrize(
    "bytes_back",
    [
        b"",
        b"garbage that is not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Ty",
        OK + b"Content-Length: 100\r\n\r\nonly this",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        answer(b"204 No Content"),
        answer(b"200 OK", b"no type"),
        answer(b"200 OK", b"{}", b"Content-Type: application/json\r\n"),
    ],
)
def test_fault_31_truncated_or_garbage(raw, ask, bytes_back):
    """Anything but a whole answer of a dropr node is unknown."""
    with pytest.raises(Unanswered):
        ask(raw(bytes_back).url)


def test_fault_31_the_page_of_a_proxy(raw, ask):
    """A friendly HTML page with status 200 is no answer, and the error shows what it was."""
    page = answer(b"200 OK", b"<html><h1>Welcome to\x00 the hotel</h1>", b"Content-Type: text/html\r\n")
    with pytest.raises(Unanswered, match=r"text/html.*proxy.*Welcome to") as caught:
        ask(raw(page).url)
    assert str(caught.value).isprintable()


def test_ancestor_10_a_status_is_looked_at(raw, ask):
    """An error page is told by its status and its text, apart from an outage."""
    page = answer(b"502 Bad Gateway", b"upstream\n is down " + b"x" * 1000, b"Content-Type: text/html\r\n")
    with pytest.raises(Unanswered, match=r"502.*upstream is down") as caught:
        ask(raw(page).url)
    assert len(str(caught.value)) < 400


def test_fault_34_a_500_is_unknown(raw, ask):
    """A 500 does not say what became of the request."""
    with pytest.raises(Unanswered, match="500"):
        ask(raw(answer(b"500 Internal Server Error", b"oops")).url)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (b"400 Bad Request", "bad_request"),
        (b"401 Unauthorized", "unauthorized"),
        (b"403 Forbidden", "unauthorized"),
        (b"404 Not Found", "not_dropr"),
        (b"413 Too Large", "too_big"),
        (b"429 Slow Down", "busy"),
        (b"503 Unavailable", "busy"),
        (b"418 Teapot", "bad_request"),
    ],
)
def test_fault_37_refusals_of_http_have_codes(raw, ask, status, code):
    """A status that refuses the request becomes Refused with a word for machines."""
    with pytest.raises(Refused) as caught:
        ask(raw(answer(status, b"why")).url)
    assert caught.value.code == code
    assert "why" in caught.value.reason


def test_retry_after_is_told(raw, ask):
    """The pause that a busy server asks for is in the error."""
    with pytest.raises(Refused, match="120 s"):
        ask(raw(answer(b"503 Busy", b"", b"Retry-After: 120\r\n")).url)


def test_a_dropr_refusal_keeps_its_own_code(raw, ask):
    """An answer that carries a dropr code is the peer's word, whatever its status."""
    with pytest.raises(Refused) as caught:
        ask(raw(answer(b"403 Forbidden", b"not you", b"Dropr-Code: unknown_peer\r\n")).url)
    assert (caught.value.code, caught.value.reason) == ("unknown_peer", "not you")


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary", b"308 Permanent"])
def test_fault_38_redirects_are_refused(raw, ask, status):
    """A redirect is never followed; the error names where it leads."""
    other = raw(OK + b"Content-Length: 0\r\n\r\n")
    with pytest.raises(Refused, match=other.url) as caught:
        ask(raw(answer(status, b"", b"Location: %s\r\n" % other.url.encode())).url)
    assert caught.value.code == "redirect"
    assert not other.seen


def test_a_kept_line_that_dies_never_counts_as_nothing_sent(raw, make):
    """The peer takes a second request on a kept connection and vanishes: unknown, although a reconnect fails."""
    server = None

    def script(connection, server):
        server.read_request(connection)
        connection.sendall(OK + b"Content-Length: 1\r\n\r\n.")
        server.read_request(connection)
        import socket

        server._socket.shutdown(socket.SHUT_RDWR)
        server._socket.close()

    server = raw(script)
    server.close = lambda: None
    connection = make().connect(server.url)
    assert connection.ask(b"first", idle=WAIT).result(WAIT) == b"."
    assert isinstance(connection.ask(b"second", idle=WAIT).exception(WAIT), Unanswered)


def test_environment_proxies_are_not_used(raw, ask, monkeypatch):
    """Only the option decides about a proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(raw(OK + b"Content-Length: 1\r\n\r\n.").url) == b"."


def test_a_proxy_is_asked(raw, ask):
    """With the option 'proxy' the request goes to the proxy with the whole url."""
    proxy = raw(OK + b"Content-Length: 1\r\n\r\n.")
    assert ask("http://peer.example:8420/x", proxy=proxy.url) == b"."
    assert proxy.seen[0][0].startswith(b"POST http://peer.example:8420/x HTTP/1.1")


def test_ancestor_07_a_slow_peer_blocks_nobody(raw, make):
    """While one peer hangs with many requests, another peer's requests pass."""
    slow = raw(lambda connection, server: server.done.wait(WAIT))
    fast = raw(OK + b"Content-Length: 1\r\nConnection: close\r\n\r\n.")
    transport = make()
    stuck = [transport.connect(slow.url).ask(b"request", idle=WAIT) for _ in range(30)]
    connection = transport.connect(fast.url)
    for _ in range(30):
        assert connection.ask(b"request", idle=WAIT).result(WAIT) == b"."
    assert not any(future.done() for future in stuck)
    transport.close()
    assert all(isinstance(future.exception(WAIT), Unanswered | Unreachable) for future in stuck)


def test_no_thread_before_the_first_request(make):
    """Connecting does no I/O and starts nothing."""
    before = threading.active_count()
    make().connect("http://127.0.0.1:9/")
    assert threading.active_count() == before


def test_fault_18_a_forked_child_is_told(raw, make, monkeypatch):
    """In a forked child the parent's transport refuses to be used, instead of hanging without its thread."""
    server = raw(OK + b"Content-Length: 1\r\n\r\n.")
    connection = make().connect(server.url)
    assert connection.ask(b"request", idle=WAIT).result(WAIT) == b"."
    import os

    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        assert isinstance(connection.ask(b"request", idle=WAIT).exception(WAIT), Closed)


def test_a_defect_in_the_thread_ends_requests_and_is_survived(raw, make, monkeypatch, caplog):
    """If the loop meets a defect, its requests end as unknown, the log has it, and the next request works."""
    from dropr_transport_curl.engine import Engine

    server = raw(lambda connection, server: [server.read_request(connection), server.done.wait(WAIT)])
    good = raw(OK + b"Content-Length: 1\r\n\r\n.")
    transport = make()
    stuck = transport.connect(server.url).ask(b"request", idle=WAIT)
    monkeypatch.setattr(Engine, "_harvest", lambda self: 1 / 0)
    transport.connect(good.url).ask(b"request", idle=WAIT)
    assert isinstance(stuck.exception(WAIT), Unanswered | Unreachable)
    monkeypatch.undo()
    assert transport.connect(good.url).ask(b"request", idle=WAIT).result(WAIT) == b"."
    assert "defect" in caplog.text


def test_nothing_is_begun_on_an_engine_that_met_a_defect(raw, make, monkeypatch):
    """What is asked while the thread rests after a defect is not given up with the rest: the next engine sends it."""
    from dropr_transport_curl.engine import Engine

    rests, goes_on, sleep = threading.Event(), threading.Event(), time.sleep

    def rest(seconds):
        if threading.current_thread().name != "dropr-curl":
            sleep(seconds)
            return
        rests.set()
        goes_on.wait(WAIT)

    monkeypatch.setattr(time, "sleep", rest)
    good = raw(OK + b"Content-Length: 1\r\n\r\n.")
    connection = make().connect(good.url)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_harvest", lambda self: 1 / 0)
        connection.ask(b"request", idle=WAIT)
        assert rests.wait(WAIT)
    asked = connection.ask(b"request", idle=WAIT)
    goes_on.set()
    assert asked.result(WAIT) == b"."


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://x", "https://"),
        ("https://", "host"),
        ("https://me:secret@x/", "credentials"),
        ("https://x:99999/", "no url"),
        ("https://x/?a=1", "path"),
        ("https://x:0/", "port 0"),
    ],
)
def test_check_explains(make, url, words):
    """A wrong url is explained without I/O, and a password in it is not repeated."""
    text = make().check(url, listen=False)
    assert words in text
    assert "secret" not in text
