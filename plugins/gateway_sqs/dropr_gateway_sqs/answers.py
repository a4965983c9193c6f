"""From a result to bytes, in both protocols.

Owns the forms of results and errors: JSON as it is, and the older protocol's XML. A result is what Amazon's model
calls it, binary values in base64. Must not know what an action does.
"""

import types
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import escape

import attrs
import msgspec

from dropr_gateway_sqs.failures import SqsError
from dropr_gateway_sqs.requests import Protocol

_JSON = b"application/x-amz-json-1.0"
_XML = b"text/xml"
_NAMESPACE = "http://queue.amazonaws.com/doc/2012-11-05/"


@attrs.frozen
class Answer:
    """What goes back over HTTP."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = attrs.field(repr=False)


def success(protocol: Protocol, action: str, result: Mapping[str, Any] | None, request_id: str) -> Answer:
    """A result; None where the action has none."""
    if protocol == "json":
        body = msgspec.json.encode(result) if result is not None else b""
        return _answer(200, _JSON, body, request_id)
    inner = "" if result is None else f"<{action}Result>{_members(_named(action, result))}</{action}Result>"
    metadata = f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
    text = f'<?xml version="1.0"?><{action}Response xmlns="{_NAMESPACE}">{inner}{metadata}</{action}Response>'
    return _answer(200, _XML, text.encode(), request_id)


def failure(protocol: Protocol, error: SqsError, request_id: str) -> Answer:
    """An error."""
    fault = "Sender" if error.sender_fault else "Receiver"
    if protocol == "json":
        body = msgspec.json.encode({"__type": f"com.amazonaws.sqs#{error.code}", "message": error.message})
        answer = _answer(error.status, _JSON, body, request_id)
        answer.headers.append((b"x-amzn-query-error", f"{error.query_code};{fault}".encode()))
        return answer
    text = (
        f'<?xml version="1.0"?><ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>{fault}</Type>'
        f"<Code>{error.query_code}</Code><Message>{_text(error.message)}</Message><Detail/></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return _answer(error.status, _XML, text.encode(), request_id)


def _answer(status: int, content_type: bytes, body: bytes, request_id: str) -> Answer:
    headers = [
        (b"content-type", content_type), (b"content-length", b"%d" % len(body)),
        (b"x-amzn-requestid", request_id.encode()),
    ]  # fmt: skip
    return Answer(status, headers, body)


def _text(text: str) -> str:
    # A bare carriage return would be read as a line feed.
    return escape(text, {"\r": "&#xD;"})


def _element(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f"<{name}>{_members(value)}</{name}>"
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name}>{_text(shown)}</{name}>"


def _pairs(name: str, key: str) -> Callable[[Mapping[str, Any]], str]:
    def write(value: Mapping[str, Any]) -> str:
        return "".join(f"<{name}>{_element(key, one)}{_element('Value', value[one])}</{name}>" for one in value)

    return write


def _repeated(name: str) -> Callable[[list[Any]], str]:
    return lambda value: "".join(_element(name, one) for one in value)


_FORMS: Mapping[str, Callable[[Any], str]] = types.MappingProxyType(
    {
        "QueueUrls": _repeated("QueueUrl"),
        "queueUrls": _repeated("QueueUrl"),
        "Messages": _repeated("Message"),
        "Results": _repeated("ListMessageMoveTasksResultEntry"),
        "Failed": _repeated("BatchResultErrorEntry"),
        "Attributes": _pairs("Attribute", "Name"),
        "MessageAttributes": _pairs("MessageAttribute", "Name"),
        "Tags": _pairs("Tag", "Key"),
        "SendMessageBatchResultEntry": _repeated("SendMessageBatchResultEntry"),
        "DeleteMessageBatchResultEntry": _repeated("DeleteMessageBatchResultEntry"),
        "ChangeMessageVisibilityBatchResultEntry": _repeated("ChangeMessageVisibilityBatchResultEntry"),
    }
)


def _members(result: Mapping[str, Any]) -> str:
    return "".join(_FORMS[name](value) if name in _FORMS else _element(name, value) for name, value in result.items())


def _named(action: str, result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What succeeded in a batch is called by the action here."""
    return {f"{action}ResultEntry" if name == "Successful" else name: value for name, value in result.items()}
