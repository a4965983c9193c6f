"""Many messages in one request: a JSON array, JSON lines, or multipart.

Owns how each is taken apart. All is in memory, so whoever reads the request bounds it. Pure; must not know requests or
the desk.
"""

from collections.abc import Iterator, Mapping

import msgspec
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from dropr_core.contracts.gateway import Parcel
from dropr_gateway_http import words
from dropr_gateway_http.problems import Trouble
from dropr_gateway_http.reading import is_media_type, parcel_of, rank_of

JSON = "application/json"
LINES = "application/x-ndjson"
MULTIPART = ("multipart/form-data", "multipart/mixed")
MAX_PART_HEADERS = 16 << 10

_ITEMS = msgspec.json.Decoder(words.Items)
_ITEM = msgspec.json.Decoder(words.Item)


def of_json(channel: str, document: bytes) -> list[Parcel]:
    """Raises Trouble."""
    try:
        items = _ITEMS.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Trouble(400, "bad_batch", f"this is no list of messages: {error}") from None
    return [parcel(channel, item, f"$[{at}]") for at, item in enumerate(items)]


def of_lines(channel: str, text: bytes) -> list[Parcel]:
    """One message a line; empty lines are skipped. Raises Trouble."""
    found: list[Parcel] = []
    for at, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            item = _ITEM.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Trouble(400, "bad_batch", f"line {at} is no message: {error}") from None
        found.append(parcel(channel, item, f"line {at}"))
    return _counted(found)


def of_multipart(channel: str, content_type: str, data: bytes) -> list[Parcel]:
    """One message a part: its headers are those of a request that sends one. Raises Trouble."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:
        raise Trouble(400, "bad_batch", "the content type of a multipart batch needs a boundary of 1 to 70 characters")
    return _counted([parcel_of(channel, headers, body) for headers, body in _parts(boundary, data)])


def _counted(found: list[Parcel]) -> list[Parcel]:
    if not 0 < len(found) <= words.MAX_COUNT:
        raise Trouble(400, "bad_batch", f"a batch has 1 to {words.MAX_COUNT:,} messages, this one has {len(found):,}")
    return found


def parcel(channel: str, item: words.Item, where: str) -> Parcel:
    """The message that an item is. Raises Trouble."""
    bodies = [one for one in (item.text, item.base64, item.json) if one is not msgspec.UNSET]
    if len(bodies) > 1:
        raise Trouble(400, "bad_batch", f"{where}: give one of text, base64 and json")
    body, usual = b"", "application/octet-stream"
    if isinstance(item.text, str):
        try:
            body, usual = item.text.encode(), "text/plain; charset=utf-8"
        except UnicodeEncodeError:
            raise Trouble(400, "bad_batch", f"{where}: text has half a pair; it has no UTF-8 form") from None
    elif isinstance(item.base64, bytes):
        body = item.base64
    elif isinstance(item.json, msgspec.Raw):
        body, usual = bytes(item.json), "application/json"
    if isinstance(item.content_type, str) and not is_media_type(item.content_type):
        raise Trouble(400, "bad_batch", f"{where}: {item.content_type[:100]!r} is no content type")
    return Parcel(
        channel=channel,
        body=body,
        content_type=usual if item.content_type is msgspec.UNSET else item.content_type,
        rank=rank_of(item),
        delay=None if item.delay is msgspec.UNSET else item.delay,
        expires_in=None if item.expires_in is msgspec.UNSET else item.expires_in,
        key=None if item.key is msgspec.UNSET else item.key,
        dedup=None if item.idempotency_key is msgspec.UNSET else item.idempotency_key,
        headers={} if item.headers is msgspec.UNSET else item.headers,
        receipt=item.receipt,
    )


def _parts(boundary: bytes, data: bytes) -> Iterator[tuple[Mapping[str, str], bytes]]:
    """The headers (names in small letters) and the body of each part."""
    parts: list[tuple[dict[str, str], bytearray]] = []
    name, value = bytearray(), bytearray()
    ended: list[bool] = []

    def begin() -> None:
        if len(parts) >= words.MAX_COUNT:
            raise Trouble(400, "bad_batch", f"a batch has at most {words.MAX_COUNT:,} messages")
        parts.append(({}, bytearray()))

    def end_header() -> None:
        parts[-1][0][name.decode("latin-1").lower()] = value.decode("latin-1").strip()
        name.clear()
        value.clear()

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_part_data": lambda chunk, start, end: parts[-1][1].extend(chunk[start:end]),
            "on_header_field": lambda chunk, start, end: name.extend(chunk[start:end]),
            "on_header_value": lambda chunk, start, end: value.extend(chunk[start:end]),
            "on_header_end": end_header,
            "on_end": lambda: ended.append(True),
        },
    )
    try:
        parser.write(data)
        parser.finalize()
    except MultipartParseError as error:
        raise Trouble(400, "bad_batch", f"this is no multipart document with that boundary: {error}") from None
    if not ended:
        raise Trouble(400, "bad_batch", "this multipart document does not end with its boundary: it was cut off")
    for headers, body in parts:
        yield headers, bytes(body)
