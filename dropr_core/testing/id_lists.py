"""Messages named for a person: some of many, and those that were answered with no.

Owns `named` and `answered_no`. How two lists differ says `likeness.strayed`. Must not know who made the lists.
"""

from collections.abc import Hashable, Iterable, Sequence

MOST = 5
"""So many of each sort are named; the others are counted."""


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


__all__ = ["answered_no", "named"]
