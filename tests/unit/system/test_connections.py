"""Places for connections: strangers wear each other out, and nobody who was admitted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.system.connections import Connections, group_of


class Crowd:
    """Connections that note who had to go."""

    def __init__(self, **limits):
        self.all = Connections(**{"admitted": 4, "strangers": 6, "per_address": 3, "patience": 10.0, **limits})
        self.gone = []

    def come(self, name, address="192.0.2.1", now=0.0):
        return self.all.enter(address, now, lambda: self.gone.append(name))


def test_one_address_has_few_places_and_its_oldest_goes():
    """The fourth of an address that may have three ends the first."""
    crowd = Crowd()
    for name in "abcde":
        crowd.come(name)
    assert crowd.gone == ["a", "b"]
    assert crowd.all.strangers == 3


def test_when_all_are_taken_the_greediest_address_gives_way():
    """Somebody who comes alone is not pushed out by those who come in numbers."""
    crowd = Crowd(strangers=4)
    for name, address in [("alone", "192.0.2.9"), *((name, "192.0.2.1") for name in "abc"), ("new", "192.0.2.7")]:
        crowd.come(name, address)
    assert crowd.gone == ["a"]


def test_who_was_admitted_is_never_cut_off_by_strangers():
    """Neither by number nor by time; and its place among the strangers is free again."""
    crowd = Crowd()
    friend = crowd.come("friend")
    assert crowd.all.admit(friend)
    assert crowd.all.admit(friend), "each request says so"
    for name in range(100):
        crowd.come(name)
    crowd.all.look(1000.0)
    assert "friend" not in crowd.gone
    assert (crowd.all.admitted, crowd.all.strangers) == (1, 0)


def test_the_admitted_are_bounded_too():
    """One too many is told so, stays a stranger, and has a place once another leaves."""
    crowd = Crowd(admitted=1)
    first, second = crowd.come("first"), crowd.come("second")
    assert crowd.all.admit(first)
    assert not crowd.all.admit(second)
    crowd.all.leave(first)
    crowd.all.leave(first)
    assert crowd.all.admit(second)


def test_strangers_have_little_time():
    """Who has shown nothing in time goes, and nobody else; without strangers nothing is to be looked at."""
    crowd = Crowd()
    assert crowd.all.due is None
    crowd.come("a", now=1.0)
    crowd.come("b", now=2.0)
    assert crowd.all.look(10.9) == 11.0
    assert crowd.all.look(11.0) == 12.0
    assert crowd.gone == ["a"]
    assert crowd.all.look(12.0) is None


def test_who_was_cut_off_cannot_be_admitted():
    """Its request came too late."""
    crowd = Crowd(per_address=1)
    late = crowd.come("late")
    crowd.come("next")
    assert crowd.gone == ["late"]
    assert not crowd.all.admit(late)
    crowd.all.leave(late)
    assert crowd.all.strangers == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("a name", "a name", True),
    ],
)
def test_what_counts_as_one_address(one, other, same):
    """An IPv4 address; the 64 bits of IPv6 that one host has all of."""
    assert (group_of(one) == group_of(other)) is same


@given(st.lists(st.tuples(st.sampled_from(["come", "admit", "leave", "look"]), st.integers(0, 30))))
def test_the_counts_hold_whatever_happens(steps):
    """In any order of coming, being admitted, leaving and waiting, the limits hold and nobody is counted twice."""
    crowd, places = Crowd(), []
    for now, (step, number) in enumerate(steps):
        place = places[number % len(places)] if places else None
        if step == "come":
            places.append(crowd.come(len(places), f"192.0.2.{number % 4}", float(now)))
        elif step == "look":
            crowd.all.look(float(now))
        elif place is not None and step == "admit":
            crowd.all.admit(place)
        elif place is not None:
            crowd.all.leave(place)
        assert crowd.all.admitted == sum(one.admitted for one in places) <= 4
        assert crowd.all.strangers <= 6
        assert len(crowd.gone) == len(set(crowd.gone)) == crowd.all.cut_off
        assert not any(places[name].admitted for name in crowd.gone)
