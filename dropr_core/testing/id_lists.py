"""How two lists of messages differ, and which answers were no: in words, for asserts that compare many at once.

Owns those words. Must not know who made the lists.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

MOST = 5
"""So many of each sort are named; the others are counted."""


def compare(got: Sequence[Hashable], wanted: Sequence[Hashable]) -> str:
    """What is missing, extra, there twice or in the wrong place, in words; empty if the two are the same."""
    if list(got) == list(wanted):
        return ""
    missing, extra = Counter(wanted) - Counter(got), Counter(got) - Counter(wanted)
    parts = [f"{len(got)} instead of {len(wanted)}"]
    for word, found in (("missing", missing), ("extra", extra)):
        if found:
            parts.append(f"{sum(found.values())} {word}: {named(found.elements())}")
    if len(parts) == 1:
        at = next(at for at, (one, other) in enumerate(zip(got, wanted, strict=True)) if one != other)
        parts.append(f"the same in another order: number {at} is {_name(got[at])} and should be {_name(wanted[at])}")
    return "; ".join(parts)


def named(found: Iterable[Hashable]) -> str:
    """Some of them, for a person; ids in hexadecimal."""
    names = [_name(one) for one in found]
    more = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {more} more" if more > 0 else "")


def answered_no(answers: Sequence[bool], asked: Sequence[Hashable]) -> str:
    """Which of those asked about were answered with anything but True, in words; empty if none was."""
    wrong = [one for one, answer in zip(asked, answers, strict=False) if answer is not True]
    if len(answers) != len(asked):
        return f"{len(answers)} answers to {len(asked)} questions"
    return f"{len(wrong)} of {len(asked)} were answered with no: {named(wrong)}" if wrong else ""


def _name(one: Hashable) -> str:
    return one.hex() if isinstance(one, bytes) else repr(one)


__all__ = ["answered_no", "compare", "named"]
