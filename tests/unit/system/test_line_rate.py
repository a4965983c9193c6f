"""Lines of a log that others can cause: the first at once, then a number a minute."""

from dropr_core.system.clock import FakeClock
from dropr_core.system.line_rate import EVERY, KINDS, LineRate, besides


def test_the_first_of_a_kind_is_said_and_then_a_number_a_minute():
    """Each kind by itself; what was counted in silence is said with the next line, once."""
    clock = FakeClock()
    rate = LineRate(clock)
    assert rate.note("full", 3) == 2
    assert [rate.note("full") for _ in range(10)] == [None] * 10
    assert rate.note("other") == 0
    clock.advance(EVERY)
    assert rate.note("full", 2) == 11
    clock.advance(EVERY)
    assert rate.note("full") == 0
    assert (besides(0), besides(11)) == ("", " (and 11 more since the last line of this kind)")


def test_what_is_remembered_of_kinds_is_bounded():
    """The one that was told longest ago is forgotten; the others stay silent."""
    rate = LineRate(FakeClock())
    for kind in range(KINDS + 1):
        assert rate.note(kind) == 0
    assert rate.note(KINDS) is None
    assert rate.note(0) == 0
    assert len(rate._told) == KINDS
