"""How long to rest after a failure. Pure: attempt in, seconds out; knows no clock."""

import math
import random

import attrs

FIRST_CONTACT = 5.0
"""Seconds of the longest rest from a peer that has never answered: somebody may just be setting it up."""


@attrs.frozen
class Backoff:
    """Exponential backoff with full jitter.

    The rule is "full jitter" of Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture
    Blog, 2015): a random share of a ceiling that doubles. Ours never goes below a tenth of the
    ceiling, so that an unlucky draw is no hot loop.
    """

    first: float = 1.0
    cap: float = 60.0

    def ceiling(self, attempt: int) -> float:
        """Longest rest in seconds after ``attempt`` failures in a row (1 = the first)."""
        return float(min(self.cap, self.first * 2.0 ** min(max(attempt, 1) - 1, 60)))

    def delay(self, attempt: int, rng: random.Random, lasted: float = math.inf) -> float:
        """Seconds to rest after ``attempt`` failures in a row, which have gone on for ``lasted`` seconds: no rest is
        longer than that, but for the first. Several requests that fail at once, or one unlucky draw, would else
        put a rest of many seconds behind a cut of one or two.
        """
        return min(self.ceiling(attempt), max(self.ceiling(1), lasted)) * rng.uniform(0.1, 1.0)

    def before_contact(self) -> "Backoff":
        """The same for a peer that has never answered: it is tried again soon, however often it failed."""
        return attrs.evolve(self, cap=min(self.cap, max(self.first, FIRST_CONTACT)))

    def fixed(self, attempt: int) -> float:
        """The same without jitter, where nothing else shares the resource."""
        return self.ceiling(attempt)
