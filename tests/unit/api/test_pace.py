"""How many messages a consumer holds."""

from hypothesis import given
from hypothesis import strategies as st

from dropr_core.api.pace import WORTH, Pace


def run(pace, seconds, claims, now=0.0):
    """Handle everything that may be held so many times, each message in so many seconds. What was held each time."""
    held = []
    for _ in range(claims):
        count = pace.ran_out(now)
        held.append(count)
        pace.claimed(count, now)
        now += count * seconds
    return held


def test_quick_work_grows_to_the_cap():
    """It begins with one, at most doubles each time, and ends at the cap."""
    assert run(Pace(100), 1e-6, 10) == [1, 2, 4, 8, 16, 32, 64, 100, 100, 100]


def test_long_work_is_never_hoarded():
    """A message that takes longer than what is worth holding stays alone; when work becomes long, so does the next."""
    pace = Pace(512)
    assert run(pace, 3600.0, 5) == [1] * 5
    quick = Pace(512)
    run(quick, 1e-6, 12)
    assert run(quick, 1.0, 3)[1:] == [1, 1]


def test_work_of_a_millisecond_is_held_by_the_ten():
    """What is held is worth about ten milliseconds, so that others and urgent ones wait no longer."""
    assert run(Pace(512), 0.00099, 8)[-1] == 10


def test_what_had_to_be_given_back_begins_anew():
    """After a stall one message at a time, whatever the pace was."""
    pace = Pace(512)
    run(pace, 1e-6, 12)
    pace.stalled()
    assert pace.ran_out(0.0) == 1


def test_a_cap_of_one_holds_nothing_ahead():
    """`prefetch: 1` is one at a time."""
    assert run(Pace(1), 1e-9, 5) == [1] * 5


@given(
    cap=st.integers(1, 512),
    steps=st.lists(st.tuples(st.floats(-1.0, 100.0, allow_nan=False), st.integers(0, 512)), max_size=50),
)
def test_whatever_the_clock_says(cap, steps):
    """At least one and at most the cap; never more than twice the last time, nor than is worth it at the last pace."""
    pace, now, before = Pace(cap), 0.0, 1
    for seconds, count in steps:
        pace.claimed(count, now)
        now += seconds
        target = pace.ran_out(now)
        assert 1 <= target <= min(cap, max(1, 2 * before))
        if count and seconds > 2 * WORTH * count:
            assert target == 1
        before = target
