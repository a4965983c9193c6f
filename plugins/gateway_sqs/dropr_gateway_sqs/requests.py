"""From bytes to a request, in both protocols: AWS JSON 1.0, and the older one of forms.

Owns `Request` and what the older protocol calls each parameter. After this nobody knows a difference, but for the
answer's form. Must not know what an action does.
"""

import types
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl

import attrs
import msgspec

from dropr_gateway_sqs.failures import SqsError, invalid_parameter, missing

Protocol = Literal["json", "query"]
TARGET = "AmazonSQS."
_MOST_FIELDS = 2000
"""Fields of a form: ten messages with ten attributes of four fields each, and room."""
_DEEPEST = 6


@attrs.frozen
class Request:
    """One call. Binary values are in base64, numbers of the older protocol are still text."""

    protocol: Protocol
    action: str
    parameters: Mapping[str, Any] = attrs.field(repr=False)


def read_json(target: str, body: bytes) -> Request:
    """A request of the JSON protocol; ``target`` is its X-Amz-Target. Raises SqsError."""
    if not target.startswith(TARGET):
        raise SqsError("UnknownOperationException", f"X-Amz-Target must be {TARGET} and an action.")
    try:
        parameters = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SqsError("SerializationException", f"The body is no JSON: {error}") from None
    if not isinstance(parameters, dict):
        raise SqsError("SerializationException", "The body must be a JSON object.")
    return Request("json", target.removeprefix(TARGET), parameters)


def read_form(query: bytes, body: bytes, path: str) -> Request:
    """A request of the older protocol: query string and form together; the path may be the queue's. Raises SqsError."""
    try:
        pairs = [
            pair
            for part in (query, body)
            for pair in parse_qsl(
                part.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
            )
        ]
    except ValueError as error:  # UnicodeDecodeError is one
        raise invalid_parameter(f"The form cannot be read: {error}") from None
    tree: dict[str, Any] = {}
    for name, value in pairs:
        _plant(tree, name, value)
    action = tree.pop("Action", None)
    if not isinstance(action, str) or not action:
        raise SqsError("MissingAction", "The request must contain the parameter Action.")
    parameters = _renamed(tree, action)
    if "QueueUrl" not in parameters and path.count("/") >= 2:
        parameters["QueueUrl"] = path
    return Request("query", action, parameters)


def _plant(tree: dict[str, Any], name: str, value: str) -> None:
    steps = name.split(".")
    if len(steps) > _DEEPEST:
        raise invalid_parameter(f"The parameter {name[:100]} is unknown.")
    for step in steps[:-1]:
        below = tree.setdefault(step, {})
        if not isinstance(below, dict):
            raise invalid_parameter(f"The parameter {name[:100]} is there in two forms.")
        tree = below
    if isinstance(tree.get(steps[-1]), dict):
        raise invalid_parameter(f"The parameter {name[:100]} is there in two forms.")
    tree[steps[-1]] = value


_LISTS: Mapping[str, str] = types.MappingProxyType(
    {
        "AttributeName": "AttributeNames",
        "MessageSystemAttributeName": "MessageSystemAttributeNames",
        "MessageAttributeName": "MessageAttributeNames",
        "TagKey": "TagKeys",
        "AWSAccountId": "AWSAccountIds",
        "ActionName": "Actions",
        "SendMessageBatchRequestEntry": "Entries",
        "DeleteMessageBatchRequestEntry": "Entries",
        "ChangeMessageVisibilityBatchRequestEntry": "Entries",
        "StringListValue": "StringListValues",
        "BinaryListValue": "BinaryListValues",
    }
)
_MAPS: Mapping[str, tuple[str, str, str]] = types.MappingProxyType(
    {
        "Attribute": ("Attributes", "Name", "Value"),
        "MessageAttribute": ("MessageAttributes", "Name", "Value"),
        "MessageSystemAttribute": ("MessageSystemAttributes", "Name", "Value"),
        "Tag": ("Tags", "Key", "Value"),
    }
)


def _renamed(tree: Mapping[str, Any], action: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in tree.items():
        if name in _LISTS:
            made[_LISTS[name]] = [_renamed(one) if isinstance(one, dict) else one for one in _numbered(name, value)]
        elif name in _MAPS:
            plural, key, content = _MAPS[name]
            if action == "CreateQueue" and plural == "Tags":
                plural = "tags"  # so it is called in Amazon's model, there alone
            made[plural] = {}
            for one in _numbered(name, value):
                if not isinstance(one, dict) or not isinstance(one.get(key), str):
                    raise missing(f"{name}.{key}")
                made[plural][one[key]] = one.get(content, "")
        else:
            made[name] = _renamed(value) if isinstance(value, dict) else value
    return made


def _numbered(name: str, value: Any) -> list[Any]:
    """The members of a list in order of their numbers; one alone may come without."""
    if not isinstance(value, dict):
        return [value]
    if not all(number.isascii() and number.isdigit() and len(number) < 6 for number in value):
        if any(number.isdigit() for number in value):
            raise invalid_parameter(f"The members of {name} must be numbered.")
        return [value]
    return [value[number] for number in sorted(value, key=int)]


# ── what an action reads from its parameters ─────────────────────────────────────────────────────


def text(parameters: Mapping[str, Any], name: str) -> str:
    """A text that must be there. Raises SqsError."""
    value = parameters.get(name)
    if value is None or value == "":
        raise missing(name)
    if not isinstance(value, str):
        raise SqsError("SerializationException", f"{name} must be a text.")
    return value


def optional_text(parameters: Mapping[str, Any], name: str) -> str | None:
    """A text, or None if it is not there or empty. Raises SqsError."""
    return text(parameters, name) if parameters.get(name) not in (None, "") else None


def number(parameters: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """A whole number between the two, or None if it is not there. Raises SqsError."""
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        stripped = value.strip()
        value = int(stripped) if stripped.removeprefix("-").isdecimal() and len(stripped) < 12 else None
    if type(value) is not int:
        raise invalid_parameter(f"Value for parameter {name} is invalid. Reason: Must be an integer.")
    if not least <= value <= most:
        raise invalid_parameter(
            f"Value {value} for parameter {name} is invalid. Reason: Must be between {least} and {most}, if provided."
        )
    return value


def texts(parameters: Mapping[str, Any], name: str) -> list[str]:
    """A list of texts; empty if it is not there. Raises SqsError."""
    value = parameters.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise SqsError("SerializationException", f"{name} must be a list of texts.")
    return value


def text_map(parameters: Mapping[str, Any], name: str) -> dict[str, str]:
    """A map of texts; empty if it is not there. Raises SqsError."""
    value = parameters.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise SqsError("SerializationException", f"{name} must be a map of texts.")
    return value


def entries(parameters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of a batch: 1 to 10, each with an id of its own. Raises SqsError."""
    value = parameters.get("Entries")
    if not isinstance(value, list) or not value:
        raise SqsError("EmptyBatchRequest", "There should be at least one entry in the request.")
    if len(value) > 10:
        raise SqsError(
            "TooManyEntriesInBatchRequest", f"Maximum number of entries per request are 10. You have sent {len(value)}."
        )
    for one in value:
        if not isinstance(one, dict):
            raise SqsError("SerializationException", "An entry of a batch must be an object.")
        own = text(one, "Id")
        if len(own) > 80 or not own.replace("-", "").replace("_", "").isalnum() or not own.isascii():
            raise SqsError(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most "
                "80 letters long.",
            )
    ids = [one["Id"] for one in value]
    for own in ids:
        if ids.count(own) > 1:
            raise SqsError("BatchEntryIdsNotDistinct", f"Id {own} repeated.")
    return value
