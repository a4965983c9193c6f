"""From a row of the table of messages to what the store takes.

Owns what the columns mean, whoever wrote them: a dropr program, which has composed the message already, or any other
language. Must not know how rows are taken out.
"""

import json
from typing import Any

from dropr_core.api.message_template import Composed
from dropr_core.api.send_options import SendOptions
from dropr_core.api.send_rules import aged
from dropr_core.api.sender import Sender
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import DroprError, StoreError, UsageError
from dropr_core.model import envelope
from dropr_core.model.limits import shorten
from dropr_core.outboxes.waiting import Pair
from dropr_core.transactions.outbox_layout import VERSION
from dropr_core.transactions.outbox_table import Row, Seen, unpack

LARGEST = 64 * 1024 * 1024
"""Bytes of a row at most: more would be in memory at once. Larger bodies are sent by a program, as files."""


def read_row(sender: Sender, row: Row) -> Composed:
    """The message of a row; its body is written, if it is large. Raises UsageError for a row that cannot be sent as it
    stands, StoreError if the store has to be waited for.
    """
    if row.format > VERSION:
        raise UsageError(f"the row has format {row.format}, this dropr knows {VERSION}: upgrade it, then redrive")
    try:
        if row.prepared is not None:
            return Composed(_aged(_sound(unpack(row.prepared)), row.age))
        return _composed(sender, row)
    except (StoreError, UsageError):
        raise
    except (DroprError, ValueError, TypeError) as error:  # a body that its channel's type does not take …
        raise UsageError(str(error)) from error


def pairs_of(sender: Sender, row: Seen) -> tuple[Pair, ...] | None:
    """Where a row goes, by its columns alone; None: nobody knows until it is read."""
    try:
        to = _names(row.recipients) if row.recipients else None
        if not row.prepared:
            to = sender.peers_of(to, row.channel)
    except (DroprError, ValueError, TypeError):
        return None
    peers = (to,) if isinstance(to, str) else to or ()
    return tuple((peer, row.channel) for peer in peers) or None


def _names(recipients: str) -> str | tuple[str, ...]:
    names = tuple(name.strip() for name in recipients.split(","))
    return names[0] if len(names) == 1 else names


def _sound(message: NewMessage) -> NewMessage:
    envelope.check(message.envelope)
    return message


def _aged(message: NewMessage, age: float) -> NewMessage:
    """What waited in the table counts, by the clock of the database."""
    if not message.delayed and message.expires_in is None:
        return message
    facts, inline = envelope.decode(message.envelope)
    rest = aged(facts, max(0.0, age))
    content = envelope.reference_of(message.envelope) or inline
    data = envelope.encode(rest, content)
    return message._replace(envelope=data, expires_in=rest.expires_in, delayed=bool(rest.delay))


def _composed(sender: Sender, row: Row) -> Composed:
    options: dict[str, Any] = {
        "channel": row.channel, "priority": row.priority, "rank": row.rank, "delay": row.delay,
        "expires_in": row.expires_in, "key": row.ordering_key, "dedup_key": row.dedup_key or None,
        "receipt": None if row.receipt is None else bool(row.receipt), "headers": _headers(row.headers),
    }  # fmt: skip
    if row.recipients:
        options["to"] = _names(row.recipients)
    if row.dedup_key is None or row.dedup_key == "":
        options["id"] = row.id
    given: SendOptions = {word: value for word, value in options.items() if value is not None}  # type: ignore[assignment]
    return sender.compose_row(row.body, row.content_type, given, max(0.0, row.age))  # known by its id or key


def _headers(text: str | None) -> dict[str, str] | None:
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        raise UsageError(f"headers: {shorten(text)} is no JSON") from None
    if not isinstance(found, dict):
        raise UsageError(f"headers: {shorten(text)} is no JSON object of texts")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


__all__ = ["LARGEST", "pairs_of", "read_row"]
