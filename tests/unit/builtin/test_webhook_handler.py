"""The handler `webhook`: what it posts, and what an answer or its absence means."""

import hashlib
import hmac
import http.server
import socket
import threading

import pytest
from unit.builtin.works import LONG, work

from dropr_core.builtin.handlers import webhook
from dropr_core.contracts.handler import NoResult
from dropr_core.errors import Reject, Retry
from dropr_core.model.limits import MAX_RESULT
from dropr_core.system.clock import FakeClock


@pytest.fixture
def site():
    """A web server; `site.answer` is (status, headers, body), `site.seen` what came in."""

    class Page(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.server.seen.append((self.path, dict(self.headers), body))
            status, headers, answer = self.server.answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)
            self.server.hold.wait(LONG)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.seen, server.answer, server.hold = [], (204, {}, b""), threading.Event()
    server.hold.set()
    server.url = f"http://127.0.0.1:{server.server_port}/hook?x=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_webhook_posts_the_body_with_what_is_needed_to_recognise_it(make, site):
    """Id, channel, attempt and time go as headers; the signature verifies over exactly the body."""
    handler = make("webhook", site.url, secret="s3cret")
    body = b'{"sku": 7}\0\xff'
    assert handler.handle(work(body, 2, content_type="application/json", headers={"traceparent": "00-a-b-01"})) is None
    path, headers, got = site.seen[0]
    assert (path, got) == ("/hook?x=1", body)
    assert headers["X-Dropr-Id"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (headers["X-Dropr-Channel"], headers["X-Dropr-Attempt"]) == ("orders/eu", "2")
    assert (headers["Content-Type"], headers["traceparent"]) == ("application/json", "00-a-b-01")
    stamp, _, digest = headers["Dropr-Signature"].partition(",v1=")
    assert stamp == "t=" + headers["X-Dropr-Timestamp"]
    assert digest == hmac.new(b"s3cret", stamp[2:].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert "s3cret" not in repr(handler._options)


def test_without_a_secret_nothing_is_signed_and_strange_content_types_do_no_harm(make, site):
    """A content type from the network with a line break in it does not become a header."""
    make("webhook", site.url).handle(work(content_type="text/plain\r\nX-Evil: 1"))
    _, headers, _ = site.seen[0]
    assert "Dropr-Signature" not in headers
    assert "X-Evil" not in headers
    assert headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("kind", "body", "result"),
    [
        ("application/json", b'{"ok": [1]}', {"ok": [1]}),
        ("application/json", b"{", "{"),
        ("text/plain; charset=utf-8", "grüße".encode(), "grüße"),
        ("image/png", b"\x89", b"\x89"),
        ("", b"", None),
        ("text/plain", b"x" * MAX_RESULT, "x" * MAX_RESULT),
        ("text/plain", b"x" * (MAX_RESULT + 1), NoResult(f"an answer of more than {MAX_RESULT} bytes")),
    ],
)
def test_the_answer_is_the_result(make, site, kind, body, result):
    """A 2xx answer's body goes home with the receipt, unless it is too big for that."""
    site.answer = (200, {"Content-Type": kind}, body)
    assert make("webhook", site.url).handle(work()) == result


@pytest.mark.parametrize("status", [400, 404, 405, 410, 413, 422])
def test_an_answer_that_is_about_the_message_buries_it(make, site, status):
    """Trying again cannot help; the answer's text becomes the reason."""
    site.answer = (status, {}, b"no such sku")
    with pytest.raises(Reject, match=rf"HTTP {status}.*no such sku"):
        make("webhook", site.url).handle(work())


@pytest.mark.parametrize(
    ("status", "header", "after"),
    [(429, "7", 7.0), (503, "99999999999999", 86400.0), (503, "soon", None), (503, "-5", None), (500, "7", None),
     (408, None, None), (502, None, None), (401, None, None), (403, None, None), (302, None, None),
     (503, "Mon, 01 Jan 2001 00:00:00 GMT", 0.0), (429, "Fri, 31 Dec 9999 23:59:59 GMT", 86400.0)],
)  # fmt: skip
def test_an_answer_that_is_about_the_moment_is_tried_again(make, site, status, header, after):
    """Retry-After is kept to, within a day; everything else has the usual backoff."""
    site.answer = (status, {"Retry-After": header} if header else {}, b"")
    with pytest.raises(Retry) as caught:
        make("webhook", site.url).handle(work())
    assert caught.value.after == after


def test_a_failing_network_is_tried_again(make, site):
    """Nobody there, or an answer that never comes: Retry."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Retry, match="ConnectionError"):
            make("webhook", f"http://127.0.0.1:{taken.getsockname()[1]}/").handle(work())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(Retry, match=r"[Tt]ime"):
            make("webhook", target, timeout="50ms").handle(work())


def test_an_answer_that_drips_is_given_up(make, site):
    """The time-out is for the whole answer and not for each byte of it."""
    clock = FakeClock()
    handler = webhook.Webhook(webhook.Options(target=site.url), clock)
    site.answer = (200, {}, b"x" * 20_000)
    assert handler.handle(work()) == b"x" * 20_000
    read = clock.now

    def now():
        clock.advance(20.0)
        return read()

    clock.now = now
    done = handler.handle(work())
    assert isinstance(done, NoResult)
    assert "took too long" in done.reason
    handler.close()
