"""What a rate allows, by a clock that the test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.errors import UsageError
from dropr_core.model.rates import SECOND, UNITS, Rate, allowed, charge, next_moment, parse_rate

STEPS = st.lists(st.tuples(st.integers(0, 10 * SECOND), st.integers(1, 50)), min_size=1, max_size=60)
RATES = st.builds(Rate, st.integers(1, 1000), st.sampled_from(list(UNITS)))


@given(rate=RATES, burst=st.integers(1, 40), steps=STEPS)
def test_no_window_holds_more_than_the_burst_and_its_share(rate, burst, steps):
    """Whatever is asked for when: between any two moments at most burst + rate * time messages are given."""
    interval, paid, now = rate.interval, 0, 0
    given_at: list[tuple[int, int]] = []
    for rest, wanted in steps:
        now += rest
        count = min(wanted, allowed(paid, now, interval, burst))
        if count:
            paid = charge(paid, now, interval, count)
            given_at.append((now, count))
    for first, (start, _) in enumerate(given_at):
        total = 0
        for end, count in given_at[first:]:
            total += count
            assert (total - burst) * UNITS[rate.unit] * SECOND <= (end - start) * rate.count


@given(rate=RATES, burst=st.integers(1, 40))
def test_at_the_next_moment_there_is_one_and_not_before(rate, burst):
    """Who has used up the burst gets exactly one at the moment that is named, and nothing a nanosecond earlier."""
    interval, now = rate.interval, 5 * SECOND
    assert allowed(0, now, interval, burst) == burst
    paid = charge(0, now, interval, burst)
    moment = next_moment(paid, interval, burst)
    assert allowed(paid, moment - 1, interval, burst) == 0
    assert allowed(paid, moment, interval, burst) == 1


def test_after_a_rest_the_burst_is_there_again_and_no_more():
    """Time without messages is not saved up beyond the burst."""
    paid = charge(0, 0, SECOND, 3)
    assert [allowed(paid, seconds * SECOND, SECOND, 3) for seconds in (0, 1, 2, 3, 1000)] == [0, 1, 2, 3, 3]


@pytest.mark.parametrize("text", ["10/s", "100/m", "5000/h", "1/d"])
def test_a_rate_is_read_as_it_is_written(text):
    """What is read says itself the same way."""
    assert str(parse_rate(text)) == text


@pytest.mark.parametrize(
    "text", ["", "10", "10/", "0/s", "-1/s", "1.5/s", "10/w", "s/10", "1000001/s", "9" * 30 + "/s"]
)
def test_nonsense_is_no_rate(text):
    """Other things are refused, with examples of what to write or what the bounds are."""
    with pytest.raises(UsageError, match=r"10/s|1 to 1000000"):
        parse_rate(text)
