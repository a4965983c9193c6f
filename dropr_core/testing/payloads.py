"""Bodies for tests: no two alike, none with a period, with what transports stumble over in them.

Owns what a body of a given number and size is. Must not know who carries it.
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
