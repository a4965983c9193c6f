"""How long to rest after failures: longer each time, never over the cap, never nothing."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dropr_core.model.backoff import FIRST_CONTACT, Backoff

SECONDS = st.floats(0.001, 1e6)


def test_the_ceiling_doubles_up_to_the_cap():
    """1, 2, 4 … seconds, and the cap from there on; an attempt below the first is the first."""
    assert [Backoff(1.0, 10.0).ceiling(attempt) for attempt in (0, 1, 2, 3, 4, 5, 6)] == [1, 1, 2, 4, 8, 10, 10]


@given(SECONDS, SECONDS, st.integers(1, 10**9), st.integers())
def test_every_rest_is_between_a_tenth_of_the_ceiling_and_the_ceiling(first, cap, attempt, seed):
    """However often it failed: no overflow, no hot loop."""
    backoff = Backoff(first, cap)
    ceiling = backoff.ceiling(attempt)
    assert 0 < ceiling <= cap
    assert ceiling / 10 <= backoff.delay(attempt, random.Random(seed)) <= ceiling
    assert backoff.fixed(attempt) == ceiling


@given(SECONDS, SECONDS, st.integers(1, 10**9), st.integers(), st.floats(0.0, 1e6))
def test_no_rest_is_longer_than_it_has_failed_so_far(first, cap, attempt, seed, lasted):
    """But for the first rest, which is there from the start; it is jittered all the same."""
    backoff = Backoff(first, cap)
    most = min(backoff.ceiling(attempt), max(backoff.ceiling(1), lasted))
    assert most / 10 <= backoff.delay(attempt, random.Random(seed), lasted) <= most


@given(SECONDS, SECONDS, st.integers(1, 100))
def test_before_the_first_contact_no_rest_is_long(first, cap, attempt):
    """Unless the configuration begins with a longer one."""
    backoff = Backoff(first, cap).before_contact()
    assert backoff.ceiling(attempt) <= max(FIRST_CONTACT, min(first, cap))
    assert backoff.ceiling(attempt) <= Backoff(first, cap).ceiling(attempt)
