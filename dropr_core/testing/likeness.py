"""Whether two values are the same to the last bit and type, and where they differ, in words.

Owns `unlike`, and the values that formats lose something of; `strayed`, for rows. Must not know any format or storage.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from dropr_core.testing.id_lists import named

FLOATS = (0.1, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, 123456789.123456789, 2.0**53 + 2, 1.0, 1e-7)
"""Every digit of these counts; a format of four bytes, or of six digits, changes some."""
INTS = (0, -1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63))
"""Beyond what a float holds."""
TEXTS = ("\0", "a\r\nb", "e\u0301", "\ufeffx", "\u2028", "\U0001f4ee", "\ud800", "\udcff")
"""Ends, line ends, marks, and halves of a pair that have no UTF-8."""


def unlike(got: Any, wanted: Any, where: str = "it") -> str:
    """The first difference of value or type, in words; empty if there is none."""
    if type(got) is not type(wanted):
        return f"{where} came back as {type(got).__name__}, it was a {type(wanted).__name__}"
    if isinstance(wanted, float):
        same = got == wanted and math.copysign(1, got) == math.copysign(1, wanted)
        same = same or (math.isnan(got) and math.isnan(wanted))
        return "" if same else f"{where} came back as {got!r}, it was {wanted!r}"
    if isinstance(wanted, dict):
        return _unlike_mapping(got, wanted, where)
    if isinstance(wanted, list | tuple):
        if len(got) != len(wanted):
            return f"{where} has {len(got)} items, it had {len(wanted)}"
        found = (unlike(*pair, f"{where}[{at}]") for at, pair in enumerate(zip(got, wanted, strict=True)))
        return next((words for words in found if words), "")
    return "" if got == wanted else f"{where} came back as {got!r:.100}, it was {wanted!r:.100}"


def _unlike_mapping(got: dict[Any, Any], wanted: dict[Any, Any], where: str) -> str:
    marked = {(type(key), key) for key in wanted}
    there = {(type(key), key) for key in got}
    if marked != there:
        missing = sorted(repr(key) for _, key in marked - there)
        extra = sorted(repr(key) for _, key in there - marked)
        return f"{where} misses the keys {', '.join(missing) or 'none'} and has {', '.join(extra) or 'none'} instead"
    found = (unlike(got[key], value, f"{where}[{key!r}]") for key, value in wanted.items())
    return next((words for words in found if words), "")


def strayed(got: Sequence[Hashable], wanted: Sequence[Hashable]) -> str:
    """Which rows are missing, extra or given twice, and the first that stands elsewhere, in words; empty if none."""
    if got == wanted or list(got) == list(wanted):
        return ""
    there, should = Counter(got), Counter(wanted)
    words = [f"{len(got)} rows instead of {len(wanted)}"]
    twice = [one for one, times in there.items() if times > should[one] > 0]
    for what, ids in (("missing", should - there), ("extra", there - should - Counter(twice)), ("twice", twice)):
        if ids:
            words.append(f"{len(ids)} {what}: {named(ids)}")
    pairs = enumerate(zip(got, wanted, strict=False), 1)
    first = next((at for at, (one, other) in pairs if one != other), min(len(got), len(wanted)) + 1)
    return "; ".join([*words, f"row {first} is the first that is not as it should be"])


def kinds(values: Any) -> set[type]:
    """The types of everything within some values."""
    found, rest = set(), list(values)
    while rest:
        one = rest.pop()
        found.add(type(one))
        if isinstance(one, dict):
            rest.extend(one.values())
        elif isinstance(one, list | tuple):
            rest.extend(one)
    return found


__all__ = ["FLOATS", "INTS", "TEXTS", "kinds", "strayed", "unlike"]
