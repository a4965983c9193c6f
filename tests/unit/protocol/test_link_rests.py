"""The link and a peer that is away or silent: how long it rests, what is in doubt, and when it is probed."""

import random

from unit.protocol.link_rig import WELCOME, ask, batch, stats

from dropr_core.errors import Refused, Unanswered, Unreachable
from dropr_core.model.backoff import Backoff
from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.protocol.orders import (
    ClearInFlight,
    Compare,
    DeadLetter,
    Greet,
    PeerDown,
    PeerUp,
    Probe,
    Ship,
)
from dropr_core.protocol.rests import LATE


def test_fault_27_unreachable_peer_rests_and_nothing_is_in_doubt(link):
    """Refused or unroutable: the peer rests with backoff, one word to observers, then a small probe."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    of = batch(ship.lanes[0][0])
    effects = link.failed(ship, [of], Unreachable("refused"), 0.0)
    assert ClearInFlight(of.lane) in effects
    assert any(isinstance(effect, PeerDown) for effect in effects)
    assert ask(link, 0.05, [stats()], awaiting=False) == []
    wake = link.wakes_at(0.05)
    assert 0.1 <= wake <= 1.0
    assert ask(link, wake, [stats()], awaiting=False) == [Probe(())]
    assert link.probed(Probe(()), []) == [PeerUp()]
    assert isinstance(ask(link, wake, [stats()], awaiting=False)[0], Ship)


def rests_of(link, tries=30):
    """How long the link rests after each of so many tries in a row that reach nobody."""
    now, rests = 0.0, []
    for _ in range(tries):
        (order,) = ask(link, now, [stats()], awaiting=False)
        link.failed(order, [], Unreachable("refused"), now)
        rests.append(link.wakes_at(now) - now)
        now = link.wakes_at(now)
    return rests


def test_a_peer_that_never_answered_is_tried_again_soon(link):
    """While the other side is being set up its sender rests for 5 s at most; once it has answered, as long as told."""
    newcomer = Link("peer", LinkSettings(), random.Random(1))
    assert max(rests_of(newcomer)) <= 5.0
    assert max(rests_of(link)) > 5.0
    again = Link("peer", LinkSettings(), random.Random(1))
    again.answered = True  # in an earlier life of this process
    assert max(rests_of(again)) > 5.0


def test_a_peer_that_refuses_us_and_never_talked_to_us_is_tried_again_soon():
    """A key that is not there yet is put there in a minute; a refusal that anybody may have sent is no answer."""
    newcomer = Link("peer", LinkSettings(), random.Random(1))
    (order,) = ask(newcomer, 0.0, [stats()], awaiting=False)
    newcomer.failed(order, [], Refused("unknown_peer", "no such pair of nodes here"), 0.0)
    assert newcomer.wakes_at(0.0) <= 5.0


def test_a_rest_that_was_configured_below_is_kept():
    """Before the first answer nothing rests longer than the configuration says, or less than its shortest rest."""
    fast = LinkSettings(backoff=Backoff(0.1, 2.0))
    assert max(rests_of(Link("peer", fast, random.Random(1)))) <= 2.0
    slow = LinkSettings(backoff=Backoff(20.0, 60.0))
    assert min(rests_of(Link("peer", slow, random.Random(1)))) >= 2.0


def test_fault_20_silence_leaves_doubt_and_heads_are_asked_first(link):
    """After an unanswered push the link asks how far the peer got before it ships again."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    of = batch(ship.lanes[0][0])
    effects = link.failed(ship, [of], Unanswered("time-out"), 0.0)
    assert not any(isinstance(effect, ClearInFlight) for effect in effects)
    (probe,) = ask(link, 100.0, [stats()], awaiting=False)
    assert probe == Probe((of.lane,))
    assert Compare(of.lane, of.upto) in link.probed(probe, [of.upto])


def test_backoff_doubles_to_its_cap_and_a_sign_of_life_ends_it(link):
    """Failures in a row rest longer, never above 60 s; a request from the peer ends the rest."""
    now, rests = 0.0, []
    while now < 300.0:
        (order,) = ask(link, now, [stats()], awaiting=False)
        link.failed(order, [], Unreachable("refused"), now)
        rests.append(link.wakes_at(now) - now)
        now = link.wakes_at(now)
    assert max(rests) <= 60.0
    assert min(rests[-4:]) >= 6.0
    (order,) = ask(link, now, [stats()], awaiting=False)
    link.failed(order, [], Unreachable("refused"), now)
    assert ask(link, now, [stats()], awaiting=False) == []
    link.reset_backoff()
    assert ask(link, now, [stats()], awaiting=False) != []


def test_no_rest_is_longer_than_the_outage_so_far():
    """After a cut of two seconds the peer is asked within two, however unlucky the draws; and all pushes that fail at
    once are one outage of no length, so that the first rest is a second at most.
    """
    for seed in range(50):
        link = Link("peer", LinkSettings(parallel=4), random.Random(seed))
        ask(link, 0.0, [stats()], awaiting=False)
        link.greeted(WELCOME)
        ships = [ship for name in "abcd" for ship in ask(link, 0.0, [stats(name)], awaiting=False)]
        assert len(ships) == 4
        for ship in ships:
            link.failed(ship, [], Unreachable("refused"), 0.0)
        now = link.wakes_at(0.0)
        assert now <= 1.0
        while now < 2.0:
            (order,) = ask(link, now, [stats()], awaiting=False)
            link.failed(order, [], Unreachable("refused"), now)
            now = link.wakes_at(now)
        assert now <= 4.0


def test_a_peer_that_is_away_is_not_probed_when_nothing_waits(link):
    """The messages were cancelled: nobody gains from knowing whether the peer is back. With the next it is asked."""
    (order,) = ask(link, 0.0, [stats()], awaiting=False)
    link.failed(order, [batch(order.lanes[0][0])], Unreachable("refused"), 0.0)
    now = link.wakes_at(0.0)
    assert ask(link, now, [], awaiting=False) == []
    assert ask(link, now + 1000, [], awaiting=False) == []
    assert ask(link, now + 1000, [stats()], awaiting=False) == [Probe(())]


def test_a_peer_that_is_away_is_seldom_probed_for_a_late_receipt_alone(link):
    """Only a kick over there can bring one: ten minutes instead of one. Mail, a receipt that is awaited, or a person
    who says retry are reasons to ask as soon as its rest is over.
    """
    (order,) = ask(link, 0.0, [stats()], awaiting=False)
    link.failed(order, [batch(order.lanes[0][0])], Unreachable("refused"), 0.0)
    times, now = [], 0.0
    while now < 7200:
        now = link.wakes_at(now) or now + 5
        for probe in link.orders(now, [], awaiting=False, late=True):
            link.begin(probe)
            times.append(now)
            link.failed(probe, [], Unreachable("refused"), now)
    assert len(times) == 7200 / LATE
    assert link.next_try >= now + LATE
    now += 61
    assert link.orders(now, [], awaiting=False, late=True) == []
    assert link.orders(now, [], awaiting=True, late=True) == [Probe(())]
    assert link.orders(now, [stats()], awaiting=False, late=True) == [Probe(())]
    link.reset_backoff()
    assert link.orders(now, [], awaiting=False, late=True) == [Probe(())]


def test_fault_37_refused_key_rests_long_and_kills_no_message(link):
    """401 rests the peer near the cap; no delivery is given up."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    effects = link.failed(ship, [batch(ship.lanes[0][0])], Refused("unauthorized", "wrong key"), 0.0)
    assert not any(isinstance(effect, DeadLetter) for effect in effects)
    assert link.wakes_at(0.0) >= 6.0


def test_a_peer_that_forgets_each_session_at_once_is_no_hot_loop(link):
    """Two processes that answer in turn: after some greetings in vain the peer rests like one that fails."""
    (order,) = ask(link, 0.0, [stats()], awaiting=False)
    for _ in range(2):
        link.failed(order, [], Refused("new_session", "?", signed=True), 0.0)
        assert ask(link, 0.0, [stats()], awaiting=False) == [Greet()]
        link.greeted(WELCOME)
        (order,) = ask(link, 0.0, [stats()], awaiting=False)
    effects = link.failed(order, [], Refused("new_session", "?", signed=True), 0.0)
    assert any(isinstance(effect, PeerDown) for effect in effects)
    assert ask(link, 0.0, [stats()], awaiting=False) == []
    assert link.wakes_at(0.0) > 0.0
