"""Rules of `send` about single options, which the channel or other options have a part in.

Owns defaults of priorities, the headers that a file brings, times that do not fit together, and the fingerprint of a
message. Must not know routes, stores or envelopes.
"""

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from dropr_core.api.send_options import PutOptions, epoch_seconds
from dropr_core.errors import UsageError
from dropr_core.model.message import Message
from dropr_core.model.names import check_rank, priority_of_rank

SOON = 0.001
"""Seconds that are left of a life that is over: the message ends as expired, on record."""


def priority_of_options(options: PutOptions, default: int) -> int:
    """That which was said, or follows from the rank, or is the channel's."""
    priority, rank = options.get("priority"), options.get("rank")
    if priority is not None:
        return priority
    return default if rank is None else priority_of_rank(check_rank(rank))


def check_times(message: Message) -> None:
    """As the configuration says it for a channel: what nobody could ever get is not sent."""
    if message.expires_in is not None and (message.delay or 0.0) >= message.expires_in:
        raise UsageError(
            f"expires_in: {message.expires_in:g} s is not more than delay ({message.delay or 0:g} s): "
            "the message would expire before any consumer gets it"
        )


def fingerprint(message: Message, body: bytes, peers: tuple[str, ...], at: datetime | None = None) -> bytes:
    """Equal for the same content: everything that `send` was told but the moment it was told. ``at``: the moment for
    which the message waits, where that was said instead of a delay.
    """
    facts = msgspec.structs.replace(message, created_at=0.0)
    said: tuple[object, ...] = (facts, sorted(peers))
    if at is not None:  # the delay that follows from it is another one with each call
        said = (msgspec.structs.replace(facts, delay=None), sorted(peers), epoch_seconds(at))
    digest = hashlib.blake2b(msgspec.msgpack.encode(said), digest_size=16)
    digest.update(body)
    return digest.digest()


def aged(message: Message, age: float) -> Message:
    """A message as it is when it was sent ``age`` seconds ago: less of its delay and of its life are left."""
    if age <= 0 or (message.delay is None and message.expires_in is None):
        return message
    delay = None if message.delay is None else max(0.0, message.delay - age)
    left = None if message.expires_in is None else max(SOON, message.expires_in - age)
    return msgspec.structs.replace(message, delay=delay, expires_in=left)


def headers_of(headers: Mapping[str, str] | None, value: object) -> dict[str, str]:
    """The sender's headers; a file brings its name, which is worth more than the path it had here."""
    own = {"filename": os.fsencode(value.name).decode("utf-8", "backslashreplace")} if isinstance(value, Path) else {}
    return {**own, **(headers or {})}
