"""Several measurements of one thing: the middle one, and how far they lie apart.

Owns the words for that. Must not know what was measured.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import attrs


def _tuple(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


@attrs.frozen
class Samples:
    """Measurements of one thing in one unit, in the order in which they were taken."""

    values: tuple[float, ...] = attrs.field(converter=_tuple)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """The range of the middle half, as a share of the median: 0.1 is "five per cent more or less"."""
        if len(self.values) < 2 or not self.median:
            return 0.0
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (high - low) / abs(self.median)

    def percentile(self, share: float) -> float:
        """The value that ``share`` (0 to 1) of all are at or below."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def over(self, others: "Samples") -> "Samples":
        """Each divided by its neighbour of the same round: the disk's mood was the same for both."""
        return Samples([mine / other for mine, other in zip(self.values, others.values, strict=True)])


def rate_of(step: Callable[[], int], seconds: float) -> float:
    """How much ``step`` does a second, if it is called for at least ``seconds``; it says how much it did."""
    started, done = time.perf_counter(), 0
    while True:
        done += step()
        spent = time.perf_counter() - started
        if spent >= seconds:
            return done / spent


def in_turns(takers: Sequence[Callable[[], float]], rounds: int, warm_up: int = 1) -> list[Samples]:
    """Take each measurement ``rounds`` times, in turns, after ``warm_up`` rounds that do not count."""
    taken = [[taker() for taker in takers] for _ in range(warm_up + rounds)]
    return [Samples(column) for column in zip(*taken[warm_up:], strict=True)]


def say_number(value: float) -> str:
    """A number for people, with three digits that matter."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    for digits, least in ((0, 100.0), (1, 10.0), (2, 0.1)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return f"{value:.3f}" if value else "0"
