"""Durations and sizes as people write them: ``1h30m``, ``250ms``, ``64KiB``.

Owns the units, both ways. Floor 1: must not know configuration, files or messages.
Inside dropr a duration is seconds (float) and a size is bytes (int).
"""

import datetime as dt
import math
import re
from fractions import Fraction

from dropr_core.errors import UsageError

LONGEST = 100 * 365 * 86400.0
"""No duration is longer than 100 years: beyond that lies a slip of the keyboard."""

BIGGEST = 2**63 - 1

_SECONDS = {
    "w": Fraction(604800),
    "d": Fraction(86400),
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
    "us": Fraction(1, 1000000),
}
_BYTES = {"b": 1} | {
    f"{letter}{tail}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for tail, base in (("b", 1000), ("ib", 1024))
}
_NUMBER = r"[0-9]{1,19}(?:\.[0-9]{1,30})?"
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
        size = int(Fraction(match[1]) * _BYTES[match[2].lower()])
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
            count, left = divmod(left, int(_SECONDS[unit]))
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
    return float(sum(Fraction(number) * _SECONDS[unit] for number, unit in parts))


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of more than 4300 digits
        text = "the number"
    return text if len(text) <= 40 else text[:37] + "..."
