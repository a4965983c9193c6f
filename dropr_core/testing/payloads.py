"""Bodies for tests: no two alike, none with a period, with what transports stumble over in them.

Owns what a body of a given number and size is, and how two differ, in words. Must not know who carries it.
"""

import random

RUNS = (b"\r\n" * 40, bytes(90), b"\xff" * 90, b"\n.\r\n--", b"%00%ff")
"""What transports stumble over, for one reason or another."""


def payload(number: int, size: int) -> bytes:
    """A body of at least ``size`` bytes that no other message has, without a period.

    Pieces that were swapped, cut or translated on the way change its digest.
    """
    dice = random.Random(number)  # noqa: S311 - the same every time
    parts = [b"%d " % number]
    left = size - len(parts[0])
    while left > 0:
        part = dice.choice(RUNS) if dice.random() < 0.2 else dice.randbytes(min(left, dice.choice((7, 900, 70_000))))
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def difference(got: bytes, wanted: bytes) -> str:
    """Where two bodies differ, in words; empty if they are the same."""
    if got == wanted:
        return ""
    at = next((at for at, (one, other) in enumerate(zip(got, wanted, strict=False)) if one != other), None)
    if at is None:
        at = min(len(got), len(wanted))
    seen, should = got[at : at + 8], wanted[at : at + 8]
    return f"{len(got)} bytes instead of {len(wanted)}; byte {at} is the first that differs: {seen!r} for {should!r}"
