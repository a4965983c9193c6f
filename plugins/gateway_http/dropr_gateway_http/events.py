"""CloudEvents 1.0 over HTTP: binary, structured and batched content mode, in and out.

Owns the mapping between an event and a message. An event in binary mode is a message with headers ``ce-…`` and the
data as body; in structured mode the document is the body, with its media type. Both are kept as they came, and turned
into the other only for a receiver that asks for it. Data travels byte for byte (`msgspec.Raw`): what is JSON stays as
it was written. Pure; must not know requests or the desk.
"""

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote, unquote

import attrs
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from dropr_gateway_http.problems import Trouble

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
PREFIX = "ce-"

_NAME = re.compile(r"[a-z0-9]{1,64}")
_SAFE = "".join(sign for sign in map(chr, range(0x21, 0x7F)) if sign not in '"%')
_JSON = re.compile(r"[a-zA-Z0-9.+-]+/(?:[a-zA-Z0-9.+-]+\+)?json(?:;.*)?", re.DOTALL)


class Event(Struct):
    """The attributes that every event has, and its data; extensions are checked beside it."""

    id: Annotated[str, Meta(min_length=1)]
    source: Annotated[str, Meta(min_length=1)]
    type: Annotated[str, Meta(min_length=1)]
    specversion: Annotated[str, Meta(pattern=r"^1\.0$")]
    datacontenttype: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    data: msgspec.Raw | UnsetType = UNSET
    data_base64: bytes | UnsetType = UNSET


Events = Annotated[list[Event], Meta(min_length=1, max_length=1000)]

_DECODER = msgspec.json.Decoder(Event)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAWS = msgspec.json.Decoder(Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=1000)])


@attrs.frozen
class Content:
    """A message as far as events are concerned."""

    content_type: str
    headers: Mapping[str, str]
    body: bytes
    dedup: str | None = None


def dedup_of(source: str, identity: str) -> str:
    """What makes two events the same one."""
    return f"{source}\n{identity}"


# ── in ───────────────────────────────────────────────────────────────────────────────────────────


def of_binary(given: Mapping[str, str]) -> tuple[dict[str, str], str] | None:
    """The message's headers and dedup text, of a request's headers; None if it is no event. Raises Trouble."""
    found = {name: unquote(value) for name, value in given.items() if name.startswith(PREFIX)}
    if "ce-specversion" not in found:
        return None
    for name in ("ce-id", "ce-source", "ce-type"):
        if not found.get(name):
            raise Trouble(400, "bad_event", f"a CloudEvent needs the header {name}, and it must not be empty")
    if found["ce-specversion"] != "1.0":
        raise Trouble(400, "bad_event", f"CloudEvents {found['ce-specversion'][:20]!r} are not known here, only 1.0")
    for name in found:
        if not _NAME.fullmatch(name[len(PREFIX) :]):
            raise Trouble(400, "bad_event", f"{name[:80]!r} is no name of a CloudEvent's attribute: a-z and 0-9 only")
    return found, dedup_of(found["ce-source"], found["ce-id"])


def of_structured(document: bytes) -> Content:
    """A message of an event's document, kept as it is. Raises Trouble."""
    try:
        event = _DECODER.decode(document)
        names = _FIELDS.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Trouble(400, "bad_event", f"this is no CloudEvent as JSON: {error}") from None
    for name in names:
        if not _NAME.fullmatch(name) and name != "data_base64":
            raise Trouble(400, "bad_event", f"{name[:80]!r} is no name of a CloudEvent's attribute: a-z and 0-9 only")
    return Content(STRUCTURED, {}, document, dedup_of(event.source, event.id))


def of_batch(document: bytes) -> list[Content]:
    """The same of a list of documents. Raises Trouble."""
    try:
        return [of_structured(bytes(one)) for one in _RAWS.decode(document)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Trouble(400, "bad_event", f"this is no list of up to 1,000 CloudEvents as JSON: {error}") from None


# ── out ──────────────────────────────────────────────────────────────────────────────────────────


def is_structured(content_type: str) -> bool:
    """Whether a body of this type is an event's document."""
    return content_type.partition(";")[0].strip().lower() == STRUCTURED


def header_of(value: str) -> str:
    """A value as it stands in an HTTP header."""
    return quote(value, safe=_SAFE)


def binary(message: Content, identity: str, source: str) -> Content:
    """As an event in binary mode; what was no event becomes one of type ``dropr.message``."""
    if is_structured(message.content_type):
        event, fields = _DECODER.decode(message.body), _FIELDS.decode(message.body)
        attributes = {PREFIX + name: _text(raw) for name, raw in fields.items() if name not in _APART}
        body = b"" if event.data_base64 is UNSET else event.data_base64
        own = "application/json" if event.datacontenttype is UNSET else event.datacontenttype
        if event.data is not UNSET:
            body = bytes(event.data)
            if not _JSON.fullmatch(own):
                body = _text(event.data).encode()
        return Content(own, attributes, body)
    if "ce-specversion" in message.headers:
        return message
    made = {"ce-specversion": "1.0", "ce-id": identity, "ce-source": source, "ce-type": "dropr.message"}
    return Content(message.content_type, {**message.headers, **made}, message.body)


_APART = frozenset({"data", "data_base64", "datacontenttype"})


def structured(message: Content, identity: str, source: str) -> bytes:
    """As an event's document."""
    if is_structured(message.content_type):
        return message.body
    event = binary(message, identity, source)
    document: dict[str, object] = {
        name[len(PREFIX) :]: value for name, value in event.headers.items() if name.startswith(PREFIX)
    }
    document["datacontenttype"] = event.content_type
    if event.body and _JSON.fullmatch(event.content_type) and _is_json(event.body):
        document["data"] = msgspec.Raw(event.body)
    elif event.body:
        try:
            if not event.content_type.startswith("text/"):
                raise ValueError
            document["data"] = event.body.decode()
        except ValueError:
            document["data_base64"] = event.body
    return msgspec.json.encode(document)


def _text(raw: msgspec.Raw) -> str:
    """An attribute as text: a JSON text is what it says, anything else as it is written."""
    data = bytes(raw)
    return msgspec.json.decode(data, type=str) if data.startswith(b'"') else data.decode()


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
