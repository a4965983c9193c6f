"""A listener holds a bounded number of bytes of long requests, and slow lines do not hold up fast ones."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.errors import Refused
from dropr_core.system.request_room import RequestRoom


class Played:
    """A room of 100 bytes whose timers run when the test says so, and what became of each place."""

    def __init__(self):
        self.timers, self.numbers = {}, itertools.count()
        self.room = RequestRoom(100, self.later)
        self.granted, self.refused = [], []

    def later(self, _seconds, do):
        number = next(self.numbers)
        self.timers[number] = do
        return lambda: self.timers.pop(number, None)

    def ring(self):
        """Time passes: all timers that are set now."""
        for number in list(self.timers):
            do = self.timers.pop(number, None)
            if do is not None:
                do()

    def place(self, name, size, unasked=0, whose=None):
        return self.room.place(
            whose or name, size, lambda: self.granted.append(name), lambda _: self.refused.append(name), unasked=unasked
        )


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "came", "complete", "leave", "time"]),
        st.integers(0, 9),
        st.integers(1, 150),
        st.integers(0, 150),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_comes_and_goes_the_room_is_bounded_and_free_in_the_end(steps):
    """No order of asking, coming, lapsing and leaving loses or invents a byte, and what is here stays within bounds."""
    played, places = Played(), {}
    for number, (what, which, size, more) in enumerate(steps):
        place = places.get(which)
        if what == "ask" and place is None:
            try:
                places[which] = played.place(number, size, more, whose=which % 3)
            except Refused:
                assert played.room.free - min(size, more) < -100
        elif what == "came" and place is not None:
            place.came(min(more, place.size - place.have))
        elif what == "complete" and place is not None and place.reads:
            place.came(place.size - place.have)
            place.complete()
        elif what == "leave" and place is not None:
            places.pop(which).leave()
        elif what == "time":
            played.ring()
        assert played.room.slow <= 100 or sum(one.have > 0 for one in played.room._slow) == 1
    for place in places.values():
        place.leave()
        place.leave()
    assert (played.room.free, played.room.slow, played.timers) == (100, 0, {})


def test_a_place_that_is_free_is_waited_for_in_turns_by_sender():
    """One with many requests is not before one with few."""
    played = Played()
    first = played.place("first", 100)
    for name, whose in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")):
        played.place(name, 50, whose=whose)
    first.leave()
    assert played.granted == ["first", "a1", "b1"]


def test_a_request_that_gets_no_place_is_refused_and_nobody_behind_it_is_held_up():
    """Who waits longer than the patience of the room is told so."""
    played = Played()
    first = played.place("first", 60)
    first.complete()
    played.place("large", 60)
    played.place("small", 40)
    assert played.granted == ["first"]
    next(iter(played.timers.values()))()  # its patience is over
    assert (played.refused, played.granted) == (["large"], ["first", "small"])


def test_a_slow_request_gives_its_place_to_others_and_counts_again_when_it_is_here():
    """A request that takes long to come in counts no longer; as soon as it is here it does."""
    played = Played()
    slow = played.place("slow", 100)
    other = played.place("other", 100)
    assert played.granted == ["slow"]
    slow.came(10)
    next(iter(played.timers.values()))()
    assert played.granted == ["slow", "other"]
    slow.came(90)
    slow.complete()
    assert played.room.free == -100
    slow.leave()
    other.leave()
    assert played.room.free == 100


def test_slow_requests_together_have_a_room_and_the_one_with_least_goes():
    """Without a bound a thousand slow lines would hold megabytes each, for hours."""
    played = Played()
    slow = []
    for number in range(4):
        slow.append(played.place(number, 100))
        played.ring()
    for place, count in zip(slow, (40, 10, 30, 20), strict=True):
        place.came(count)
    assert played.refused == []
    slow[0].came(1)
    assert (played.refused, played.room.slow) == ([1], 91)


def test_what_comes_unasked_is_counted_and_refused_beyond_twice_the_room():
    """A sender that waits for nobody cannot fill the memory of a listener."""
    played = Played()
    whole = played.place("whole", 100)
    whole.complete()
    kept = [played.place(number, 80, unasked=25) for number in range(4)]
    assert played.room.free == -100
    with pytest.raises(Refused):
        played.place("more", 80, unasked=25)
    kept[0].came(26)
    assert played.refused == [0]


def test_a_request_larger_than_the_room_gets_it_alone():
    """A small room takes everything in the end, one after the other."""
    played = Played()
    first, large = played.place("first", 10), played.place("large", 500, unasked=50)
    assert not large.reads
    first.leave()
    assert large.reads
