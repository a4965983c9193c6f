"""The built-in handlers: a function, a web address, a program."""

import asyncio
import hashlib
import hmac
import http.server
import json
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from dropr_core.builtin.handlers import command, webhook
from dropr_core.builtin.handlers import python as python_handler
from dropr_core.contracts.context import Context
from dropr_core.contracts.handler import NoResult, Work
from dropr_core.errors import ConfigError, DroprError, PluginError, Reject, Retry
from dropr_core.model.limits import MAX_RESULT
from dropr_core.model.message import Message
from dropr_core.plugin.registry import create
from dropr_core.system.clock import FakeClock, SystemClock

LONG = 60.0


def work(body=b"body", attempt=1, **facts):
    message = Message(**{"id": bytes(range(16)), "sender": "shop", "channel": "orders/eu", **facts})
    return Work(message, body, body.decode("latin-1"), attempt, False, 0.5)


@pytest.fixture
def make(tmp_path):
    made = []

    def make(kind, target, **options):
        context = Context("node", tmp_path, SystemClock(), logging.getLogger("test"))
        made.append(create("handler", kind, {"target": target, **options}, context, where="channels.orders.handler"))
        return made[-1]

    yield make
    for handler in made:
        handler.close()
        handler.close()


# ── python ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A directory with a module of the user's."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "dropr_user_code.py").write_text(
        "import asyncio, threading\n"
        "class Shop:\n    @staticmethod\n    def on(work): return work.attempt\n"
        "def on_order(work): return {'got': work.value, 'id': work.id}\n"
        "async def on_return(work): await asyncio.sleep(0); return threading.current_thread().name\n"
        "async def forever(work): await asyncio.sleep(1e6)\n"
        "async def fails(work): raise KeyError('sku')\n"
        "def generator(work): yield 1\n"
        "def two(work, more): ...\n"
        "five = 5\n"
    )
    (tmp_path / "code" / "dropr_broken_code.py").write_text("import dropr_no_such_library\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "code"
    sys.modules.pop("dropr_user_code", None)


def test_a_function_gets_the_work_and_its_return_is_the_result(make, code):
    """`python:module:function` calls the function with the Work object."""
    handler = make("python", "dropr_user_code:on_order", path=str(code))
    assert handler.handle(work(b"x")) == {"got": "x", "id": "00010203-0405-0607-0809-0a0b0c0d0e0f"}
    assert make("python", "dropr_user_code:Shop.on", path=str(code)).handle(work(attempt=3)) == 3


def test_code_is_found_in_the_current_directory(make, code, monkeypatch):
    """A worker started beside the user's code finds it without any option."""
    monkeypatch.chdir(code)
    assert make("python", "dropr_user_code:Shop.on").handle(work()) == 1


def test_async_functions_run_on_one_loop_of_the_handler(make, code):
    """Many threads may call an async function; all run on the one event loop thread; errors come back."""
    handler = make("python", "dropr_user_code:on_return", path=str(code))
    names = []
    threads = [threading.Thread(target=lambda: names.append(handler.handle(work()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert names == ["dropr-handler-loop"] * 8
    with pytest.raises(KeyError, match="sku"):
        make("python", "dropr_user_code:fails", path=str(code)).handle(work())


def test_close_cancels_what_still_awaits(make, code):
    """A handler that waits for ever does not keep the worker from ending."""
    handler = make("python", "dropr_user_code:forever", path=str(code))
    ends = []

    def call():
        try:
            handler.handle(work())
        except BaseException as error:
            ends.append(type(error).__name__)

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + LONG
    while handler._loop is None or not asyncio.all_tasks(handler._loop):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    handler.close()
    thread.join(LONG)
    assert ends == ["CancelledError"]
    with pytest.raises(PluginError, match="closed"):
        handler.handle(work())


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("dropr_user_code:on_oder", "no function on_oder; did you mean 'on_order'"),
        ("dropr_no_such_module:f", "there is no module dropr_no_such_module"),
        ("dropr_broken_code:f", "ModuleNotFoundError: No module named 'dropr_no_such_library'"),
        ("dropr_user_code:five", "five is a int and cannot be called"),
        ("dropr_user_code:generator", "is a generator"),
        ("dropr_user_code:two", "cannot call two(work, more) with one argument"),
    ],
)
def test_a_function_that_cannot_serve_is_refused_at_start(make, code, target, says):
    """Mistakes show when the worker starts, not when the first message comes."""
    with pytest.raises(PluginError, match=r"^handler python:") as caught:
        make("python", target, path=str(code))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "target"),
    [("python", "shop.on_order"), ("python", "shop:"), ("python", "a b:c"), ("webhook", "ftp://x/"),
     ("webhook", "http://"), ("webhook", "http://x:99999/"), ("command", ""), ("command", "a 'b")],
)  # fmt: skip
def test_a_target_of_the_wrong_form_is_a_mistake_of_the_configuration(make, kind, target):
    """The mistake is said at its place in the YAML."""
    with pytest.raises(ConfigError, match=r"channels\.orders\.handler\.target"):
        make(kind, target)


# ── webhook ──────────────────────────────────────────────────────────────────────────────────────


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


# ── command ──────────────────────────────────────────────────────────────────────────────────────


def script(text):
    return shlex.join([sys.executable, "-c", text])


def test_a_program_gets_the_body_and_its_output_is_the_result(make):
    """The body stands on standard input, the facts in the environment; no shell is involved."""
    facts = "{k: v for k, v in os.environ.items() if k.startswith('DROPR_')}"
    handler = make("command", script(f"import json, os, sys; print(json.dumps([sys.stdin.read(), {facts}]))"))
    body, environment = json.loads(handler.handle(work(b"$(x); `y`", 4)))
    assert body == "$(x); `y`"
    assert environment["DROPR_ID"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert environment["DROPR_CHANNEL"] == "orders/eu"
    assert (environment["DROPR_ATTEMPT"], environment["DROPR_SENDER"]) == ("4", "shop")


def test_a_program_may_ignore_its_input_and_be_silent(make):
    """A program that reads nothing of a large body does not block, and no output is no result."""
    assert make("command", script("pass")).handle(work(b"x" * 10**6)) is None


def test_an_output_that_is_too_large_is_said(make):
    """The program has done its work; that its output cannot be a result is reported, and nothing is cut off."""
    answer = make("command", script(f"print('x' * {MAX_RESULT})")).handle(work())
    assert answer == NoResult(f"an output of more than {MAX_RESULT} bytes")


@pytest.mark.parametrize(
    ("code", "error"),
    [("sys.exit(75)", Retry), ("sys.exit(65)", Reject), ("sys.exit(100)", Reject), ("sys.exit(1)", Retry),
     ("os.kill(os.getpid(), 9)", Retry)],
)  # fmt: skip
def test_the_exit_code_is_the_verdict(make, code, error):
    """Codes of sysexits and qmail; the end of standard error is the reason."""
    handler = make("command", script(f"import os, sys; print('y' * 9999, 'why', file=sys.stderr, flush=True); {code}"))
    with pytest.raises(error, match=r"y why$") as caught:
        handler.handle(work())
    assert type(caught.value) is error
    assert len(caught.value.reason) < 700


def test_a_program_that_takes_too_long_is_ended_with_its_children(make, tmp_path):
    """The time-out ends the whole process group."""
    pid = tmp_path / "pid"
    child = f"import subprocess, pathlib; p = subprocess.Popen(['sleep', '1000']); pathlib.Path({str(pid)!r}).write_text(str(p.pid)); p.wait()"  # noqa: E501
    handler = make("command", script(child), timeout="2s")
    with pytest.raises(Retry, match="took longer than 2 s"):
        handler.handle(work())
    deadline = time.monotonic() + LONG
    while alive(int(pid.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_close_ends_a_program_that_does_not_want_to_end(make, monkeypatch, tmp_path):
    """After a grace it is killed, so that nothing works on for a message that another worker may have."""
    monkeypatch.setattr(command, "GRACE", 0.05)
    handler = make("command", f"sh -c 'trap \"\" TERM; touch {tmp_path}/up; while :; do sleep 0.01; done'")

    def call():
        with pytest.raises(DroprError):
            handler.handle(work())

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + LONG
    while not ((tmp_path / "up").exists() and handler._running):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    (process,) = handler._running
    handler.close()
    assert process.poll() == -signal.SIGKILL
    thread.join(LONG)
    assert not thread.is_alive()


def test_close_ends_a_running_program(make):
    """The worker's end does not wait for a program that runs for ever."""
    handler = make("command", "sleep 1000")
    ends = []

    def call():
        try:
            handler.handle(work())
        except DroprError as error:
            ends.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + LONG
    while not handler._running:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    handler.close()
    thread.join(LONG)
    assert "SIGTERM" in str(ends[0])
    with pytest.raises(Retry, match="closed"):
        handler.handle(work())


def test_a_missing_program_or_directory_is_refused_at_start(make, tmp_path):
    """The worker says at start which program is missing."""
    with pytest.raises(PluginError, match="dropr-no-such-program is no program here"):
        make("command", "dropr-no-such-program -x")
    with pytest.raises(PluginError, match="no directory"):
        make("command", "true", directory=str(tmp_path / "no"))
    (tmp_path / "hook").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "hook").chmod(0o700)
    assert make("command", "./hook", directory=str(tmp_path)).handle(work()).strip() == os.fsencode(tmp_path)


def test_the_modules_are_reached_through_their_entry_points_only():
    """The three built-in handlers use the same door as everybody's."""
    assert all(callable(module.dropr_handler) for module in (command, python_handler, webhook))
