"""The monitor as an ASGI application: from a request to its route and back, and who may ask.

Owns the order of the checks (name, path, token, where a browser comes from, size), the headers of every answer, and
what becomes of errors. Must not know what any route shows.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from dropr_core.errors import Closed, DroprError, StoreError
from dropr_core.monitor.access import Access, is_ours
from dropr_core.monitor.routes import MAX_BODY, Answer, Refused, Request, Route, Table, problem
from dropr_core.system.tally import Tally

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Of every page: nothing from elsewhere, no code but its own files, and no text that becomes markup."""

HEADERS = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
)


class Application:
    """Answers for one node at all its addresses."""

    def __init__(
        self, routes: list[Route], access: Access, threads: Executor, open_threads: Executor, log: logging.Logger
    ) -> None:
        """``threads``: where routes are called; ``open_threads``: those that need no token. So neither a store that
        hangs keeps a probe from being answered, nor a stranger keeps those who have the token.
        """
        self._table, self._access, self._log = Table(routes), access, log
        self._threads, self._open_threads = threads, open_threads
        self._strangers, self._names_refused = Tally(), Tally()

    def at(self, names: frozenset[str] | None) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        """For an address at which a browser may ask by these names; None: by any."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close"})  # before it is accepted: the handshake is refused
            if scope["type"] != "http":
                return
            answer = await self._answer(scope, receive, names)
            headers = [*HEADERS, ("content-type", answer.media_type), ("content-length", str(len(answer.body)))]
            if answer.status >= 400 and scope["method"] == "POST":
                headers.append(("connection", "close"))  # what is left of the body is not read
            given = {name for name, _ in answer.headers}
            headers = [*(one for one in headers if one[0] not in given), *answer.headers]
            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            await send({"type": "http.response.start", "status": answer.status, "headers": raw})
            body = b"" if scope["method"] == "HEAD" else answer.body
            await send({"type": "http.response.body", "body": body})

        return application

    async def _answer(self, scope: Scope, receive: Receive, names: frozenset[str] | None) -> Answer:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if names is not None and not is_ours(headers.get("host", ""), names):
            return self._foreign_name(headers.get("host", ""))
        method, path = scope["method"], scope["path"]
        found = self._table.find(method, path)
        if found is None:
            if allowed := self._table.methods(path):
                answer = problem(405, f"{method} is not for {path}: use {' or '.join(allowed)}")
                return Answer(answer.body, answer.media_type, 405, (("allow", ", ".join(allowed)),))
            return problem(404, f"there is nothing at {path}")
        route, rest = found
        if not route.open and not self._access.allows(headers):
            return self._stranger(scope, headers)
        if not _own_page(headers):
            return problem(403, "a page of another site asked for this; it may not")
        body = await _read(receive) if method == "POST" else b""
        if body is None:
            return problem(413, f"the body is larger than {MAX_BODY} bytes")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        request = Request(method, path, query, headers, body, rest)
        if route.quick:
            return self._call(route, request)
        threads = self._open_threads if route.open else self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, self._call, route, request)

    def _call(self, route: Route, request: Request) -> Answer:
        try:
            return route.function(request)
        except Refused as refusal:
            return problem(refusal.status, str(refusal))
        except Closed:
            return problem(503, "this node is about to stop; ask again in a moment")
        except StoreError as error:
            return problem(503, f"the store does not answer as it should: {error}")
        except DroprError as error:
            return problem(400, str(error))
        except Exception:
            self._log.exception("monitor: a fault of ours while answering %s %s; tell us", request.method, request.path)
            return problem(500, "a fault in dropr; its log says where")

    def _stranger(self, scope: Scope, headers: Mapping[str, str]) -> Answer:
        shown = "authorization" in headers
        if shown and self._strangers.add():
            client = scope.get("client") or ("a unix socket",)
            self._log.warning(
                "monitor: %s showed a wrong token (%d so far, of everybody); the right one: 'dropr dashboard'",
                client[0], self._strangers.count,
            )  # fmt: skip
        sentence = "this is not the token" if shown else "say who you are: Authorization: Bearer TOKEN"
        answer = problem(401, f"{sentence}; 'dropr dashboard' on the node's machine shows it")
        return Answer(answer.body, answer.media_type, 401, (("www-authenticate", 'Bearer realm="dropr"'),))

    def _foreign_name(self, host: str) -> Answer:
        if self._names_refused.add():
            self._log.warning(
                "monitor: refused a request for the name %.100r (%d such so far); if it is this machine's, add it to "
                "`monitor: {hosts: [...]}`", host, self._names_refused.count,
            )  # fmt: skip
        return problem(421, "this name is not this machine's; `monitor: {hosts: [NAME]}` allows another one")


def _own_page(headers: Mapping[str, str]) -> bool:
    """Whether a browser, if one asks, does so for a page from here. Others say nothing of it."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        # Following a link to the page itself is no request for data, and comes without anything to act with.
        return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


async def _read(receive: Receive) -> bytes | None:
    """The body; None if it is too large."""
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)
