"""What the verbs of sending may be told about a message.

Owns the names and types of the options, once for all surfaces, and how durations are read. What they mean is in
composer.py.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TypeAlias, TypedDict

from dropr_core.config.units import LONGEST, parse_duration
from dropr_core.errors import UsageError
from dropr_core.model.limits import shorten
from dropr_core.system.loading import unforked

Duration: TypeAlias = float | int | str | timedelta
"""Seconds, a text such as ``"1h30m"``, or a timedelta."""

MessageRef: TypeAlias = str | bytes | uuid.UUID
"""The id of a message, in any of its forms."""


class PutOptions(TypedDict, total=False):
    """About a message for this node's own consumers. None means the same as not given: as the channel says."""

    priority: int | None
    """0 (first) to 9 (last)."""
    rank: int | None
    """The order within a priority, 0 (first) to 2^32 - 1; the priority follows from it (`names.priority_of_rank`)."""
    delay: Duration | None
    """Before that long no consumer gets it."""
    at: datetime | None
    """Instead of ``delay``: before that moment no consumer gets it; a past one is now. With a time zone."""
    expires_in: Duration | None
    """After that long nobody gets it any more; more than ``delay``."""
    headers: Mapping[str, str] | None
    key: str | None
    """An ordering key: messages with the same one are processed one after the other."""


class SendOptions(PutOptions, total=False):
    """About a message for peers. None means the same as not given: as the channel says."""

    to: str | Iterable[str] | None
    """A peer, a group, or a list of them."""
    channel: str | None
    id: MessageRef | None
    """The message's id; sending it again with the same content is no second message."""
    dedup_key: str | None
    """Instead of an id: a text from which it is made."""
    receipt: bool | None
    """Whether the receiver reports what became of it."""
    content_type: str | None
    """Of the body, instead of the serializer's."""


_TYPES: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("headers", Mapping, "a mapping of texts to texts"),
    ("receipt", bool, "True or False"),
    ("dedup_key", str, "a text"),
    ("content_type", str, "a text such as application/json"),
    (
        "at",
        datetime,
        "a datetime with a time zone, such as datetime(2026, 12, 24, 18, tzinfo=ZoneInfo('Europe/Berlin'))",
    ),
)


def check_options(options: Mapping[str, object], known: frozenset[str], verb: str) -> None:
    """Raise TypeError for an option that does not exist, as Python does for a wrong argument, and UsageError for a
    value that is of no use whatever the message.
    """
    for name in options:
        if name not in known:
            with unforked:
                from difflib import get_close_matches  # only for a mistake

            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(sorted(known))})"
            raise TypeError(f"{verb}() has no option {name!r}{hint}")
    for name, kind, words in _TYPES:
        value = options.get(name)
        if value is not None and not isinstance(value, kind):
            raise UsageError(f"{name}: {shorten(value)} is not {words}")


def names_of(to: object) -> str | tuple[str, ...] | None:
    """``to`` as it can be looked up: one name, or a tuple of them. Raises UsageError."""
    if to is None or isinstance(to, str):
        return to
    names = tuple(to) if isinstance(to, Iterable) and not isinstance(to, bytes | Mapping) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"to: {shorten(to)} is neither a peer or group nor a list of them")
    return names


def as_seconds(value: Duration | None, what: str = "duration") -> float | None:
    """A duration as seconds, None as None. Raises UsageError, which begins with ``what``."""
    return None if value is None else seconds(value, what)


def delay_of(options: PutOptions, wall: float) -> float | None:
    """Seconds that a message has to wait, from ``delay`` or ``at``; None: nothing was said. ``wall``: the time now, in
    seconds since the epoch. Raises UsageError.
    """
    moment = options.get("at")
    if moment is None:
        return as_seconds(options.get("delay"), "delay")
    if options.get("delay") is not None:
        raise UsageError("give delay= or at=, not both")
    return min(max(0.0, epoch_seconds(moment) - wall), LONGEST)


def epoch_seconds(moment: datetime, what: str = "at") -> float:
    """A moment as seconds since the epoch. Raises UsageError for one without a time zone, and for one of no year that
    a clock can show.
    """
    if moment.utcoffset() is None:
        raise UsageError(
            f"{what}: {moment.isoformat()} has no time zone, so nobody knows which moment that is; for that of this "
            f"machine write .astimezone() behind it, for another one .replace(tzinfo=ZoneInfo('Europe/Berlin'))"
        )
    try:
        return moment.timestamp()
    except (OverflowError, ValueError):
        raise UsageError(f"{what}: {moment.isoformat()} is beyond what clocks can show") from None


def seconds(value: Duration, what: str = "duration") -> float:
    """A duration as seconds. Raises UsageError, which begins with ``what``."""
    try:
        return parse_duration(value, strict=False)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from None
