"""Headers of STOMP and JMS as words of dropr, and back.

Owns the tables of docs/gateways/stomp.md: destinations, priority, expiry, delay, what is kept and what the gateway
itself says. Does no I/O and reads no clock. Must not know connections.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from dropr_core.contracts.gateway import Parcel
from dropr_core.model.names import LOWEST_PRIORITY, first_rank, priority_of_rank
from dropr_gateway_stomp.frames import ProtocolError

PLAIN = "application/octet-stream"
"""The content type of a body about which nothing was said; STOMP says nothing then, too."""
TEMPORARY = "stomp.temp/"
"""Begins the channels of temporary queues."""

_OURS = ("priority", "expires", "persistent")
"""Headers that have a meaning here and are shown again as they were said; kept under the dialect's own names."""
_DROPPED = frozenset(
    {"destination", "receipt", "transaction", "content-length", "content-type", "message-id", "subscription", "ack",
     "redelivered", "JMSXDeliveryCount", "timestamp", "AMQ_SCHEDULED_DELAY", "AMQ_DUPL_ID", "_AMQ_DUPL_ID",
     *(f"x-stomp-{name}" for name in _OURS)}
)  # fmt: skip
"""Headers of SEND that end here: of the frame alone, used up, or for the gateway to say."""
_NOT_HERE = ("AMQ_SCHEDULED_CRON", "AMQ_SCHEDULED_PERIOD", "AMQ_SCHEDULED_REPEAT", "AMQ_SCHEDULER_ACTION")
_KNOWN_AS = {"correlation-id": "JMSCorrelationID", "type": "JMSType", "reply-to": "JMSReplyTo"}
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_GOOD_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


@attrs.frozen
class Destination:
    """Where messages go to, or come from."""

    kind: Literal["queue", "topic", "temp-queue"]
    name: str


def parse_destination(text: str) -> Destination:
    """Raises ProtocolError for what is none of ours."""
    for kind in ("queue", "topic", "temp-queue"):
        prefix = f"/{kind}/"
        if text.startswith(prefix) and len(text) > len(prefix):
            return Destination(kind, text[len(prefix) :])
    raise ProtocolError(
        f"the destination {text[:120]!r} is none of this gateway: write /queue/NAME, /topic/NAME or /temp-queue/NAME"
    )


def temporary_channel(node: str, connection: str, name: str) -> str:
    """The channel of a connection's temporary queue, whatever characters its name has. It begins with the node on which
    the connection is, so that answers find it from everywhere.
    """
    if not _GOOD_NAME.fullmatch(name) or name in {".", ".."}:
        name = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
    return f"{TEMPORARY}{node}/{connection}/{name}"


def home_of(channel: str) -> str | None:
    """The node of a temporary queue; None: it is none."""
    node = channel.removeprefix(TEMPORARY).partition("/")[0]
    return node if channel.startswith(TEMPORARY) and node else None


def _whole(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name)
    if not text:
        return None
    if not _WHOLE.fullmatch(text.strip()):
        raise ProtocolError(f"{name} must be a whole number, not {text[:40]!r}")
    return int(text)


def rank_of(headers: Mapping[str, str]) -> int | None:
    """JMS counts priorities from 0 to 9, the last of them first."""
    priority = _whole(headers, "priority")
    if priority is None:
        return None
    return first_rank(LOWEST_PRIORITY - min(LOWEST_PRIORITY, max(0, priority)))


def priority_from(rank: int) -> int:
    """The JMS priority of a message that another dialect put."""
    return LOWEST_PRIORITY - priority_of_rank(rank)


def to_parcel(channel: str, headers: Mapping[str, str], body: bytes, wall: float) -> Parcel:
    """What a SEND frame puts. ``wall``: seconds since the epoch. Raises ProtocolError for what cannot be kept."""
    for name in _NOT_HERE:
        if name in headers:
            raise ProtocolError(f"{name} is not supported here: only AMQ_SCHEDULED_DELAY is")
    delay, expires = _whole(headers, "AMQ_SCHEDULED_DELAY"), _whole(headers, "expires")
    delayed = max(0, delay) / 1000 if delay else None
    expires_in = None
    if expires:
        # One that is over already is stored, and then listed as expired: somebody may ask where it went.
        expires_in = max(0.001, expires / 1000 - wall)
        if delayed is not None and delayed >= expires_in:
            raise ProtocolError("it expires before its AMQ_SCHEDULED_DELAY is over: nobody would ever get it")
    return Parcel(
        channel=channel,
        body=body,
        rank=rank_of(headers),
        delay=delayed,
        expires_in=expires_in,
        headers=kept(headers),
        content_type=headers.get("content-type") or PLAIN,
        key=headers.get("JMSXGroupID") or None,
        dedup=headers.get("_AMQ_DUPL_ID") or None,
    )


def kept(headers: Mapping[str, str]) -> dict[str, str]:
    """What of a SEND frame's headers travels with the message."""
    own = {f"x-stomp-{name}": headers[name] for name in _OURS if name in headers}
    return own | {name: value for name, value in headers.items() if name not in _DROPPED and name not in _OURS}


def shown(headers: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """The same, for a MESSAGE frame."""
    for name, value in headers.items():
        if name.startswith("x-stomp-") and name[8:] in _OURS:
            yield name[8:], value
        elif name not in _DROPPED:
            yield name, value


def message_headers(
    destination: str, headers: Mapping[str, str], content_type: str, *, rank: int, attempt: int, arrived: float
) -> list[tuple[str, str]]:
    """All of a MESSAGE frame but what the session says itself. ``arrived``: seconds since the epoch."""
    made = [("destination", destination), ("timestamp", str(int(arrived * 1000)))]
    if content_type != PLAIN:
        made.append(("content-type", content_type))
    if attempt > 1:
        made.append(("redelivered", "true"))
    made.append(("JMSXDeliveryCount", str(attempt)))
    if "x-stomp-priority" not in headers:
        made.append(("priority", str(priority_from(rank))))
    made += shown(headers)
    return made


def selectable(headers: Mapping[str, str], *, message_id: str, rank: int, arrived: float) -> dict[str, str]:
    """The names that a selector may use. None of their values changes while the message lives (so not how often it was
    delivered): what is not wanted once is never looked at again.
    """
    found = {_KNOWN_AS.get(name, name): value for name, value in shown(headers)}
    found |= dict(shown(headers))
    return found | {
        "JMSMessageID": message_id,
        "JMSPriority": headers.get("x-stomp-priority") or str(priority_from(rank)),
        "JMSTimestamp": str(int(arrived * 1000)),
        "JMSDeliveryMode": "PERSISTENT",
    }
