"""What one more refused request of a flood costs: counted in protocols, tasks, hashes and lines, not in time."""

import logging
import socket
import time
from urllib.parse import urlsplit

import pytest
from dropr_transport_curl import CurlTransport, Options, Tls, screening
from dropr_transport_curl.accepting import Accepting, Visit
from dropr_transport_curl.screening import HTTP_HEAD, Unjudged, beginning
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.system import penalties
from dropr_core.testing.transport_contract import Echo, request

WAIT = 30.0
GRACE = 3


@pytest.fixture
def opened():
    """Transports that are closed at the end."""
    them = []
    yield them
    for one in them:
        one.close()


@pytest.fixture
def serve(monkeypatch, opened):
    """A listener that penalises an address after few refusals, and does not forget meanwhile; its answerer."""
    # Half a refusal less: a count halves even in 1e9 s, and by the next look a hair of the last one has gone.
    monkeypatch.setattr(penalties, "GRACE", GRACE - 0.5)
    monkeypatch.setattr(penalties, "HALF_LIFE", 1e9)

    def start(url="http://127.0.0.1:0/dropr", **options):
        transport = CurlTransport(Options(**options), logging.getLogger("test.curl"))
        opened.append(transport)
        echo = Echo()
        return transport.listen(url, echo), echo

    return start


@pytest.fixture
def served(monkeypatch):
    """The connections that were given a task and an HTTP protocol."""
    visits = []
    original = Accepting._serve

    def counted(self, line, address):
        visits.append(line)
        original(self, line, address)

    monkeypatch.setattr(Accepting, "_serve", counted)
    return visits


def dial(listener):
    where = urlsplit(listener.url)
    return socket.create_connection((where.hostname, where.port), timeout=WAIT)


def post(body):
    return b"POST /dropr HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def talk(listener, *parts, pause=0.0):
    """What comes back until the server hangs up; empty as well if it does so with a reset."""
    back = b""
    with dial(listener) as line:
        try:
            for part in parts:
                line.sendall(part)
                time.sleep(pause)
            while more := line.recv(65536):
                back += more
        except (ConnectionResetError, BrokenPipeError):
            pass
    return back


def penalise(listener):
    """Have this machine's address penalised."""
    for _ in range(GRACE):
        assert talk(listener, post(request(30, "no:sign"))).startswith(b"HTTP/1.1 401")


def test_one_more_refusal_costs_one_hash_and_no_http(serve, served, caplog):
    """No task, no protocol, no line of log, no answer: only the word of the host about the first bytes."""
    listener, echo = serve()
    penalise(listener)
    before, lines = len(echo.heads), len(caplog.records)
    for _ in range(100):
        assert talk(listener, post(request(5000, "no:sign"))) == b""
    assert len(served) == GRACE
    assert len(echo.heads) == before + 100
    assert set(echo.heads[before:]) == {Echo.head_size}
    assert len(caplog.records) == lines
    assert "127.0.0.1" in caplog.text, "the change itself is told"
    assert not listener._server._screening._waiting


def test_a_peer_at_a_penalised_address_is_served(serve, served):
    """However its request comes: as a whole, with its head first, or byte by byte."""
    listener, echo = serve()
    penalise(listener)
    whole = request(60)
    wire = post(whole)
    head, _, _ = wire.partition(b"\r\n\r\n")
    assert talk(listener, wire).endswith(whole)
    assert talk(listener, head + b"\r\n\r\n", whole, pause=0.03).endswith(whole)
    assert talk(listener, *(wire[at : at + 1] for at in range(len(wire)))).endswith(whole)
    assert echo.answered == 3
    assert len(served) == GRACE + 3


def test_the_connection_of_a_peer_goes_on(serve, opened):
    """With one that was made before, and with a new one, in the middle of a flood."""
    listener, _ = serve()
    asking = CurlTransport(Options(), logging.getLogger("test.curl"))
    opened.append(asking)
    old = asking.connect(listener.url)
    assert old.ask(request(30), idle=WAIT).result(WAIT) == request(30)
    penalise(listener)
    for size in (30, 5000, 300_000):
        assert talk(listener, post(request(30, "no:peer"))) == b""
        assert old.ask(request(size), idle=WAIT).result(WAIT) == request(size)
        fresh = CurlTransport(Options(), logging.getLogger("test.curl"))
        opened.append(fresh)
        assert fresh.connect(listener.url).ask(request(size), idle=WAIT).result(WAIT) == request(size)


def test_what_cannot_be_judged_passes_now_and_then(serve, served, monkeypatch):
    """A GET, a body in chunks, a refusal that a peer might get: a few a second are answered, the others cut off."""
    monkeypatch.setattr(penalties, "PASSES", 0.0)
    monkeypatch.setattr(penalties, "BURST", 3.0)
    listener, _ = serve()
    penalise(listener)
    assert talk(listener, b"GET /dropr HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 405")
    chunked = b"POST /dropr HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert b" 200 " in talk(listener, chunked + b"1e\r\n%s\r\n0\r\n\r\n" % request(30))
    assert talk(listener, post(request(30, "no:big"))).startswith(b"HTTP/1.1 413")
    for _ in range(3):
        assert talk(listener, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == b""
        assert talk(listener, post(request(30, "no:big"))) == b""
    assert len(served) == GRACE + 3


def test_who_says_nothing_there_has_the_time_and_the_places_of_strangers(serve):
    """Connections that wait for their first bytes are bounded, the oldest goes, and they end after 'admission'."""
    listener, _ = serve(max_strangers_per_address=5, admission=1.0)
    penalise(listener)
    idle = [dial(listener) for _ in range(20)]
    half = [dial(listener) for _ in range(20)]
    for line in half:
        line.sendall(b"POST /dropr")
    for line in idle + half:
        try:
            assert line.recv(1) == b""
        except ConnectionResetError:
            pass
        line.close()
    assert any(not listener._server._screening._waiting or time.sleep(0.005) for _ in range(8000))
    assert listener.connections.strangers == 0


def test_a_defect_of_the_host_is_told_as_ever(serve, caplog):
    """What the host's judgement breaks on is served, so that it is in the log and the caller has its 500."""
    listener, _ = serve()
    penalise(listener)
    assert talk(listener, post(request(30, "crash"))).startswith(b"HTTP/1.1 500")
    assert "internal error" in caplog.text


def test_with_tls_few_handshakes_are_left(certificates, serve, served, monkeypatch):
    """Nothing can be judged before the handshake, which costs most: so a penalised address has a few a second."""
    monkeypatch.setattr(penalties, "BURST", 0.0)
    tls = Tls(cert=certificates / "server.pem", key=certificates / "server.key")
    listener, echo = serve("https://127.0.0.1:0/dropr", tls=tls)
    for _ in range(GRACE):
        assert talk(listener, b"no tls at all\r\n\r\n") is not None
    assert any(len(listener._server.penalties) or time.sleep(0.005) for _ in range(8000))
    assert any(listener._server.penalties._records["127.0.0.1"].refusals >= GRACE or time.sleep(0.005)
               for _ in range(8000))  # fmt: skip
    before = len(served)
    for _ in range(20):
        assert talk(listener, b"no tls at all\r\n\r\n") == b""
    assert len(served) == before
    assert not echo.heads


def test_closing_ends_those_who_wait(serve):
    """A listener that closes leaves no connection of a penalised address open."""
    listener, _ = serve()
    penalise(listener)
    with dial(listener) as line:
        assert any(listener._server._screening._waiting or time.sleep(0.005) for _ in range(8000))
        listener.close()
        assert line.recv(1) == b""


def test_a_stranger_that_leaves_without_a_request_counts_once():
    """Whether it was refused before or never asked; a peer never counts."""
    from dropr_core.system.connections import Connections

    told = []
    connections = Connections(admitted=9, strangers=9, per_address=9, patience=10.0)
    here, there = socket.socketpair()
    with here, there:
        silent, refused, peer = (Visit(connections, here, name, 0.0, told.append) for name in ("a", "b", "c"))
        refused.refused()
        assert peer.admit()
        for visit in (silent, refused, peer):
            visit.left()
            visit.left()
    assert told == ["b", "a"]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nx: content-length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nx: " + b"x" * HTTP_HEAD,
    ],
)
def test_only_what_nodes_send_is_judged(data):
    """Anything else is left to who reads HTTP."""
    with pytest.raises(Unjudged):
        beginning(data, 4144)


@given(st.binary(max_size=5000), st.integers(0, 6000), st.sampled_from(["Content-Length: ", "content-length:  "]))
def test_the_beginning_of_a_request(body, cut, name):
    """Of a whole request its first bytes, of less nothing, and never other bytes."""
    head = f"POST /a HTTP/1.1\r\nHost: x\r\n{name}{len(body)}\r\nAccept: */*\r\n\r\n".encode()
    found = beginning((head + body)[:cut], 4144)
    if cut >= len(head) + min(4144, len(body)):
        assert found == body[:4144]
    else:
        assert found is None


def test_looking_again_is_bounded(serve, monkeypatch):
    """Who has sent a part is looked at ever more rarely, and its bytes wake nobody up meanwhile."""
    monkeypatch.setattr(screening, "LAST_LOOK_AGAIN", 600.0)
    listener, _ = serve()
    penalise(listener)
    looks = []
    original = listener._server._screening._look
    listener._server._screening._look = lambda one: (looks.append(1), original(one))
    with dial(listener) as line:
        line.sendall(b"POST /dropr HTTP/1.1\r\n")
        time.sleep(1.0)
    assert len(looks) <= 10
