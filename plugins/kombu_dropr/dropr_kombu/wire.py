"""A message of Kombu as the bytes of a dropr message, and back.

One line of JSON with everything but the body, then the body as the serializer of Celery made it, untouched::

    {"content-encoding":"utf-8","content-type":"application/json","headers":{…},"properties":{…}}
    [[2, 2], {}, {"callbacks": null, …}]

Owns that. Must not know queues or nodes.
"""

from collections.abc import Mapping
from typing import Any

from kombu.utils.json import dumps, loads

from dropr_core.errors import ProtocolError

Raw = dict[str, Any]
"""A message as Kombu's virtual transports hand it around: body, content-type, content-encoding, headers, properties."""

CONTENT_TYPE = "application/x-kombu"

PROPERTIES = (
    "delivery_mode", "priority", "correlation_id", "reply_to", "expiration", "message_id", "timestamp", "type",
    "user_id", "app_id", "cluster_id", "delivery_info",
)  # fmt: skip
"""What AMQP carries of a message's properties, and where it went; what else `publish` is given stays behind."""


def encode(message: Mapping[str, Any]) -> bytes:
    """The bytes of a message. Raises TypeError for headers that are no JSON."""
    body = message.get("body") or b""
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogateescape")
    rest = {name: value for name, value in message.items() if name != "body"}
    properties = message.get("properties", {})
    rest["properties"] = {name: properties[name] for name in PROPERTIES if properties.get(name) is not None}
    head: str = dumps(rest)
    return head.encode() + b"\n" + bytes(body)


def decode(data: bytes) -> Raw:
    """The message in these bytes. Raises ProtocolError."""
    head, _, body = data.partition(b"\n")
    try:
        message = loads(head)
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"not a message of Kombu: its first line is no JSON ({error})") from None
    if not isinstance(message, dict) or not isinstance(message.get("properties"), dict):
        raise ProtocolError("not a message of Kombu: its first line has no properties")
    if not isinstance(message.get("headers") or {}, dict):
        raise ProtocolError("not a message of Kombu: its headers are no mapping")
    message["body"] = body
    message["headers"] = message.get("headers") or {}
    return message
