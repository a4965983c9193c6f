"""Requests that end in a piece of a file: the kernel sends it into the socket, beside curl."""

import errno
import logging
import os
import socket
import threading
from concurrent.futures import Future

import pycurl
import pytest
from dropr_transport_curl import CurlTransport, Options
from dropr_transport_curl.engine import Engine
from dropr_transport_curl.file_slot import FileSlot
from dropr_transport_curl.slot import Request

from dropr_core.errors import Refused, Unanswered

WAIT = 30.0
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.dropr.v1\r\nContent-Length: 1\r\n\r\n."
SIZE = 12_000_000
"""More than sockets hold."""
BEGINNING = b"the beginning "

line = FileSlot.line
pytestmark = pytest.mark.skipif(not hasattr(pycurl, "ACTIVESOCKET"), reason="this pycurl does not tell its socket")


def read_request(connection, server):
    """One whole request, which is noted. Raises OSError where the caller left."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or left()
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    body = bytearray(body)
    while len(body) < length:
        body += connection.recv(1 << 20) or left()
    server.seen.append((head, bytes(body)))


def left():
    raise OSError("the caller left")


class Piece:
    """The end of a request, all of a file; notes how it was taken."""

    def __init__(self, path, size):
        self.fd, self.size = os.open(path, os.O_RDONLY), size
        self.sent, self.read_from, self.error = 0, [], None

    def read(self, offset, size):
        self.read_from.append(offset)
        data = os.pread(self.fd, size, offset)
        if len(data) < size:
            raise OSError(errno.EIO, "planted: the file is shorter")
        return data

    def send(self, line, offset, size):
        if self.error is not None:
            raise self.error
        took = os.sendfile(line, self.fd, offset, size)
        self.sent += took
        return took


@pytest.fixture
def data():
    return os.urandom(1 << 20) * (SIZE >> 20)


@pytest.fixture
def piece(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    made = Piece(tmp_path / "file", len(data))
    yield made
    os.close(made.fd)


@pytest.fixture
def connect():
    opened = []

    def to(url, **options):
        opened.append(CurlTransport(Options(**options), logging.getLogger("test.curl")))
        return opened[-1].connect(url)

    yield to
    for transport in opened:
        transport.close()


@pytest.fixture
def server(raw):
    """Answers every request; ``accepted`` counts its connections."""
    accepted = []

    def script(connection, server):
        accepted.append(connection)
        while True:
            read_request(connection, server)
            connection.sendall(OK)

    made = raw(script)
    made.accepted = accepted
    return made


def test_the_kernel_sends_the_file(server, connect, piece, data):
    """All of it arrives as one request, nothing of it is read into memory, and the connection is used again."""
    connection = connect(server.url)
    for _ in range(3):
        assert connection.ask_long(BEGINNING, piece, idle=WAIT).result(WAIT) == b"."
        assert connection.ask(b"a short one", idle=WAIT).result(WAIT) == b"."
    assert [body for _, body in server.seen] == [BEGINNING + data, b"a short one"] * 3
    assert (piece.sent, piece.read_from) == (3 * len(data), [])
    assert len(server.accepted) == 1
    head = server.seen[0][0].lower()
    assert head.count(b"content-length") == 1
    assert b"expect" not in head


def test_several_at_once(server, connect, piece, data):
    """Each goes into the socket of its own request."""
    connection = connect(server.url)
    for future in [connection.ask_long(b"%d" % number, piece, idle=WAIT) for number in range(6)]:
        assert future.result(WAIT) == b"."
    assert sorted(body for _, body in server.seen) == [b"%d" % number + data for number in range(6)]


def test_a_line_is_not_used_again_in_the_middle_of_a_request(raw, connect, piece):
    """A server that answers early and reads on would take the next request for the rest of this one."""
    firsts = []

    def script(connection, server):
        firsts.append(connection.recv(65536)[:5])
        connection.sendall(b"HTTP/1.1 413 no\r\nContent-Length: 0\r\n\r\n")
        while connection.recv(65536):
            pass

    server = raw(script)
    connection = connect(server.url)
    for _ in range(3):
        assert isinstance(connection.ask_long(BEGINNING, piece, idle=WAIT).exception(WAIT), Refused)
    assert firsts == [b"POST "] * 3
    assert piece.sent < 3 * piece.size


def test_a_kept_line_that_died_is_replaced(raw, connect, piece, data):
    """curl repeats the request on a new connection; then the file goes from its beginning, too."""
    begun = threading.Event()

    def script(connection, server):
        read_request(connection, server)
        connection.sendall(OK)
        if not begun.is_set():
            begun.set()
            connection.recv(1000)  # some of the next request, and then no answer to it
            return
        while True:
            read_request(connection, server)
            connection.sendall(OK)

    server = raw(script)
    connection = connect(server.url)
    assert connection.ask(b"a short one", idle=WAIT).result(WAIT) == b"."
    asked = connection.ask_long(BEGINNING, piece, idle=WAIT)
    error = asked.exception(WAIT)
    if error is None:
        assert server.seen[-1][1] == BEGINNING + data
    else:  # curl repeats nothing where the reset of the line came before its end
        assert isinstance(error, Unanswered)
    assert connection.ask_long(BEGINNING, piece, idle=WAIT).result(WAIT) == b"."
    assert server.seen[-1][1] == BEGINNING + data


def test_a_shorter_file_fails_the_request_alone(server, connect, piece, data):
    """Nothing arrived as a whole, the error says why, and the next request goes through."""
    connection = connect(server.url)
    piece.size = len(data) + 1
    error = connection.ask_long(BEGINNING, piece, idle=WAIT).exception(WAIT)
    assert isinstance(error, Unanswered)
    assert "cannot be read" in str(error)
    piece.size = len(data)
    assert connection.ask_long(BEGINNING, piece, idle=WAIT).result(WAIT) == b"."
    assert [body for _, body in server.seen] == [BEGINNING + data]


def test_a_file_that_the_kernel_does_not_send_is_read(server, connect, piece, data):
    """Some file systems have no `sendfile`."""
    piece.error = OSError(errno.EINVAL, "planted")
    assert connect(server.url).ask_long(BEGINNING, piece, idle=WAIT).result(WAIT) == b"."
    assert server.seen[0][1] == BEGINNING + data
    assert piece.read_from


def test_a_line_that_breaks_in_the_middle(raw, connect, piece):
    """It is not known what arrived, as with any other request."""
    server = raw(lambda connection, server: connection.recv(100_000))
    assert isinstance(connect(server.url).ask_long(BEGINNING, piece, idle=WAIT).exception(WAIT), Unanswered)


def test_a_line_that_takes_nothing_is_idle(raw, connect, piece):
    """The bytes that the kernel sent count as progress, and their lack as none."""
    server = raw(lambda connection, server: server.done.wait(WAIT))
    error = connect(server.url).ask_long(BEGINNING, piece, idle=0.2).exception(WAIT)
    assert isinstance(error, Unanswered)
    assert "nothing came or went" in str(error)


def test_slow_but_steady_is_no_idleness(raw, connect, piece):
    """A file that the other side takes in steps arrives, though all of it takes longer than the idle time."""

    def script(connection, server):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        came = 0
        while came < piece.size:
            server.done.wait(0.05)
            came += len(connection.recv(1 << 18))
        connection.sendall(OK)

    assert connect(raw(script).url).ask_long(BEGINNING, piece, idle=1.5).result(WAIT) == b"."


def test_who_asks_wakes_the_thread_for_a_file(server, piece):
    """Whoever sends a short request may bring a long one under way as well, whose file he does not send."""
    woken, waker = socket.socketpair()
    engine = Engine(Options(), woken.fileno(), lambda: None)
    try:
        futures = [Future(), Future()]
        engine.add(Request(server.url, BEGINNING, WAIT, futures[0], None, piece))
        assert not engine.begin(Request(server.url, b"a short one", WAIT, futures[1], None))
        while not all(future.done() for future in futures):
            engine.turn(engine.sleep(engine.pause()))
        assert [future.result() for future in futures] == [b"."] * 2
    finally:
        engine.give_up(None, "the test is over")
        engine.close()
        woken.close()
        waker.close()


def test_a_curl_that_does_not_tell_its_socket(server, connect, piece, data, monkeypatch):
    """One request fails, and what follows is read and sent by curl, as where it cannot be asked at all."""
    monkeypatch.setattr(FileSlot, "line", lambda slot: None if line(slot) is None else -1)
    connection = connect(server.url)
    assert isinstance(connection.ask_long(BEGINNING, piece, idle=WAIT).exception(WAIT), Unanswered)
    for _ in range(2):
        assert connection.ask_long(BEGINNING, piece, idle=WAIT).result(WAIT) == b"."
    monkeypatch.delattr(pycurl, "ACTIVESOCKET")
    assert connect(server.url).ask_long(BEGINNING, piece, idle=WAIT).result(WAIT) == b"."
    assert [body for _, body in server.seen] == [BEGINNING + data] * 3
    assert piece.sent == 0


def test_closing_the_connection_ends_it(raw, connect, piece):
    """Nothing is left that waits for the socket."""
    read = threading.Event()

    def script(connection, server):
        connection.recv(1000)
        read.set()
        server.done.wait(WAIT)

    connection = connect(raw(script).url)
    asked = connection.ask_long(BEGINNING, piece, idle=WAIT)
    assert read.wait(WAIT)
    connection.close()
    assert isinstance(asked.exception(WAIT), Unanswered)


@pytest.mark.parametrize(("url", "may"), [("http://a/", True), ("HTTP://a/", True), ("https://a/", False)])
def test_only_a_line_without_tls_is_written_to_beside_curl(url, may):
    """What is encrypted has to pass through who encrypts."""
    assert FileSlot.may(url) is may
