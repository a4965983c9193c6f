"""Whole numbers that mostly follow one another, as the ranges that they form.

Owns a set of numbers whose memory grows with its gaps and not with its members. Must not know what they number.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence


class Ranges:
    """A set of whole numbers."""

    __slots__ = ("_starts", "_stops")

    def __init__(self, packed: Sequence[int] = ()) -> None:
        """``packed``: first, count, first, count …"""
        self._starts: list[int] = []
        self._stops: list[int] = []
        for at in range(0, len(packed), 2):
            self.add(packed[at], packed[at + 1])

    def packed(self) -> list[int]:
        """The same as first, count, first, count …"""
        return [value for start, stop in zip(self._starts, self._stops, strict=True) for value in (start, stop - start)]

    def add(self, first: int, count: int = 1) -> None:
        """These numbers are in it."""
        if count <= 0:
            return
        stop = first + count
        low, high = bisect_left(self._stops, first), bisect_right(self._starts, stop)
        if low < high:
            first, stop = min(first, self._starts[low]), max(stop, self._stops[high - 1])
        self._starts[low:high] = [first]
        self._stops[low:high] = [stop]

    def update(self, numbers: Iterable[int]) -> None:
        """Each of these is in it."""
        for number in numbers:
            self.add(number)

    def discard(self, number: int) -> None:
        """It is not in it any more."""
        at = bisect_right(self._starts, number) - 1
        if at < 0 or number >= self._stops[at]:
            return
        start, stop = self._starts[at], self._stops[at]
        left = [(one, other) for one, other in ((start, number), (number + 1, stop)) if one < other]
        self._starts[at : at + 1] = [one for one, _ in left]
        self._stops[at : at + 1] = [other for _, other in left]

    def keep_above(self, number: int) -> None:
        """Nothing up to that number is in it any more."""
        at = bisect_right(self._stops, number + 1)
        if at:
            del self._starts[:at], self._stops[:at]
        if self._starts and self._starts[0] <= number:
            self._starts[0] = number + 1

    def keep_up_to(self, number: int) -> None:
        """Nothing beyond that number is in it any more."""
        at = bisect_right(self._starts, number)
        del self._starts[at:], self._stops[at:]
        if self._stops and self._stops[-1] > number + 1:
            self._stops[-1] = number + 1

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._stops[at]

    def __iter__(self) -> Iterator[int]:
        for start, stop in zip(self._starts, self._stops, strict=True):
            yield from range(start, stop)

    def __bool__(self) -> bool:
        return bool(self._starts)
