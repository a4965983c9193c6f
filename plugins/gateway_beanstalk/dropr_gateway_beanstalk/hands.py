"""The jobs that one connection has reserved, and until when.

Owns which of them is still ours, and whose time ends first. The desk ends a lease when its time is over; this is how
the dialect knows beforehand. Must not know commands or connections.
"""

import heapq
from collections.abc import Callable, Mapping

from dropr_core.contracts.gateway import Held

TTR_HEADER = "x-beanstalk-ttr"
"""Carries the time to run of a job with it, to another node too."""


def ttr_in(headers: Mapping[str, str], default: int) -> int:
    """The time to run that a message brings, else the default."""
    text = headers.get(TTR_HEADER, "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) <= 10 else default


class Hands:
    """By number; each with its time to run in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._jobs: dict[int, tuple[Held, int]] = {}
        self._ends: list[tuple[float, int]] = []  # with some that are over, or were touched since

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def take(self, held: Held, ttr: int) -> None:
        """It was reserved just now; its time begins."""
        self._jobs[held.number] = held, ttr
        self._begin(held, ttr)

    def _begin(self, held: Held, ttr: int) -> bool:
        touched = held.touch(float(ttr))
        if held.deadline is not None:
            heapq.heappush(self._ends, (held.deadline, held.number))
        return touched

    def get(self, number: int) -> Held | None:
        """The job, if it is still ours."""
        held, _ = self._jobs.get(number, (None, 0))
        return held if held is not None and self._lasts(held) else None

    def _lasts(self, held: Held) -> bool:
        return not held.settled and (held.deadline is None or held.deadline > self._clock())

    def drop(self, number: int) -> None:
        """It is being settled."""
        self._jobs.pop(number, None)

    def touch(self, number: int) -> bool:
        """Begin its time anew; False if it is not ours any more."""
        held, ttr = self._jobs.get(number, (None, 0))
        return held is not None and self._lasts(held) and self._begin(held, ttr)

    def soonest(self) -> float | None:
        """When the first of those times ends, on the clock; None if nothing is in hand."""
        while self._ends:
            end, number = self._ends[0]
            held, _ = self._jobs.get(number, (None, 0))
            if held is not None and held.deadline == end and self._lasts(held):
                return end
            heapq.heappop(self._ends)
        return None

    def expire(self) -> list[int]:
        """Let go of those whose time is over; their numbers."""
        over = [number for number, (held, _) in self._jobs.items() if not self._lasts(held)]
        for number in over:
            del self._jobs[number]
        return over
