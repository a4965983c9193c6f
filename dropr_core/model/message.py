"""What a message is: the facts that are fixed when it is sent.

Owns `Message` (everything about a message but its body) and the ways it can end. A message is
immutable; what happens to it (positions, leases, attempts) is bookkeeping of the stores.
Must not know how a message is encoded, stored or shipped.
"""

import enum
import math
import re
from collections.abc import Iterable

import attrs
import msgspec

from dropr_core.errors import TooBig, UsageError
from dropr_core.model.limits import (
    MAX_CONTENT_TYPE,
    MAX_HEADERS,
    MAX_KEY,
    MAX_RECEIPTS,
    MAX_SECONDS,
    RECEIPTS_BYTES,
    shorten,
    to_utf8,
)
from dropr_core.model.names import (
    DEFAULT_CHANNEL,
    DEFAULT_PRIORITY,
    MessageId,
    check_channel,
    check_name,
    check_priority,
    check_rank,
    format_id,
    priority_of_rank,
)

_CONTENT_TYPE = re.compile(rf"[\x20-\x7e]{{1,{MAX_CONTENT_TYPE}}}")


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The facts of one message, fixed at `send`.

    A msgspec structure and not an attrs class because it is exactly what the envelope's header
    encodes: one pass in C each way (docs/decisions/0003).
    """

    id: bytes
    """16 bytes, a UUID."""
    sender: str
    channel: str = DEFAULT_CHANNEL
    priority: int = DEFAULT_PRIORITY
    content_type: str = "application/octet-stream"
    headers: dict[str, str] = {}
    key: str | None = None
    """Ordering key: the next message of a key is not leased before the one before it is settled."""
    receipt: bool = False
    """Whether the sender wants to know that it was processed."""
    created_at: float = 0.0
    """Sender's wall clock, seconds since the epoch; for people only."""
    delay: float | None = None
    """Seconds after `send` before which no consumer gets it."""
    expires_in: float | None = None
    """Seconds after `send` after which no consumer gets it."""
    hops: int = 0
    """How many relays handed it on; over MAX_HOPS it is a loop."""
    rank: int | None = None
    """Its order within its priority: a number of 32 bits, 0 first. None: the first of its priority."""

    @property
    def message_id(self) -> MessageId:
        """The id, as the rest of dropr types it."""
        return MessageId(self.id)

    def __str__(self) -> str:
        return f"message {format_id(self.id)} on {self.channel}"


def check_message(message: Message) -> Message:
    """Return ``message`` if it keeps every rule of docs/guarantees.md (Messages), else raise UsageError."""
    check_channel(message.channel)
    check_name(message.sender, "sender")
    if len(message.id) != 16:
        raise UsageError("id: a message id is exactly 16 bytes")
    return check_options(message)


def check_options(message: Message) -> Message:
    """The part of `check_message` that differs from one message of a route to the next."""
    check_priority(message.priority)
    if message.rank is not None and priority_of_rank(check_rank(message.rank)) != message.priority:
        raise UsageError(
            f"priority {message.priority}: rank {message.rank} stands among those of priority "
            f"{priority_of_rank(message.rank)}; give the rank alone"
        )
    content_type = message.content_type
    if not isinstance(content_type, str) or not _CONTENT_TYPE.fullmatch(content_type):
        raise UsageError(
            f"content_type: a media type is 1 to {MAX_CONTENT_TYPE} printable ASCII characters, like application/json"
        )
    size = 0
    for name, value in message.headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise UsageError(f"header {shorten(name)}: names and values of headers are texts")
        size += len(to_utf8(name, "a header's name")) + len(to_utf8(value, f"header {shorten(name)}"))
    if size > MAX_HEADERS:
        raise TooBig(f"headers of {size} bytes: the limit is {MAX_HEADERS} together; put large data into the body")
    if message.key is not None:
        if not isinstance(message.key, str) or not 1 <= len(message.key) <= MAX_KEY:
            raise UsageError(f"key: an ordering key is a text of 1 to {MAX_KEY} characters")
        to_utf8(message.key, "key")
    for what, duration in (("delay", message.delay), ("expires_in", message.expires_in)):
        if duration is not None and not 0 <= duration < MAX_SECONDS:
            raise UsageError(f"{what}: {duration!r} is not a duration (seconds from 0 up)")
    if not math.isfinite(message.created_at):
        raise UsageError(f"created_at: {message.created_at!r} is no time")
    return message


def by_proven_sender(message: Message, sender: str) -> Message:
    """The message as its receiver shows it: by the peer that proved to have sent it, whatever its envelope claims."""
    return message if message.sender == sender else msgspec.structs.replace(message, sender=sender)


class State(enum.StrEnum):
    """Every state a delivery (sender's side) or a job (receiver's side) can be in; see states.py."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    HELD = "held"
    PROCESSED = "processed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    DEAD = "dead"
    PARTIAL = "partial"
    READY = "ready"
    BLOCKED = "blocked"
    DELAYED = "delayed"
    LEASED = "leased"
    DONE = "done"
    BURIED = "buried"


@attrs.frozen
class Outcome:
    """What a receiver says about one message that asked for a receipt: one row of its outcome log."""

    number: int
    id: MessageId
    state: State
    """PROCESSED, FAILED or EXPIRED."""
    reason: str = ""
    result: bytes | None = None
    """At most 64 KiB, as encoded by ``content_type``."""
    content_type: str = ""

    @property
    def size(self) -> int:
        """Bytes that it takes in a page, at most."""
        return 64 + 4 * len(self.reason) + len(self.result or b"") + len(self.content_type)


def first_page(rows: Iterable[Outcome], limit: int = MAX_RECEIPTS, max_bytes: int = RECEIPTS_BYTES) -> list[Outcome]:
    """The first of the rows, up to both limits; one at least, if there is any."""
    page: list[Outcome] = []
    for row in rows:
        max_bytes -= row.size
        if page and (max_bytes < 0 or len(page) >= limit):
            break
        page.append(row)
    return page
