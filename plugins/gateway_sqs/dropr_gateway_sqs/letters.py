"""A message of SQS as a parcel of dropr, and back.

Owns which header carries what. An attribute is a header of its own name, so that other dialects see it; what only SQS
has stands in headers ``x-sqs-*``. Must not know queues, leases or protocols.
"""

import base64
import binascii
import hashlib
import types
from collections.abc import Mapping

import attrs
import msgspec

from dropr_core.contracts.gateway import Held, Parcel
from dropr_core.model.limits import MAX_HEADERS
from dropr_gateway_sqs.attributes import MessageAttribute, chosen, digest, is_attribute_name, is_text
from dropr_gateway_sqs.failures import SqsError, invalid_parameter

TYPES = "x-sqs-types"
"""JSON: attribute → data type, of those that are not plain ``String``."""
GROUP, DEDUP, TRACE = "x-sqs-group", "x-sqs-dedup", "x-sqs-trace"
SENDER = "x-sqs-sender"
"""The access key with which it was sent."""
SENT = "x-sqs-sent"
"""When it was sent, of a message that was moved from another queue: milliseconds since the epoch."""
SOURCE = "x-sqs-source"
"""Of a message in a dead-letter queue: the queue from which it came."""
RECEIVED = "x-sqs-received"
"""How often it was received in the queues before this one."""
ID = "x-sqs-id"
"""The id that it had in the queue in which it was sent: SQS keeps it when a message moves."""
_ESCAPED = "x-sqs-attr-"
"""Before the name of an attribute that begins with ``x-``, as the headers of dialects do."""

ENCODING = "dropr-encoding"
"""The attribute that says that a body stands in base64, since its bytes are no text that SQS can carry."""
TEXT = "text/plain; charset=utf-8"

_SPARE = 4096
"""Bytes of headers that a move to another queue may add."""


@attrs.frozen(kw_only=True)
class Letter:
    """What a sender says of one message, checked."""

    body: bytes = attrs.field(repr=False)
    """A text in UTF-8."""
    attributes: Mapping[str, MessageAttribute]
    trace: MessageAttribute | None = None
    group: str | None = None
    dedup: str | None = None
    delay: float = 0.0

    @property
    def body_digest(self) -> str:
        """MD5 of the body, as the sender compares it."""
        return hashlib.md5(self.body, usedforsecurity=False).hexdigest()

    def digests(self) -> dict[str, str]:
        """The three MD5s of an answer to its sender."""
        made = {"MD5OfMessageBody": self.body_digest}
        if self.attributes:
            made["MD5OfMessageAttributes"] = digest(self.attributes)
        if self.trace is not None:
            made["MD5OfMessageSystemAttributes"] = digest({"AWSTraceHeader": self.trace})
        return made


def to_parcel(
    letter: Letter, channel: str, *, fifo: bool, sender: str, life: float, dedup: str | None = None
) -> Parcel:
    """As dropr stores it, which notes the time by itself. ``life`` is the queue's retention period. Raises SqsError."""
    attributes = dict(letter.attributes)
    body, content_type = letter.body, TEXT
    encoding = attributes.pop(ENCODING, None)
    if encoding is not None:
        body, content_type = _decoded(encoding, letter.body), "application/octet-stream"
    headers = _headers(attributes)
    if sender:
        headers[SENDER] = sender
    if letter.group is not None:
        headers[GROUP] = letter.group
    if letter.dedup is not None:
        headers[DEDUP] = letter.dedup
    if letter.trace is not None:
        headers[TRACE] = letter.trace.value.decode()
    size = 0 if not attributes else sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())
    if size > MAX_HEADERS - _SPARE:
        raise invalid_parameter(
            f"The message attributes are {size} bytes as headers; this node carries {MAX_HEADERS - _SPARE} bytes of "
            "them with a message. Put large data into the body."
        )
    return Parcel(
        channel=channel, body=body, delay=letter.delay, expires_in=life, headers=headers, content_type=content_type,
        key=letter.group if fifo else None, dedup=dedup,
    )  # fmt: skip


def _decoded(encoding: MessageAttribute, body: bytes) -> bytes:
    if encoding.value != b"base64":
        raise invalid_parameter(f"The attribute {ENCODING} can only be base64.")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise SqsError(
            "InvalidMessageContents", f"The attribute {ENCODING} says base64, and the body is none."
        ) from None


def _headers(attributes: Mapping[str, MessageAttribute]) -> dict[str, str]:
    headers, kinds = {}, {}
    for name, one in attributes.items():
        header = _ESCAPED + name if name.lower().startswith("x-") else name
        headers[header] = base64.b64encode(one.value).decode() if one.binary else one.value.decode()
        if one.data_type != "String":
            kinds[name] = one.data_type
    if kinds:
        headers[TYPES] = msgspec.json.encode(kinds).decode()
    return headers


def attributes_of(headers: Mapping[str, str]) -> dict[str, MessageAttribute]:
    """The message attributes: those with which it was sent, or a foreign message's headers as texts."""
    kinds = _kinds(headers.get(TYPES))
    found = {}
    for header, value in headers.items():
        name = header.removeprefix(_ESCAPED)
        if name is header and header[:2].lower() == "x-":
            continue  # of another dialect, or ours
        kind = kinds.get(name, "String")
        if not is_attribute_name(name) or not value:
            continue
        if kind.startswith("Binary"):
            try:
                found[name] = MessageAttribute(kind, base64.b64decode(value, validate=True))
            except (binascii.Error, ValueError):
                continue
        elif is_text(value):
            found[name] = MessageAttribute(kind, value.encode())
    return found


def _kinds(text: str | None) -> Mapping[str, str]:
    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return {}  # somebody else's header


def to_message(
    held: Held, receipt: str, *, system: list[str], wanted: list[str], first_receive: float
) -> dict[str, object]:
    """As a receiver gets it. ``system`` and ``wanted`` are the attributes it asked for; the time is wall time."""
    headers, data = held.headers, held.body
    attributes = chosen(attributes_of(headers), wanted)
    body = _text_of(data)
    if body is None:
        body = base64.b64encode(data).decode()
        attributes[ENCODING] = MessageAttribute("String", b"base64")
        data = body.encode()
    message: dict[str, object] = {
        "MessageId": headers.get(ID, held.id),
        "ReceiptHandle": receipt,
        "MD5OfBody": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "Body": body,
    }
    if system:
        everything = _system(held, first_receive)
        shown = {name: one for name, one in everything.items() if "All" in system or name in system}
        if shown:
            message["Attributes"] = shown
    if attributes:
        message["MD5OfMessageAttributes"] = digest(attributes)
        message["MessageAttributes"] = {name: one.shown() for name, one in attributes.items()}
    return message


def _text_of(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if is_text(text) else None


_CARRIED: Mapping[str, str] = types.MappingProxyType(
    {
        "MessageGroupId": GROUP,
        "MessageDeduplicationId": DEDUP,
        "AWSTraceHeader": TRACE,
        "DeadLetterQueueSourceArn": SOURCE,
    }
)


def _system(held: Held, first_receive: float) -> dict[str, str]:
    headers = held.headers
    made = {
        "SenderId": headers.get(SENDER, held.sender),
        "SentTimestamp": _sent(held),
        "ApproximateReceiveCount": str(received(held)),
        "ApproximateFirstReceiveTimestamp": str(int(first_receive * 1000)),
    }
    if held.channel.endswith(".fifo"):
        made["SequenceNumber"] = sequence(held.number)
    made |= {name: headers[header] for name, header in _CARRIED.items() if header in headers}
    return made


def _sent(held: Held) -> str:
    """Milliseconds since the epoch."""
    before = held.headers.get(SENT, "")
    return before if before.isascii() and before.isdecimal() else str(int(held.created_at * 1000))


def received(held: Held) -> int:
    """How often it was received, in all queues in which it was."""
    before = held.headers.get(RECEIVED, "0")
    return held.attempt + (int(before) if before.isascii() and before.isdecimal() and len(before) < 10 else 0)


def sequence(number: int) -> str:
    """A SequenceNumber: later ones are greater."""
    return f"{number:020d}"


def moved(held: Held, channel: str, *, fifo: bool, source: str | None, dedup: str, life: float) -> Parcel:
    """The same message for another queue; ``source``: the ARN of the queue that gives it up for dead. That it was taken
    to be moved does not count as a receive.
    """
    headers = {
        **held.headers, ID: held.headers.get(ID, held.id), SENT: _sent(held), RECEIVED: str(received(held) - 1),
    }  # fmt: skip
    headers.pop(SOURCE, None)
    if source is not None:
        headers[SOURCE] = source
    return Parcel(
        channel=channel, body=held.body, expires_in=life, headers=headers, content_type=held.content_type,
        key=headers.get(GROUP) if fifo else None, dedup=dedup,
    )  # fmt: skip
