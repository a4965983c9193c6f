"""Rates such as ``10/s``, and how many messages one allows now: the generic cell rate algorithm (GCRA).

Owns the arithmetic, in whole nanoseconds so that no rounding adds up to a message too many. Pure: all that is kept of a
channel is one number, the moment at which it will have paid for what it gave (the *theoretical arrival time*), and its
keeper brings it along with the time.
"""

import re

import attrs

from dropr_core.errors import UsageError

SECOND = 1_000_000_000
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MOST = 1_000_000
"""Messages in one period at most: nobody means more, and a message costs a nanosecond at least."""

_RATE = re.compile(r"([0-9]{1,19})/([smhd])")


@attrs.frozen
class Rate:
    """So many messages in each period."""

    count: int
    unit: str
    """s, m, h or d."""

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"

    @property
    def interval(self) -> int:
        """Nanoseconds that one message costs, rounded up."""
        return -(-UNITS[self.unit] * SECOND // self.count)


def parse_rate(text: str) -> Rate:
    """A Rate from ``10/s``, ``100/m``, ``5000/h`` or ``20/d``. Raises UsageError."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text[:40]!r} is no rate; write a whole number for a second, minute, hour or day: "
                         "10/s, 100/m, 5000/h, 20/d")  # fmt: skip
    if not 1 <= (count := int(match[1])) <= MOST:
        raise UsageError(f"'{text}' is no usable rate; use 1 to {MOST} ('dropr pause' gives nothing at all)")
    return Rate(count, match[2])


def allowed(paid: int, now: int, interval: int, burst: int) -> int:
    """How many messages may be given now. ``paid`` and ``now``: nanoseconds of the same clock."""
    return max(0, now + burst * interval - max(paid, now)) // interval


def charge(paid: int, now: int, interval: int, count: int) -> int:
    """``paid`` after so many more were given."""
    return max(paid, now) + count * interval


def next_moment(paid: int, interval: int, burst: int) -> int:
    """When the next one may be given."""
    return paid - (burst - 1) * interval


__all__ = ["Rate", "allowed", "charge", "next_moment", "parse_rate"]
