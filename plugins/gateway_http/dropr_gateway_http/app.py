"""The ASGI application: who calls, what is asked, and what is answered, errors too.

Owns the order of these steps and the headers for web pages that may call. Must not know what operations do.
"""

import asyncio
import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import cast

import msgspec

from dropr_core.contracts.gateway import Desk
from dropr_core.errors import DroprError
from dropr_core.system.tally import Tally
from dropr_gateway_http import openapi, sockets
from dropr_gateway_http.callers import ANYBODY, Callers
from dropr_gateway_http.exchange import Answer, Call, Gone, Receive, Scope, Send, as_json, of_trouble, write
from dropr_gateway_http.leases import Leases
from dropr_gateway_http.managing import Managing
from dropr_gateway_http.operation import Gives, Operation, Routes
from dropr_gateway_http.options import Options
from dropr_gateway_http.problems import Trouble, trouble_of
from dropr_gateway_http.reading import convert, query_of
from dropr_gateway_http.receiving import Receiving
from dropr_gateway_http.sending import Sending
from dropr_gateway_http.service import Service
from dropr_gateway_http.streaming import Streaming
from dropr_gateway_http.words import Channel, Handle, Identity

_KINDS: Mapping[str, type] = {"channel": dict[str, Channel], "handle": dict[str, Handle], "id": dict[str, Identity]}
"""What the parameters of paths must be."""


class HttpApp:
    """An ASGI 3 application over a desk."""

    def __init__(self, desk: Desk, options: Options, log: logging.Logger) -> None:
        self._log, self._failed = log, Tally()
        self._callers = Callers(options)
        self.service = Service(desk, options, self._callers, log, uploads=asyncio.Semaphore(options.max_uploads))
        parts = (Sending, Receiving, Leases, Streaming, Managing)
        operations = [operation for part in parts for operation in part(self.service).operations()]
        documented = Operation(
            name="openapi", method="GET", path="/openapi.json", handle=self._openapi, says="This document",
            gives={200: Gives("The document.", {"application/json": dict})},
        )  # fmt: skip
        self.routes = Routes([*operations, documented])
        self.document = openapi.document(self.routes, version("dropr-gateway-http"), bool(options.users))

    async def _openapi(self, _call: Call) -> Answer:
        return as_json(self.document)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = dict(scope["headers"])
        headers = {name.decode("latin-1"): _text(value) for name, value in scope["headers"]}
        call = Call(scope, receive, ANYBODY, headers, {}, None)
        try:
            answer = await self._answer(call, raw)
        except Gone:
            return
        except Trouble as trouble:
            answer = of_trouble(trouble)
        except DroprError as error:
            told = trouble_of(error)
            if told.status == 500 and self._failed.add():
                self._log.error("%s %s failed: %s (%d such so far)", scope["method"], scope["path"], error,
                                self._failed.count)  # fmt: skip
            answer = of_trouble(told)
        except Exception:
            self._log.exception("%s %s met a defect; the others go on", scope["method"], scope["path"])
            answer = of_trouble(Trouble(500, "internal", "a defect of this gateway; its log says more"))
        if origin := self._callers.allowed_origin(raw):
            answer.headers.update({"Access-Control-Allow-Origin": origin, "Vary": "Origin",
                                   "Access-Control-Expose-Headers": "*"})  # fmt: skip
        try:
            await write(answer, call, send)
        except (Gone, ConnectionError):
            return

    async def _answer(self, call: Call, raw: Mapping[bytes, bytes]) -> Answer:
        scope = call.scope
        if b"host" not in raw and scope["http_version"] == "1.1":
            raise Trouble(400, "bad_request", "a request in HTTP/1.1 needs a Host header")
        if (
            scope["method"] == "OPTIONS"
            and b"access-control-request-method" in raw
            and self._callers.allowed_origin(raw)
        ):
            return Answer(204, headers={
                "Access-Control-Allow-Methods": "GET, POST, DELETE", "Access-Control-Max-Age": "600",
                "Access-Control-Allow-Headers": raw.get(b"access-control-request-headers", b"*").decode("latin-1"),
            })  # fmt: skip
        _check_once(scope)
        call.caller = self._callers.known(raw)
        operation, call.path = self.routes.find(scope["method"], scope["raw_path"].decode("latin-1"))
        for name, value in call.path.items():
            convert({name: value}, _KINDS[name], "the path")
        if operation.query is not None:
            call.query = query_of(scope["query_string"], operation.query)
        elif scope["query_string"]:
            raise Trouble(400, "bad_request", f"{operation.name} takes no query")
        return await operation.handle(call)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = dict(scope["headers"])
        try:
            caller = self._callers.known(raw)
            if scope["path"] != "/socket":
                raise Trouble(404, "no_such_path", "the WebSocket is at /socket")
        except Trouble as trouble:
            await receive()
            await send({"type": "websocket.http.response.start", "status": trouble.status,
                        "headers": [(b"content-type", b"application/problem+json")]})  # fmt: skip
            await send({"type": "websocket.http.response.body", "body": trouble.body()})
            return
        try:
            await sockets.serve(self.service, caller, scope, receive, send)
        except DroprError as error:
            self._log.warning("a WebSocket ended: %s", error)
        except OSError:  # it is gone
            return


_ONCE = ("authorization", "host", "content-type", "content-length", "idempotency-key", "origin")


def _check_once(scope: Scope) -> None:
    """Nobody shall read the first and somebody else the last of two."""
    names = [name.decode("latin-1") for name, _ in scope["headers"]]
    if len(set(names)) == len(names):
        return
    for name in {name for name in names if names.count(name) > 1}:
        if name in _ONCE or name.startswith(("dropr-", "ce-")):
            raise Trouble(400, "bad_request", f"the header {name} stands there twice")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def document_of(options: Options) -> bytes:
    """The OpenAPI document without a node."""
    app = HttpApp(cast("Desk", None), options, logging.getLogger("dropr.gateway.http"))
    return msgspec.json.encode(app.document)
