"""Long requests: read straight into a buffer, and the connection given back whole."""

import asyncio
import socket
import ssl

import pytest
from dropr_transport_curl.filling import KEPT, Buffers
from dropr_transport_curl.options import Tls

from dropr_core.testing.transport_contract import request

pytestmark = pytest.mark.usefixtures("_short_goodbyes")

WAIT = 30.0
LONG = 3_000_000


class Line:
    """One connection to a listener, byte by byte."""

    def __init__(self, listener, context=None):
        port = int(listener.url.split(":")[2].split("/")[0])
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        if context is not None:
            self.socket = context.wrap_socket(self.socket)
        self._back = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def post(self, *parts):
        """Send one request in parts of its body."""
        head = b"POST /dropr HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % sum(map(len, parts))
        self.socket.sendall(head)
        for part in parts:
            self.socket.sendall(part)

    def answer(self):
        """The status and the body of the next answer."""
        while b"\r\n\r\n" not in self._back:
            self._more()
        head, _, self._back = self._back.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        while len(self._back) < length:
            self._more()
        body, self._back = self._back[:length], self._back[length:]
        return lines[0].split()[1], body

    def _more(self):
        more = self.socket.recv(1 << 20)
        assert more, "the server hung up"
        self._back += more


def halves(whole, at):
    return whole[:at], whole[at:]


@pytest.mark.parametrize("at", [1, 4000, 70_000, LONG - 1])
def test_a_long_body_arrives_whole_however_it_is_cut(serve, at):
    """Wherever the first part ends, the echo has every byte, and the connection serves the next request."""
    listener, _ = serve()
    whole = request(LONG)
    with Line(listener) as line:
        for _ in range(3):
            line.post(*halves(whole, at))
            assert line.answer() == (b"200", whole)
            line.post(request(50))
            assert line.answer() == (b"200", request(50))


def test_two_requests_in_one_breath(serve):
    """A request that follows a long one at once, before its answer, is served after it."""
    listener, _ = serve()
    whole = request(LONG)
    with Line(listener) as line:
        line.post(whole)
        line.post(request(60))
        assert line.answer() == (b"200", whole)
        assert line.answer() == (b"200", request(60))


def test_over_tls(serve, certificates):
    """The same behind TLS, where bytes come in other portions."""
    tls = Tls(cert=certificates / "server.pem", key=certificates / "server.key")
    listener, _ = serve("https://127.0.0.1:0/dropr", tls=tls)
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    context.check_hostname = False
    whole = request(LONG)
    with Line(listener, context) as line:
        for _ in range(2):
            line.post(*halves(whole, 5000))
            assert line.answer() == (b"200", whole)


def test_a_caller_that_hangs_up_in_a_long_body_is_forgotten(serve):
    """Half of a long request never reaches the host, and nothing is left behind."""
    listener, echo = serve()
    whole = request(LONG)
    with Line(listener) as line:
        line.socket.sendall(b"POST /dropr HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % LONG + whole[:1_000_000])
    with Line(listener) as line:
        line.post(request(50))
        assert line.answer() == (b"200", request(50))
    assert echo.answered == 1


def test_a_long_body_that_stops_is_cut_off(serve):
    """Who sends nothing in the middle of a long body is told so, and the line closes."""
    listener, echo = serve(body_idle=0.3)
    with Line(listener) as line:
        line.socket.sendall(b"POST /dropr HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % LONG)
        line.socket.sendall(request(LONG)[:1_000_000])
        assert line.answer()[0] == b"408"
        assert line.socket.recv(100) == b""
    assert echo.answered == 0


def test_buffers_are_used_again_only_when_nobody_looks_at_them():
    """However the view was passed on or cut up, a buffer that somebody still sees is left to him."""

    async def play():
        buffers = Buffers(idle=0.01)
        first = buffers.take(1000)
        first[:] = b"a" * 1000
        piece = first[10:20]
        del first
        second = buffers.take(1000)
        second[:] = b"b" * 1000
        assert bytes(piece) == b"a" * 10
        address = id(second.obj)
        del second
        assert id(buffers.take(990).obj) == address
        assert len(buffers.take(300)) == 300
        taken = [buffers.take(2000) for _ in range(2 * KEPT)]
        assert len({id(view.obj) for view in taken}) == 2 * KEPT
        assert len(buffers._kept) == KEPT
        for _ in range(3000):
            if not buffers._kept:
                break
            await asyncio.sleep(0.01)
        assert not buffers._kept

    asyncio.run(play())
