"""What an operation is: from one declaration it is found, its parameters are read, and its documentation is made.

Owns `Operation` and the finding. Must not know any operation.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import attrs

from dropr_gateway_http.exchange import Answer, Call
from dropr_gateway_http.problems import Trouble
from dropr_gateway_http.reading import segment

BYTES = bytes
"""A body of any bytes."""

Right = Literal["send", "receive", "manage", ""]


@attrs.frozen
class Gives:
    """One answer: what it says, media type → type of its body, the headers that come with it."""

    says: str
    media: Mapping[str, Any] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Name → what it says."""


@attrs.frozen(kw_only=True)
class Operation:
    """One method of one path."""

    name: str
    method: str
    path: str
    says: str
    more: str = ""
    handle: Callable[[Call], Awaitable[Answer]]
    right: Right = ""
    query: type | None = None
    headers: type | None = None
    takes: Mapping[str, Any] = attrs.field(factory=dict)
    gives: Mapping[int, Gives] = attrs.field(factory=dict)
    also: Mapping[int, str] = attrs.field(factory=dict)
    """Problems besides those that every operation has."""
    endless: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The path's segments; those in braces are parameters."""
        return tuple(self.path.split("/")[1:])


class Routes:
    """Finds the operation of a request."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        self._by_length: dict[int, list[tuple[tuple[str, ...], dict[str, Operation]]]] = {}
        for operation in operations:
            routes = self._by_length.setdefault(len(operation.parts), [])
            for parts, methods in routes:
                if parts == operation.parts:
                    methods[operation.method] = operation
                    break
            else:
                routes.append((operation.parts, {operation.method: operation}))

    def find(self, method: str, raw_path: str) -> tuple[Operation, dict[str, str]]:
        """The operation and its path parameters, decoded after the path was taken apart: a slash in a name is `%2F`.
        Raises Trouble.
        """
        given = raw_path.split("/")[1:]
        for parts, methods in self._by_length.get(len(given), ()):
            if all(part == have or (part.startswith("{") and have) for part, have in zip(parts, given, strict=True)):
                operation = methods.get(method)
                if operation is None:
                    raise Trouble(
                        405, "method", f"{method} is not known here, only {', '.join(sorted(methods))}",
                        {"Allow": ", ".join(sorted(methods))},
                    )  # fmt: skip
                return operation, {
                    part[1:-1]: segment(have) for part, have in zip(parts, given, strict=True) if part.startswith("{")
                }
        raise Trouble(404, "no_such_path", f"nothing is at {raw_path[:200]!r}; see /openapi.json. A slash in the name "
                      "of a channel is written %2F")  # fmt: skip
