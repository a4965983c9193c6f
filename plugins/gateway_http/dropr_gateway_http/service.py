"""What the operations share: the desk, the options, and how a message looks from outside.

Owns turning a leased or seen message into an answer. Must not know paths or operations.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from msgspec import UNSET

from dropr_core.contracts.gateway import Desk, Held, Seen
from dropr_gateway_http import events, words
from dropr_gateway_http.callers import Callers
from dropr_gateway_http.exchange import Answer, ascii_json
from dropr_gateway_http.options import Options
from dropr_gateway_http.problems import Trouble
from dropr_gateway_http.reading import TRACING, is_media_type

INLINE = 64 << 10
"""A body of more bytes goes through a file, in and out."""
MAX_HEADER = 12 << 10
"""Most bytes of Dropr-Headers: clients have limits, too."""


@attrs.frozen
class Service:
    """Of one gateway."""

    desk: Desk
    options: Options
    callers: Callers
    log: logging.Logger
    batches: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(8))
    """Batches in memory at once."""
    uploads: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(64))
    """Large bodies on their way in at once."""
    streamed: dict[str, Callable[[], None]] = attrs.field(factory=dict)
    """Handle → what a stream wants to be told when somebody settles it."""

    def settled(self, handle: str) -> None:
        """A lease was settled by its handle: the stream that gave it out may give the next."""
        told = self.streamed.pop(handle, None)
        if told is not None:
            told()


Leased = Held | Seen


def source_of(message: Leased) -> str:
    """The source of an event that was none when it was sent."""
    return f"/nodes/{message.sender}/channels/{message.channel}"


def facts(message: Leased, now: float) -> dict[str, str]:
    """What stands in the headers of an answer that is one message."""
    headers = {
        "Dropr-Id": message.id,
        "Dropr-Channel": message.channel,
        "Dropr-Sender": message.sender,
        "Dropr-Rank": str(message.rank),
        "Dropr-Attempt": str(attempts_of(message)),
        "Dropr-Age": f"{max(0.0, message.age):.3f}",
    }
    handle = getattr(message, "handle", None)
    if handle is not None:
        headers["Dropr-Handle"] = handle
        if (left := hold_of(message, now)) is not None:
            headers["Dropr-Hold"] = f"{left:.3f}"
    state = getattr(message, "state", None)
    if state is not None:
        headers["Dropr-State"] = state.value
    return headers


def attempts_of(message: Any) -> int:
    """How often it was tried."""
    return int(message.attempt if hasattr(message, "attempt") else message.attempts)


def hold_of(message: Any, now: float) -> float | None:
    """Seconds that a lease still lasts; None: as long as its connection."""
    deadline = getattr(message, "deadline", None)
    return None if deadline is None else max(0.0, deadline - now)


def own_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The message's headers as an answer's: events' and tracing ones by themselves, the others in one."""
    made, rest = dict[str, str](), dict[str, str]()
    for name, value in headers.items():
        if name.startswith(events.PREFIX) and name.isascii() and name.replace("-", "").isalnum():
            made[name] = events.header_of(value)
        elif name in TRACING and value.isascii() and value.isprintable():
            made[name] = value
        else:
            rest[name] = value
    if rest:
        text = ascii_json(rest)
        made["Dropr-Headers"] = text if len(text) <= MAX_HEADER else '{"…":"too many for a header: receive as json"}'
        made["Dropr-Headers"] = made["Dropr-Headers"].encode("ascii", "replace").decode()
    return made


def as_message(message: Leased, now: float) -> words.Message:
    """In JSON. The body of a large one is left out."""
    large = message.size > INLINE
    text, data = UNSET, UNSET
    if not large:
        body = message.body
        try:
            text = body.decode()  # type: ignore[assignment]
        except UnicodeDecodeError:
            data = body  # type: ignore[assignment]
    state = getattr(message, "state", None)
    hold = hold_of(message, now)
    return words.Message(
        id=message.id, channel=message.channel, content_type=message.content_type, headers=dict(message.headers),
        sender=message.sender, rank=message.rank, attempt=attempts_of(message), age=max(0.0, message.age),
        size=message.size, handle=getattr(message, "handle", UNSET), hold=UNSET if hold is None else hold,
        state=UNSET if state is None else state.value, reason=getattr(message, "reason", UNSET) or UNSET,
        text=text, base64=data,
    )  # fmt: skip


def as_content(message: Leased) -> events.Content:
    """For the forms of events; its body in memory."""
    return events.Content(message.content_type, message.headers, message.body)


def body_answer(message: Leased, headers: dict[str, str], content_type: str) -> Answer:
    """The body as it is, from its file if it has one."""
    content_type = media_of(content_type)
    if message.size > INLINE:
        if isinstance(message, Seen):
            raise Trouble(413, "too_big", f"message {message.id} has {message.size:,} bytes, too many to be looked at; "
                          "as=json tells of it, and whoever receives it gets them")  # fmt: skip
        return Answer(media=content_type, headers=headers, file=message.open(), size=message.size)
    return Answer(body=message.body, media=content_type, headers=headers)


def media_of(content_type: str) -> str:
    """A content type that can stand in a header: other dialects let anything be one."""
    return content_type if is_media_type(content_type) else "application/octet-stream"


def one_answer(message: Leased, form: str, now: float) -> Answer:
    """One message in the form that was asked for. Raises Trouble."""
    if form == "raw":
        return body_answer(message, {**facts(message, now), **own_headers(message.headers)}, message.content_type)
    large = message.size > INLINE
    if large and (form == "structured" or events.is_structured(message.content_type)):
        raise Trouble(
            413,
            "too_big",
            f"message {message.id} has {message.size:,} bytes, too many to be turned into another form; receive it "
            "with as=raw. It was given back",
        )
    if form == "structured":
        document = events.structured(as_content(message), message.id, source_of(message))
        return Answer(body=document, media=events.STRUCTURED, headers=facts(message, now))
    if large:
        content = events.binary(
            events.Content(message.content_type, message.headers, b""), message.id, source_of(message)
        )
        return body_answer(message, {**facts(message, now), **own_headers(content.headers)}, content.content_type)
    content = events.binary(as_content(message), message.id, source_of(message))
    headers = {**facts(message, now), **own_headers(content.headers)}
    return Answer(body=content.body, media=media_of(content.content_type), headers=headers)


def seconds(value: float) -> float:
    """An age or pause that JSON can hold."""
    return value if math.isfinite(value) else 0.0
