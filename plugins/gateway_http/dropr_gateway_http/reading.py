"""From a request's headers and query to what they mean.

Owns how parameters are read with the types of words.py, and the parcel that a request (or a part of one) is. Pure; must
not know the desk.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from dropr_core.contracts.gateway import Parcel
from dropr_core.model.names import first_rank
from dropr_gateway_http import events, words
from dropr_gateway_http.problems import Trouble

T = TypeVar("T")
TRACING = ("traceparent", "tracestate")
"""Headers that are carried from the sender's request to the receiver's answer."""
_PLAIN = words.SendHeaders()
_SIGNS = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MEDIA = re.compile(rf'{_SIGNS}/{_SIGNS}(?: *; *(?:{_SIGNS}=(?:{_SIGNS}|"[ !#-\[\]-~]*"))?)*')


def convert(values: Mapping[str, str], kind: type[T], what: str) -> T:
    """Texts as one of the types of words.py. Raises Trouble."""
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Trouble(400, "bad_request", f"{what}: {error}") from None


def decode(document: bytes, kind: type[T]) -> T:
    """A JSON document as one of the types of words.py; none at all is ``{}``. Raises Trouble."""
    try:
        return msgspec.json.decode(document or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Trouble(400, "bad_request", f"the body is not what is wanted here: {error}") from None


def query_of(text: bytes, kind: type[T]) -> T:
    """The query of a request. Raises Trouble."""
    if not text:
        return convert({}, kind, "the query")
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict",
                          max_num_fields=20)  # fmt: skip
    except (ValueError, UnicodeDecodeError) as error:
        raise Trouble(400, "bad_request", f"the query cannot be read: {error}") from None
    values = dict(pairs)
    if len(values) != len(pairs):
        raise Trouble(400, "bad_request", "the query says the same thing twice")
    return convert(values, kind, "the query")


def segment(raw: str) -> str:
    """One segment of a path, decoded. Raises Trouble."""
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Trouble(400, "bad_request", f"the path is no UTF-8 in {raw[:100]!r}") from None


def send_headers(given: Mapping[str, str]) -> words.SendHeaders:
    """What the headers of a request say about the message. Raises Trouble."""
    found = {name: value for name, value in given.items() if name.startswith("dropr-") or name == "idempotency-key"}
    return convert(found, words.SendHeaders, "the headers") if found else _PLAIN


def parcel_of(
    channel: str, given: Mapping[str, str], body: bytes, *, event_dedup: bool = True, large: Any = None
) -> Parcel:
    """The message that a request with these headers (names in small letters) and this body sends. Raises Trouble."""
    said = send_headers(given)
    content_type = given.get("content-type", "application/octet-stream")
    headers: dict[str, str] = {}
    dedup = None if said.idempotency_key is msgspec.UNSET else said.idempotency_key
    if isinstance(said.headers, str):
        headers = _own_headers(said.headers)
    if events.is_structured(content_type) and large is None:
        content = events.of_structured(body)
        dedup = dedup or (content.dedup if event_dedup else None)
    elif (event := events.of_binary(given)) is not None:
        headers.update(event[0])
        dedup = dedup or (event[1] if event_dedup else None)
    for name in TRACING:
        if name in given:
            headers.setdefault(name, given[name])
    return Parcel(
        channel=channel,
        body=body,
        headers=headers,
        content_type=_content_type(content_type),
        rank=rank_of(said),
        delay=None if said.delay is msgspec.UNSET else said.delay,
        expires_in=None if said.expires_in is msgspec.UNSET else said.expires_in,
        key=None if said.key is msgspec.UNSET else said.key,
        dedup=dedup,
        receipt=said.receipt == "true",
        **({} if large is None else {"large": large}),
    )


def rank_of(said: words.SendHeaders | words.Item) -> int | None:
    """The rank that was said, else the first of the priority that was."""
    if isinstance(said.rank, int):
        return said.rank
    return first_rank(said.priority) if isinstance(said.priority, int) else None


def _content_type(text: str) -> str:
    if not is_media_type(text):
        raise Trouble(400, "bad_request", f"content-type: {text[:100]!r} is none, such as application/json")
    return text


def is_media_type(text: str) -> bool:
    """Whether a text can stand in a Content-Type header."""
    return len(text) <= 255 and _MEDIA.fullmatch(text) is not None


def _own_headers(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise Trouble(400, "bad_request", f"Dropr-Headers is no JSON object of texts: {error}") from None
