"""The OpenAPI 3.1 document, made of the operations and the types that requests are read with.

Owns its form. Must not know what operations do.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from dropr_gateway_http import words
from dropr_gateway_http.operation import BYTES, Gives, Operation, Routes
from dropr_gateway_http.problems import MEDIA

_PARAMETERS = {"channel": words.Channel, "id": words.Identity, "handle": words.Handle}
_REF = "#/components/schemas/{name}"

INTRODUCTION = """Plain HTTP for dropr, the durable message queue without a broker.

What is sent here is on this node's stable storage before it is answered; where it goes from there is the node's
configuration. What is received is leased: acknowledge it by its handle, or it comes again when its time is over.

A WebSocket at `/socket` sends, receives and settles over one connection.
"""

_PROBLEMS = {
    400: "The request cannot work as it stands. Nothing was changed.",
    401: "The token is missing or not known.",
    403: "You may not do this here, or the request comes from a web page that may not call.",
    413: "More than may be sent at once. Nothing was stored.",
    421: "The request is addressed to a name that is none of this node's.",
    500: "The store failed. Nothing was promised.",
    503: "Full, busy or closing. Nothing was changed; the same request may succeed later.",
}


def document(routes: Routes, version: str, secured: bool) -> dict[str, Any]:
    """The whole document."""
    found, components = msgspec.json.schema_components(_types(routes), ref_template=_REF)
    schemas = dict(zip(map(repr, _types(routes)), found, strict=True))
    components = {name: value for name, value in components.items() if name not in _SPREAD}
    paths: dict[str, dict[str, Any]] = {}
    for operation in routes.operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "A node of dropr, over HTTP", "version": version, "description": INTRODUCTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components},
    }
    if secured:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
    return made


_SPREAD = frozenset(
    kind.__name__
    for kind in (words.SendHeaders, words.ReceiveQuery, words.StreamQuery, words.PeekQuery, words.StatusQuery)
)
"""Types whose fields are parameters."""


def _types(routes: Routes) -> list[Any]:
    kinds: dict[str, Any] = {repr(kind): kind for kind in (*_PARAMETERS.values(), words.Problem)}
    for operation in routes.operations:
        for kind in (
            *operation.takes.values(),
            *(k for gives in operation.gives.values() for k in gives.media.values()),
        ):
            if kind is not BYTES:
                one = kind[0] if isinstance(kind, tuple) else kind
                kinds[repr(one)] = one
    return list(kinds.values())


def _operation(operation: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.says,
        "tags": [operation.path.split("/")[1] or "node"],
        "responses": {},
    }
    if operation.more or operation.right:
        needs = f"Needs the right to {operation.right}." if operation.right else ""
        made["description"] = " ".join(filter(None, (operation.more, needs)))
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": schemas[repr(_PARAMETERS[part[1:-1]])]}
        for part in operation.parts
        if part.startswith("{")
    ]
    for kind, where in ((operation.query, "query"), (operation.headers, "header")):
        if kind is not None:
            parameters += _fields(kind, where)
    if parameters:
        made["parameters"] = parameters
    if operation.takes:
        optional = all(getattr(kind, "__struct_fields__", None) is not None for kind in operation.takes.values())
        made["requestBody"] = {
            "required": not optional and BYTES not in operation.takes.values(),
            "content": {media: {"schema": _schema(kind, schemas)} for media, kind in operation.takes.items()},
        }
    answers = dict(operation.gives)
    for status, says in {**_PROBLEMS, **operation.also}.items():
        answers.setdefault(status, Gives(says, {MEDIA: words.Problem}))
    for status, gives in sorted(answers.items()):
        answer: dict[str, Any] = {"description": gives.says}
        if gives.media:
            answer["content"] = {media: {"schema": _schema(kind, schemas)} for media, kind in gives.media.items()}
        if gives.headers:
            answer["headers"] = {
                name: {"description": says, "schema": {"type": "string"}} for name, says in gives.headers.items()
            }
        made["responses"][str(status)] = answer
    return made


def _schema(kind: Any, schemas: Mapping[str, Any]) -> Any:
    if isinstance(kind, tuple):
        return {"anyOf": [schemas[repr(kind[0])], {"description": "The body of a message that is JSON."}]}
    return {} if kind is BYTES else schemas[repr(kind)]


def _fields(kind: type, where: str) -> list[dict[str, Any]]:
    (_,), components = msgspec.json.schema_components([kind], ref_template=_REF)
    made = components[kind.__name__]
    parameters = []
    for name, schema in made["properties"].items():
        schema = dict(schema)  # noqa: PLW2901
        parameter = {"name": _title(name) if where == "header" else name, "in": where, "required": False}
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        media = schema.get("contentMediaType")
        if media is not None:  # a document in a header
            parameters.append({**parameter, "content": {media: {"schema": schema["contentSchema"]}}})
        else:
            parameters.append({**parameter, "schema": schema})
    return parameters


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
