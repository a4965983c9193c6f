"""The seam to uvicorn: what is relied on in its classes beyond its documented interface, by name and by order."""

import ast
import asyncio
import inspect
import logging
import socket
from pathlib import Path

import pytest
from dropr_transport_curl import CurlTransport, Options, accepting, asgi, guard, seam
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dropr_core.errors import Unreachable
from dropr_core.testing.bodies_bench import until
from dropr_core.testing.transport_contract import Echo, request


def attributes(tree, *owner):
    """The names that follow ``owner`` (such as ``self`` or ``self.flow``) in the code."""
    return {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) in owner
    }


def of_guard():
    """guard.py's class, and the names that it defines itself."""
    tree = next(
        node
        for node in ast.parse(Path(guard.__file__).read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "GuardedProtocol"
    )
    methods = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own = {
        target.attr
        for node in ast.walk(tree)
        for target in ([node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", []))
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"
    }
    return tree, methods, own


def test_the_installed_uvicorn_has_all_that_is_relied_on():
    """The uvicorn that the suite runs with can be used."""
    assert seam.missing() == []


def test_the_protocol_uses_nothing_that_is_not_listed():
    """guard.py reads, sets, calls and overrides exactly the names of the seam, and all of them."""
    tree, methods, own = of_guard()
    inherited = set(dir(HttpToolsProtocol)) | set(HttpToolsProtocol.__init__.__code__.co_names)
    used = attributes(tree, "self", "super()") - (methods - inherited) - (own - inherited) - {"__init__"}
    assert used - seam.OVERRIDDEN <= seam.PROTOCOL | seam.CALLED
    assert methods & inherited - {"__init__"} == seam.OVERRIDDEN
    assert attributes(tree, "super()") - {"__init__"} == seam.OVERRIDDEN, "each calls the original"
    assert attributes(tree, "cycle", "self.cycle") == seam.CYCLE
    assert attributes(tree, "self.flow") == seam.FLOW
    filling = ast.parse(inspect.getsource(guard.Filler))
    assert used | attributes(filling, "self._host") >= seam.PROTOCOL | seam.CALLED - {"shutdown"}, (
        "none is listed in vain"
    )


def test_the_listener_uses_nothing_that_is_not_listed():
    """accepting.py knows of uvicorn its shared state, and how a connection is told to end."""
    tree = ast.parse(Path(accepting.__file__).read_text())
    assert attributes(tree, "state", "self._state") == seam.STATE
    assert attributes(tree, "connection") <= seam.PROTOCOL | seam.CALLED


@pytest.mark.parametrize(("owner", "name"), [(HttpToolsProtocol, "on_message_begin"), (HttpToolsProtocol, "shutdown")])
def test_a_uvicorn_that_lacks_something_is_refused_in_words(monkeypatch, owner, name):
    """After an upgrade that took something away a listener does not open, and says what is missing."""
    monkeypatch.delattr(owner, name)
    transport = CurlTransport(Options(), logging.getLogger("test.curl"))
    with pytest.raises(Unreachable, match=rf"uvicorn [\d.]+ lacks HttpToolsProtocol\.{name}, "):
        transport.listen("http://127.0.0.1:0/", Echo())
    transport.close()


def test_the_order_of_calls(monkeypatch):
    """A connection is made, a head begins and is complete after its bytes came, the next one likewise, then it ends."""
    calls = []
    for name in ("connection_made", "data_received", "on_message_begin", "on_headers_complete", "connection_lost"):
        as_it_is = getattr(guard.GuardedProtocol, name)

        def noted(self, *arguments, original=as_it_is, name=name):
            calls.append(name)
            if name == "on_headers_complete":
                assert isinstance(self.headers, list)
                assert self.cycle is None or self.cycle.response_complete, "the cycle belongs to the request before"
            original(self, *arguments)
            if name == "on_headers_complete":
                assert not self.cycle.body, "the body follows"
                assert self.cycle.more_body

        monkeypatch.setattr(guard.GuardedProtocol, name, noted)
    transport = CurlTransport(Options(), logging.getLogger("test.curl"))
    listener = transport.listen("http://127.0.0.1:0/dropr", Echo())
    body = request(30)
    ask = b"POST /dropr HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    port = int(listener.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        for _ in range(2):
            line.sendall(ask)
            back = b""
            while not back.endswith(body):
                back += line.recv(65536)
    transport.close()
    one = ["data_received", "on_message_begin", "on_headers_complete"]
    assert calls == ["connection_made", *one, *one, "connection_lost"]


@pytest.mark.parametrize(("pieces", "clocks"), [(1, 0), (2, 1)])
def test_for_a_request_that_is_here_as_a_whole_no_clock_is_set(monkeypatch, pieces, clocks):
    """Nearly all requests come in one piece with their head; only for what is waited for there is a limit."""
    set_ = []
    monkeypatch.setattr(asgi.asyncio, "timeout", lambda *limit, make=asyncio.timeout: set_.append(1) or make(*limit))
    transport = CurlTransport(Options(), logging.getLogger("test.curl"))
    echo = Echo()
    listener = transport.listen("http://127.0.0.1:0/dropr", echo)
    body = request(30)
    ask = b"POST /dropr HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    port = int(listener.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        if pieces == 2:
            line.sendall(ask[:-5])
            until(lambda: bool(set_), "the limit")
            line.sendall(ask[-5:])
        else:
            line.sendall(ask)
        back = b""
        while not back.endswith(body):
            back += line.recv(65536)
    transport.close()
    assert len(set_) == clocks
