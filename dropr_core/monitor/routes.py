"""What a request to the monitor, its answer and a route are.

Owns these three, and how answers are written. A route is a small function over a request; who may ask, and everything
of HTTP, is `web.py`'s.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import attrs

MAX_BODY = 256 << 10
"""Most bytes of a request's body."""


@attrs.frozen
class Request:
    """One request; its caller has shown the token, unless the route is open."""

    method: str
    path: str
    query: Mapping[str, str] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """By names in small letters."""
    body: bytes = b""
    rest: str = ""
    """What stands in the place of the ``*`` of the route's path."""

    def document(self) -> dict[str, Any]:
        """The body, a JSON object. Raises Refused."""
        try:
            document = json.loads(self.body or b"{}")
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the body is no JSON") from error
        if not isinstance(document, dict):
            raise Refused(400, "the body is no JSON object")
        return document


@attrs.frozen
class Answer:
    """What is sent back."""

    body: bytes = b""
    media_type: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """Ends a route with a status and one sentence for whoever asked."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


Function: TypeAlias = Callable[[Request], Answer]


@attrs.frozen
class Route:
    """One path and what answers there, in a thread of the monitor's own: it may look at the store."""

    method: Literal["GET", "POST"]
    path: str
    """As it stands in the URL; one that ends in ``*`` is for everything that begins so."""
    function: Function
    open: bool = attrs.field(default=False, kw_only=True)
    """Whether it answers without the token: for what tells nothing."""
    quick: bool = attrs.field(default=False, kw_only=True)
    """Whether it never waits for anything, so that the event loop itself calls it."""


def text(body: str, status: int = 200, media_type: str = "text/plain; charset=utf-8") -> Answer:
    """An answer of text."""
    return Answer(body.encode("utf-8", "replace"), media_type, status)


def as_json(value: Any, status: int = 200) -> Answer:
    """An answer of JSON."""
    return Answer(json.dumps(value, separators=(",", ":")).encode(), "application/json", status)


def problem(status: int, sentence: str) -> Answer:
    """An answer that says what is wrong."""
    return as_json({"error": sentence}, status)


class Table:
    """Routes by method and path."""

    def __init__(self, routes: "tuple[Route, ...] | list[Route]") -> None:
        self._exact: dict[tuple[str, str], Route] = {
            (route.method, route.path): route for route in routes if not route.path.endswith("*")
        }
        self._begins = sorted(
            ((route.path[:-1], route) for route in routes if route.path.endswith("*")), key=lambda one: -len(one[0])
        )

    def find(self, method: str, path: str) -> tuple[Route, str] | None:
        """The route of a request, and what stands for its ``*``; HEAD is asked as GET is."""
        wanted = "GET" if method == "HEAD" else method
        if route := self._exact.get((wanted, path)):
            return route, ""
        for beginning, one in self._begins:
            if one.method == wanted and path.startswith(beginning):
                return one, path[len(beginning) :]
        return None

    def methods(self, path: str) -> list[str]:
        """The methods that this path takes."""
        return [method for method in ("GET", "POST") if self.find(method, path)]
