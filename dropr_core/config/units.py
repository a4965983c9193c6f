"""Durations and sizes as people write them: ``1h30m``, ``250ms``, ``64KiB``.

Owns the units, both ways. Floor 1: must not know configuration, files or messages.
Inside dropr a duration is seconds (float) and a size is bytes (int).
"""

import datetime as dt
import math
import re

from dropr_core.errors import UsageError

LONGEST = 100 * 365 * 86400.0
"""No duration is longer than 100 years: beyond that lies a slip of the keyboard."""

BIGGEST = 2**63 - 1

_MICROSECONDS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1000,
    "us": 1,
}
_BYTES = {"b": 1} | {
    f"{letter}{tail}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for tail, base in (("b", 1000), ("ib", 1024))
}
_DECIMALS = 30
_SCALE = int("1" + "0" * _DECIMALS)
_NUMBER = rf"[0-9]{{1,19}}(?:\.[0-9]{{1,{_DECIMALS}}})?"
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|us|[wdhms])")
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]+)")

DURATION_PATTERN = rf"^(?:0|(?:{_NUMBER}(?:ms|us|[wdhms]))+)$"
SIZE_PATTERN = rf"^(?:0|{_NUMBER} ?(?:[bB]|[kKmMgGtTpP][iI]?[bB]))$"


def parse_duration(value: object, *, strict: bool = False) -> float:
    """Seconds from ``'1h30m'``, ``'250ms'``, a timedelta or, unless ``strict``, a number of seconds.

    Raises UsageError for everything else, for less than 0 and for more than 100 years.
    """
    if isinstance(value, dt.timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if strict and value != 0:
            raise UsageError(f"{_short(value)} has no unit; write '{_short(value)}s' for seconds (or ms, m, h, d, w)")
        seconds = float(min(value, LONGEST * 2))
    elif isinstance(value, str):
        seconds = _duration_text(value)
    else:
        raise UsageError(f"{_short(value)} is no duration; write something like '30s', '1h30m' or '5d'")
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST:
        raise UsageError(f"{_short(value)} is no usable duration; use 0 to 100 years")
    return seconds


def parse_size(value: object, *, strict: bool = False) -> int:
    """Bytes from ``'64KiB'`` (1024), ``'4MB'`` (1000 * 1000) or, unless ``strict``, a whole number of bytes.

    A fraction of a byte is dropped. Raises UsageError for everything else and for less than 0.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if strict and value != 0:
            raise UsageError(f"{_short(value)} has no unit; write '{_short(value)}B' for bytes (or KiB, MiB, GiB, MB)")
        size = value
    elif isinstance(value, str) and value == "0":
        size = 0
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)) and match[2].lower() in _BYTES:
        size = _scaled(match[1]) * _BYTES[match[2].lower()] // _SCALE
    else:
        raise UsageError(f"{_short(value)} is no size; write something like '64KiB', '4MB' or '1GiB'")
    if not 0 <= size <= BIGGEST:
        raise UsageError(f"{_short(value)} is no usable size; use 0 to 8 EiB")
    return size


def format_duration(seconds: float) -> str:
    """The text that `parse_duration` reads back as exactly this."""
    if seconds == int(seconds):
        left, text = int(seconds), ""
        for unit in ("d", "h", "m", "s"):
            count, left = divmod(left, _MICROSECONDS[unit] // 1_000_000)
            text += f"{count}{unit}" if count else ""
        return text or "0"
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 == seconds:
        return f"{milliseconds}ms"
    return f"{seconds:.30f}".rstrip("0").rstrip(".") + "s"


def format_size(size: int) -> str:
    """The text that `parse_size` reads back as exactly this."""
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit.lower()] == 0:
            return f"{size // _BYTES[unit.lower()]}{unit}"
    return f"{size}B" if size else "0"


def _duration_text(text: str) -> float:
    if text == "0":
        return 0.0
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        if re.fullmatch(_NUMBER, text):
            raise UsageError(f"{_short(text)} has no unit; write '{text}s' for seconds (or ms, m, h, d, w)")
        raise UsageError(f"{_short(text)} is no duration; write something like '30s', '1h30m' or '5d'")
    # Whole numbers until the last step, which rounds once: 0.1s + 0.2s is 0.3 s, as if fractions were counted.
    return sum(_scaled(number) * _MICROSECONDS[unit] for number, unit in parts) / (_SCALE * 1_000_000)


def _scaled(number: str) -> int:
    """A decimal number, as `_NUMBER` allows it, times `_SCALE`."""
    whole, _, part = number.partition(".")
    return int(whole + part.ljust(_DECIMALS, "0"))


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of more than 4300 digits
        text = "the number"
    return text if len(text) <= 40 else text[:37] + "..."
