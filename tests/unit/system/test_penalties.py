"""Penalised addresses: when they are, for how long, and what passes all the same."""

from dropr_core.system.penalties import ADDRESSES, BURST, GRACE, HALF_LIFE, MOST, PASSES, Penalties

HERE, THERE = "192.0.2.1", "192.0.2.2"


def refuse(all_, times, address=HERE, now=0.0):
    return [all_.refused(address, now) for _ in range(times)]


def test_an_address_is_penalised_after_so_many_refusals_and_told_once():
    """The others are not, and each change is told once, so that the log has one line."""
    them = Penalties()
    assert refuse(them, GRACE + 10) == [False] * (GRACE - 1) + [True] + [False] * 10
    assert them.penalised(HERE, 0.0)
    assert not them.penalised(THERE, 0.0)


def test_it_is_forgotten_the_later_the_more_there_were_but_within_a_minute():
    """Twice as many refusals last one half-life longer, up to a limit."""
    few, more, endless = Penalties(), Penalties(), Penalties()
    refuse(few, GRACE + 1)
    refuse(more, 2 * GRACE + 1)
    refuse(endless, 3 * MOST)
    assert few.penalised(HERE, 0.2)
    assert not few.penalised(HERE, 1.0)
    assert more.penalised(HERE, HALF_LIFE)
    assert not more.penalised(HERE, HALF_LIFE + 1)
    assert endless.penalised(HERE, 6 * HALF_LIFE - 1)
    assert not endless.penalised(HERE, 6 * HALF_LIFE + 1)


def test_a_caller_that_is_refused_now_and_then_is_never_penalised():
    """A node with a wrong key, or a probe of a load balancer each second, stays below."""
    them = Penalties()
    assert not any(them.refused(HERE, float(second)) for second in range(10_000))
    assert not them.penalised(HERE, 10_000.0)


def test_some_pass_unjudged():
    """So many a second and no more; those who were let in before do not count against later seconds."""
    them = Penalties()
    refuse(them, GRACE)
    assert [them.passes(HERE, 0.0) for _ in range(30)] == [True] * int(BURST) + [False] * (30 - int(BURST))
    assert [them.passes(HERE, 0.5) for _ in range(30)].count(True) == PASSES / 2
    assert [them.passes(HERE, 100.0) for _ in range(30)].count(True) == BURST
    assert all(them.passes(THERE, 0.0) for _ in range(30)), "of others nobody asks"


def test_the_table_is_bounded_and_keeps_who_is_refused():
    """Ever new addresses push out those that were not refused for longest, not the one that floods."""
    them = Penalties()
    refuse(them, GRACE)
    for number in range(3 * ADDRESSES):
        them.refused(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
        them.refused(HERE, 0.0)
    assert len(them) == ADDRESSES
    assert them.penalised(HERE, 0.0)


def test_what_is_forgotten_takes_no_place():
    """An address that comes back after long is as any other."""
    them = Penalties()
    refuse(them, 3)
    assert not them.penalised(HERE, 1000.0)
    assert not len(them)


def test_one_host_of_ipv6_has_one_record():
    """Whatever address of its /64 it takes."""
    them = Penalties()
    for number in range(GRACE):
        them.refused(f"2001:db8::{number:x}", 0.0)
    assert them.penalised("2001:db8::ffff:1", 0.0)
    assert not them.penalised("2001:db8:0:1::1", 0.0)


def test_a_clock_that_hardly_moves_loses_nothing():
    """Time in steps below those that are counted is not lost."""
    them = Penalties()
    refuse(them, MOST)
    while them.passes(HERE, 0.0):
        pass
    passed = sum(them.passes(HERE, step / 1024) for step in range(1, 10 * 1024 + 1))
    assert abs(passed - 10 * PASSES) <= 3
