"""What is due when, over daylight saving and whatever happens to the clock. Nothing is stored here."""

import datetime as dt
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropr_core.errors import UsageError
from dropr_core.model.recurrence import Every, Once, latest, make_cron, make_every
from dropr_core.schedules.due import GRACE, MOST, RANGES, Fired, jitter, plan

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = 60_000


def due_times(expression, start, count):
    """The first due times in Berlin after a local time, as local times with their offset."""
    moment = int(dt.datetime.fromisoformat(start).replace(tzinfo=BERLIN).timestamp() * 1000)
    found = islice(make_cron(expression, "Europe/Berlin").after(moment), count)
    return [dt.datetime.fromtimestamp(due / 1000, BERLIN).isoformat(timespec="minutes") for due in found]


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        # The hour that comes twice: at a fixed time once, at its first coming; by intervals in both.
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 * * * *", "2026-10-25T01:45", ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"]),
        ("*/30 2 * * *", "2026-10-25T01:45", ["2026-10-25T02:00+02:00", "2026-10-25T02:30+02:00"]),
        # The hour that is missing: at once after it, and what falls together there is one; intervals leave it out.
        ("10,40 2 * * *", "2026-03-29T00:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:10+02:00"]),
        ("30 * * * *", "2026-03-29T01:00", ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]),
    ],
)
def test_daylight_saving_is_as_crons(expression, start, expected):
    """The hours of the change happen as Debian's cron has them, and as the guide says."""
    assert due_times(expression, start, len(expected)) == expected


def test_who_starts_within_the_second_coming_of_an_hour_gets_nothing_of_the_first():
    """A due time is never before the moment after which it was asked for."""
    start = dt.datetime(2026, 10, 25, 2, 15, tzinfo=BERLIN, fold=1)
    (due,) = islice(make_cron("0,30 2 * * *", "Europe/Berlin").after(int(start.timestamp() * 1000)), 1)
    assert dt.datetime.fromtimestamp(due / 1000, BERLIN).date() == dt.date(2026, 10, 26)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["*/7 * * * *", "13 2,3 * * *", "59 1-3 * * *", "0 0 * * 0"]), st.integers(0, 400 * 24 * 60))
def test_due_times_do_not_depend_on_where_one_begins_to_look(expression, minutes):
    """Two nodes, or one before and after a restart, know the same due times."""
    rule, begin = make_cron(expression, "Europe/Berlin"), 1_767_000_000_000
    start = begin + minutes * MINUTE
    early = [due for due in islice(rule.after(start - 5 * 60 * MINUTE), 60) if due > start]
    assert early[:5] == list(islice(rule.after(start), 5))[: len(early)]


@pytest.mark.parametrize(
    "text", ["", "* * * *", "61 * * * *", "0 0 30 2 *", "a b c d e", "* * * * * * *", "5-1 * * * *"]
)
def test_what_is_no_cron_expression_is_refused(text):
    """With the expression and what to write."""
    with pytest.raises(UsageError, match="cron"):
        make_cron(text)


@pytest.mark.parametrize("zone", ["Europe/Berln", "../etc/passwd", "", "/etc/passwd"])
def test_what_is_no_time_zone_is_refused(zone):
    """Also what would be a path."""
    with pytest.raises(UsageError, match="zone"):
        make_cron("* * * * *", zone)


def test_an_interval_is_due_at_the_same_moments_everywhere():
    """At multiples of it since the epoch; less than a second is refused."""
    assert list(islice(Every(5 * MINUTE).after(7 * MINUTE), 2)) == [10 * MINUTE, 15 * MINUTE]
    assert make_every(1.5).period == 1500
    for wrong in (0, 0.5, float("nan")):
        with pytest.raises(UsageError):
            make_every(wrong)


def test_a_clock_that_is_a_hundred_years_ahead_costs_no_more_than_one_that_is_right():
    """The last due times are found without counting those before; beyond the calendar there are none."""
    rule = make_cron("* * * * * *")
    found, more = latest(rule, 0, 4_900_000_000_000, MOST)
    assert (len(found), more, found[-1]) == (MOST, True, 4_900_000_000_000)
    assert list(islice(rule.after(10**16), 1)) == []
    assert latest(Once(5), 0, 10**15, 3) == ([5], False)


@pytest.mark.parametrize(("missed", "expected"), [("skip", [61]), ("one", [61]), ("all", [*range(51, 62)])])
def test_what_was_missed_is_left_out_made_up_for_once_or_as_often(missed, expected):
    """After ten minutes in which nobody was there; what is a minute late at most was not missed."""
    made = plan(Every(MINUTE), 50 * MINUTE, Fired(), 61 * MINUTE + 1, missed)
    assert [due // MINUTE for due in made.fire] == expected
    assert made.upto == 61 * MINUTE
    assert made.skipped == 11 - len(expected)
    assert made.next == 62 * MINUTE


def test_making_up_is_bounded():
    """Of a million due times that passed the last thousand happen."""
    made = plan(Every(1000), 0, Fired(), 10**9, "all")
    assert len(made.fire) == MOST
    assert made.fire[-1] == 10**9
    assert made.skipped >= 1


def test_jitter_is_later_and_never_another_time():
    """Each due time has its own, the same after a restart; it keeps its due time as its name."""
    later = jitter("a", "shop", 30_000)
    seen = {later(due * MINUTE) for due in range(50)}
    assert len(seen) > 10
    assert all(0 <= one < 30_000 for one in seen)
    first = next(due for due in range(1, 50) if later(due * MINUTE) > 0) * MINUTE
    before = plan(Every(MINUTE), first - 1, Fired(), first + later(first) - 1, "skip", later)
    assert (before.fire, before.next) == ([], first + later(first))
    assert plan(Every(MINUTE), first - 1, Fired(), before.next, "skip", later).fire == [first]


def test_what_has_happened_is_remembered_in_few_stretches():
    """A thousand in a row are one stretch; a gap begins another, which grows together when it is filled."""
    rule, fired = Every(1000), Fired()
    for due in [*range(1000, 500_000, 1000), *range(501_000, 600_000, 1000)]:
        fired = fired.add(rule, due)
    assert fired.ranges == ((1000, 499_000), (501_000, 599_000))
    assert fired.add(rule, 500_000).ranges == ((1000, 599_000),)
    for due in range(10**6, 10**7, 5000):
        fired = fired.add(rule, due)
    assert len(fired.ranges) == RANGES


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 5 * MINUTE)),
        st.tuples(st.just("step"), st.integers(-300 * MINUTE, 300 * MINUTE)),
        st.tuples(st.just("down"), st.integers(1, 90 * MINUTE)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS, st.sampled_from(["skip", "one", "all"]), st.sampled_from([0, 20_000]))
def test_whatever_the_clock_does_no_due_time_happens_twice(steps, missed, most):
    """Over steps of the clock back and forth, and times in which nobody was there."""
    rule, fired, done = Every(MINUTE), Fired(), list[int]()
    now, cursor = 10_000 * MINUTE, 10_000 * MINUTE
    for kind, much in steps:
        now += much
        if kind == "down":
            continue
        made = plan(rule, cursor, fired, now, missed, jitter("a", "b", most))
        assert all(due <= now for due in made.fire)
        assert made.next is None or made.next > now
        for due in made.fire:
            fired = fired.add(rule, due)
        done += made.fire
        if made.fire or made.skipped:
            cursor = made.upto
    assert len(done) == len(set(done))


@settings(deadline=None)
@given(STEPS)
def test_with_all_each_due_time_happens_once(steps):
    """Every due time between the first moment and the last happens, whatever the clock did between, if it was not set
    forward by more than can be made up for.
    """
    rule, fired, done = Every(MINUTE), Fired(), list[int]()
    begin = now = cursor = 10_000 * MINUTE
    latest_now = now
    for _, much in [*steps, ("pass", 1)]:
        now = max(begin, now + much)
        latest_now = max(latest_now, now)
        made = plan(rule, cursor, fired, now, "all")
        for due in made.fire:
            fired = fired.add(rule, due)
        done += made.fire
        if made.fire or made.skipped:
            cursor = made.upto
    assert sorted(done) == list(range(begin + MINUTE, latest_now + 1, MINUTE))


def test_grace_is_a_minute():
    """What the guide says."""
    assert GRACE == MINUTE
