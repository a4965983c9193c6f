"""Every word of the interface: parameters, headers and JSON bodies, as types.

Owns their names, types, limits and descriptions; requests are read with them and the OpenAPI document is made of them,
so the two cannot differ. Must not know operations, requests or the desk.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MOST_SECONDS = 315_360_000.0
"""Ten years: beyond that lies a slip of the keyboard."""
MAX_COUNT = 1000
"""Messages of one batch."""

_SEGMENT = r"(\.{0,2}[A-Za-z0-9_-][A-Za-z0-9._-]*|\.{3}[A-Za-z0-9._-]*)"

Channel = Annotated[
    str,
    Meta(
        pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$", max_length=200, examples=["orders"],
        description="A channel; a slash in it is written `%2F`.",
    ),
]  # fmt: skip
Identity = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        description="The id of a message, a UUID.",
    ),
]
Handle = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9._~-]+$", max_length=512, description="The handle of a lease, as it was received.")
]
Seconds = Annotated[float, Meta(ge=0, le=MOST_SECONDS)]
Rank = Annotated[
    int, Meta(ge=0, le=2**32 - 1, description="Priority, 0 first; kept exactly among what waits on this node.")
]
Priority = Annotated[
    int,
    Meta(
        ge=0, le=9, description="0 first, 9 last: a band of ranks, of which it gets the first. A rank beside it counts."
    ),
]
Key = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[!-~]+( [!-~]+)*$", description="Ordering key.")]
Dedup = Annotated[
    str,
    Meta(
        min_length=1, max_length=255, pattern=r"^[!-~]+( [!-~]+)*$",
        description="The same text in the same channel is the same message, stored once.",
    ),
]  # fmt: skip
ContentType = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[!-~]+( [!-~]+)*$")]
YesNo = Literal["true", "false"]
Reason = Annotated[str, Meta(max_length=1000, description="For people: it is kept with the message.")]


def header_name(name: str) -> str:
    """``expires_in`` as a header: ``dropr-expires-in``; headers are looked up in small letters."""
    return "idempotency-key" if name == "idempotency_key" else "dropr-" + name.replace("_", "-")


# ── sending ──────────────────────────────────────────────────────────────────────────────────────


class SendHeaders(Struct, forbid_unknown_fields=True, rename=header_name):
    """How a message is sent."""

    priority: Priority | UnsetType = UNSET
    rank: Rank | UnsetType = UNSET
    delay: Annotated[Seconds, Meta(description="Seconds before which no consumer gets it.")] | UnsetType = UNSET
    expires_in: (
        Annotated[float, Meta(gt=0, le=MOST_SECONDS, description="Seconds after which nobody gets it any more.")]
        | UnsetType
    ) = UNSET
    key: Key | UnsetType = UNSET
    receipt: Annotated[YesNo, Meta(description="Whether its receipt will be asked for.")] | UnsetType = UNSET
    headers: (
        Annotated[
            str,
            Meta(
                description="The message's own headers: a JSON object of texts.",
                extra_json_schema={
                    "contentMediaType": "application/json",
                    "contentSchema": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            ),
        ]
        | UnsetType
    ) = UNSET
    idempotency_key: Dedup | UnsetType = UNSET


class Item(Struct, forbid_unknown_fields=True):
    """One message of a batch. Its body is one of `text`, `base64` and `json`; none: it is empty."""

    text: str | UnsetType = UNSET
    base64: bytes | UnsetType = UNSET
    json: Annotated[msgspec.Raw, Meta(description="Sent as JSON, byte for byte as it stands here.")] | UnsetType = UNSET
    content_type: ContentType | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    rank: Rank | UnsetType = UNSET
    delay: Seconds | UnsetType = UNSET
    expires_in: Annotated[float, Meta(gt=0, le=MOST_SECONDS)] | UnsetType = UNSET
    key: Key | UnsetType = UNSET
    receipt: bool = False
    headers: dict[str, str] | UnsetType = UNSET
    idempotency_key: Dedup | UnsetType = UNSET


Items = Annotated[list[Item], Meta(min_length=1, max_length=MAX_COUNT)]


class SentMessage(Struct):
    """A message that is on stable storage."""

    id: Identity
    duplicate: Annotated[bool, Meta(description="It was there already, by its idempotency key.")]
    local: Annotated[bool, Meta(description="In this node's inbox; else on its way to peers.")]


# ── receiving ────────────────────────────────────────────────────────────────────────────────────

Form = Annotated[
    Literal["raw", "json", "binary", "structured", "batch"],
    Meta(
        description="`raw`: one message, its body as it is. `json`: up to `limit`. As CloudEvents: `binary` and "
        "`structured` one, `batch` up to `limit`."
    ),
]
Limit = Annotated[
    int, Meta(ge=1, le=MAX_COUNT, description="Messages at most; only `json` and `batch` give more than one.")
]


class ReceiveQuery(Struct, forbid_unknown_fields=True, rename={"form": "as"}):
    """What is received and how long it is waited for."""

    form: Form = "raw"
    wait: Annotated[float, Meta(ge=0, le=3600, description="Seconds to wait for the first one.")] = 0.0
    hold: (
        Annotated[float, Meta(ge=1, le=MOST_SECONDS, description="Seconds until the lease ends by itself.")] | UnsetType
    ) = UNSET
    limit: Limit = 1


class StreamQuery(Struct, forbid_unknown_fields=True):
    """How messages are streamed."""

    window: Annotated[int, Meta(ge=1, le=MAX_COUNT, description="Messages in your hands at once.")] = 10


State = Literal["ready", "delayed", "buried"]


class PeekQuery(Struct, forbid_unknown_fields=True, rename={"form": "as"}):
    """What is looked at."""

    state: State = "ready"
    form: Literal["raw", "json", "binary", "structured"] = "raw"


class Message(Struct, omit_defaults=True):
    """A message. Its body is `text` where it is UTF-8, else `base64`; a large one is at `/leases/HANDLE/body`."""

    id: Identity
    channel: Channel
    content_type: str
    headers: dict[str, str]
    sender: str
    rank: int
    attempt: Annotated[int, Meta(ge=0)]
    age: Annotated[float, Meta(ge=0, description="Seconds since it entered the queue.")]
    size: Annotated[int, Meta(ge=0)]
    handle: Handle | UnsetType = UNSET
    hold: Annotated[float, Meta(description="Seconds that the lease still lasts.")] | UnsetType = UNSET
    state: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    base64: bytes | UnsetType = UNSET


class Messages(Struct):
    """What was received."""

    messages: list[Message]


# ── leases ───────────────────────────────────────────────────────────────────────────────────────


class Release(Struct, forbid_unknown_fields=True):
    """How a message goes back. Without `delay`: with the channel's backoff, buried after its last attempt."""

    delay: Seconds | UnsetType = UNSET
    counted: Annotated[bool, Meta(description="Whether the attempt counts.")] = True
    reason: Reason = ""


class Bury(Struct, forbid_unknown_fields=True):
    """Why a message can never work."""

    reason: Reason = ""


class Touch(Struct, forbid_unknown_fields=True):
    """How long the lease lasts from now on; without: as long as it had."""

    hold: Annotated[float, Meta(ge=1, le=MOST_SECONDS)] | UnsetType = UNSET


class Settle(Struct, forbid_unknown_fields=True):
    """One of many settlements in one commit."""

    handle: Handle
    action: Literal["ack", "release", "bury"] = "ack"
    delay: Seconds | UnsetType = UNSET
    reason: Reason = ""


Settles = Annotated[list[Settle], Meta(min_length=1, max_length=MAX_COUNT)]


class Settled(Struct):
    """Whether each lease was still held; where it was not, nothing was changed."""

    settled: list[bool]


# ── looking and managing ─────────────────────────────────────────────────────────────────────────


class StatusQuery(Struct, forbid_unknown_fields=True):
    """How long a message's end is waited for."""

    wait: Annotated[float, Meta(ge=0, le=3600)] = 0.0


class Status(Struct, omit_defaults=True):
    """What is known of a message. `ended` and the result: of one that was sent from here."""

    id: Identity
    state: str
    ended: bool
    channel: str | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    result_type: str | UnsetType = UNSET
    result_text: str | UnsetType = UNSET
    result_base64: bytes | UnsetType = UNSET


class Count(Struct, omit_defaults=True):
    """One channel."""

    channel: Channel
    ready: int
    delayed: int
    blocked: Annotated[int, Meta(description="Waiting for another one of their ordering key.")]
    leased: int
    buried: int
    outgoing: Annotated[int, Meta(description="In the outbox, on the way to peers.")]
    oldest: Annotated[float, Meta(description="Seconds that the first ready one has waited.")]
    paused: Annotated[bool, Meta(description="Whether consumers get nothing for now.")]


class Channels(Struct):
    """The channels that you may see."""

    channels: list[Count]


class Pause(Struct, forbid_unknown_fields=True):
    """For how long; without: until it is resumed."""

    seconds: Annotated[float, Meta(gt=0, le=MOST_SECONDS)] | UnsetType = UNSET


class Kick(Struct, forbid_unknown_fields=True):
    """How many at most."""

    bound: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000_000


class Number(Struct):
    """How many it were."""

    count: int


class Node(Struct):
    """Whom you are talking to."""

    node: str
    user: str
    openapi: str = "/openapi.json"


class Problem(Struct, omit_defaults=True):
    """What went wrong, and what to do about it (RFC 9457)."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    code: str = ""
