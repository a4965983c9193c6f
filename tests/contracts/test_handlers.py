"""The handler contract, held by those that come with dropr."""

import http.server
import logging
import sys
import threading

import pytest

from dropr_core.contracts.context import Context
from dropr_core.plugin.registry import create
from dropr_core.system.clock import SystemClock
from dropr_core.testing import HandlerCase, HandlerContract

CODE = """
from dropr_core import Reject, Retry
def handle(work):
    if work.body == b"never":
        raise Reject("it says never")
    if work.body == b"later":
        raise Retry("it says later", after=1.5)
    if work.body == b"fails":
        raise KeyError("what its author did not think of")
    return {"length": len(work.body)}
async def awaits(work):
    return handle(work)
"""
PROGRAM = """
import sys
body = sys.stdin.read()
print(len(body), end='')
sys.exit({'never': 65, 'later': 75, 'fails': 1}.get(body, 0))
"""


class ConsumerContext(HandlerContract):
    """How a handler is made by its name."""

    __test__ = False

    @pytest.fixture
    def make(self, tmp_path):
        context = Context("shop", tmp_path, SystemClock(), logging.getLogger("test.handler"))
        return lambda kind, target, **options: create("handler", kind, {"target": target, **options}, context)


class TestPython(ConsumerContext):
    __test__ = True

    @pytest.fixture(params=["handle", "awaits"])
    def handler_case(self, request, make, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", list(sys.path))
        (tmp_path / "dropr_kit_code.py").write_text(CODE)
        yield HandlerCase(
            lambda: make("python", f"dropr_kit_code:{request.param}", path=str(tmp_path)),
            good=b"12345", result={"length": 5}, never=b"never", later=b"later", fails=b"fails",
        )  # fmt: skip
        sys.modules.pop("dropr_kit_code", None)


class TestCommand(ConsumerContext):
    __test__ = True
    rounds, warm_up = 6, 4  # each starts an interpreter

    @pytest.fixture
    def handler_case(self, make):
        return HandlerCase(
            lambda: make("command", f'{sys.executable} -c "{PROGRAM}"'), good=b"12345", result=b"5", never=b"never",
            later=b"later", fails=b"fails",
        )  # fmt: skip


class TestWebhook(ConsumerContext):
    __test__ = True

    @pytest.fixture
    def handler_case(self, make):
        class Answers(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response({b"never": 422, b"later": 503, b"fails": 500}.get(body, 200))
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *words):
                """Quiet."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            url = f"http://127.0.0.1:{server.server_port}/"
            yield HandlerCase(
                lambda: make("webhook", url),
                good=b"12345",
                result=b"ok",
                never=b"never",
                later=b"later",
                fails=b"fails",
            )
            server.shutdown()
            thread.join(30)
