"""The link and a peer that answers but does not take what it is sent: it is full, its store fails, or one delivery is
poison to it.
"""

import pytest
from unit.protocol.link_rig import BUSY, ask, batch, ident, stats, taken

from dropr_core.contracts.storage import LaneStats
from dropr_core.errors import Refused, Unanswered
from dropr_core.model.names import START, Head
from dropr_core.protocol.messages import PushResult
from dropr_core.protocol.orders import DeadLetter, PeerDown, PeerUp, Probe, Ship


def test_ancestor_08_later_is_never_a_hot_loop(link):
    """A peer that takes nothing now is asked again after a rest of at least a second, by lane."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    of = batch(ship.lanes[0][0])
    link.pushed(ship, [of], [PushResult(False, START, later=0.0, reason="full")], 0.0)
    assert ask(link, 0.5, [stats()], awaiting=False) == []
    assert ask(link, 0.5, [stats("news")], awaiting=False) != []
    assert ask(link, 1.5, [stats()], awaiting=False) != []


def test_a_peer_that_takes_nothing_now_is_asked_again_with_one_message(link):
    """Nobody sends a whole batch again and again for a no; once it takes that one, batches grow again."""
    (ship,) = ask(link, 0.0, [stats(depth=5000)], awaiting=False)
    of = batch(ship.lanes[0][0])
    link.pushed(ship, [of], [PushResult(False, START, later=2.0, reason="full")], 0.0)
    (ship,) = ask(link, 2.0, [stats(depth=5000)], awaiting=False)
    assert ship.lanes[0][1] == 1
    of = batch(ship.lanes[0][0], count=1)
    link.pushed(ship, [of], [taken(of)], 2.0)
    assert ask(link, 2.0, [stats(depth=5000)], awaiting=False)[0].lanes[0][1] > 1


def test_a_peer_whose_store_is_in_trouble_is_tried_again_within_two_seconds(link):
    """It answers and says so itself, for however long; one that nobody vouches for rests as any that fails."""
    now = 0.0
    for _ in range(30):
        (order,) = ask(link, now, [stats()], awaiting=False)
        link.failed(order, [], Refused("busy", "WriteFailed", signed=True), now)
        assert now < link.wakes_at(now) <= now + 2.0
        now = link.wakes_at(now)
    (order,) = ask(link, now, [stats()], awaiting=False)
    link.failed(order, [], Refused("busy", "somebody says so"), now)
    assert link.wakes_at(now) > now + 2.0


def test_a_peer_whose_store_fails_is_down_once_and_not_up_with_each_probe(link):
    """It answers probes and refuses pushes: one word when that begins and one when it ends, however many tries. A push
    that is tried again holds one message.
    """
    now, effects = 0.0, []
    for _ in range(10):
        (order,) = ask(link, now, [stats()], awaiting=False)
        if isinstance(order, Probe):
            effects += link.probed(order, [])
            (order,) = ask(link, now, [stats()], awaiting=False)
        count = order.lanes[0][1]
        effects += link.failed(order, [batch(order.lanes[0][0], count=count)], BUSY, now)
        now = link.wakes_at(now)
    assert count == 1
    assert [effect for effect in effects if isinstance(effect, PeerUp | PeerDown)] == [PeerDown(str(BUSY))]
    (probe,) = ask(link, now, [stats()], awaiting=False)
    assert link.probed(probe, []) == []
    (order,) = ask(link, now, [stats()], awaiting=False)
    of = batch(order.lanes[0][0], count=1)
    assert PeerUp() in link.pushed(order, [of], [taken(of)], now)


def test_what_was_refused_and_is_gone_keeps_no_peer_down(link):
    """The refused messages expired: receipts that can be fetched are proof enough."""
    order = ask(link, 0.0, [stats()], awaiting=True)[0]
    link.failed(order, [batch(order.lanes[0][0])], BUSY, 0.0)
    now = link.wakes_at(0.0)
    (probe,) = ask(link, now, [], awaiting=True)
    assert link.probed(probe, []) == [PeerUp()]


def test_large_bodies_are_uploaded_to_a_peer_that_refused_a_push(link):
    """Whatever waits for its body would else wait for a push that cannot be made without it."""
    (order,) = ask(link, 0.0, [stats()], awaiting=False)
    link.failed(order, [batch(order.lanes[0][0])], BUSY, 0.0)
    assert not link.answers
    now = link.wakes_at(0.0)
    (probe,) = ask(link, now, [stats()], awaiting=False)
    link.probed(probe, [])
    assert link.answers


def run_poisoned(link, poison, error, depth=16, others=True):
    """Let a peer fail on pushes that contain ``poison``; returns what was set aside."""
    lane, done, now, aside = stats().lane, 0, 0.0, None
    for _ in range(400):
        if done >= depth:
            break
        lanes = [LaneStats(lane, Head(done, ident(done)), depth, depth - done, 100, 1.0)]
        if others:
            lanes.append(stats("news"))
        for order in ask(link, now, lanes, awaiting=False):
            if isinstance(order, Probe):
                link.probed(order, [Head(done, ident(done)) for _ in order.lanes])
            elif isinstance(order, Ship):
                of = [
                    batch(one, done + 1, min(count, depth - done)) if one == lane else batch(one)
                    for one, count in order.lanes
                ]
                bad = any(b.lane == lane and any(e.sequence == poison for e in b.entries) and aside is None for b in of)
                if bad:
                    for effect in link.failed(order, of, error, now):
                        if isinstance(effect, DeadLetter):
                            aside = effect.sequence
                else:
                    link.pushed(order, of, [taken(b) for b in of], now)
                    for b in of:
                        if b.lane == lane:
                            done = b.upto.sequence
        now = max(now + 0.1, link.wakes_at(now) or 0.0)
    return aside, done


@pytest.mark.parametrize("poison", [1, 7, 16])
@pytest.mark.parametrize("error", [Unanswered("500"), Refused("bad_request", "400", signed=True)])
def test_fault_35_poisonous_delivery_is_isolated_and_set_aside(link, poison, error):
    """A push that keeps failing is halved until the one bad delivery stands alone; the rest flows."""
    assert run_poisoned(link, poison, error) == (poison, 16)


def test_fault_34_500_for_ever_kills_nothing(link):
    """A peer that fails on everything proves nothing about any message: all wait."""
    now = 0.0
    for _ in range(200):
        for order in ask(link, now, [stats()], awaiting=False):
            if isinstance(order, Probe):
                link.probed(order, [START for _ in order.lanes])
                continue
            of = [batch(lane, 1, min(count, 10)) for lane, count in order.lanes]
            effects = link.failed(order, of, Unanswered("500"), now)
            assert not any(isinstance(effect, DeadLetter) for effect in effects)
        now = max(now + 0.1, link.wakes_at(now) or 0.0)


def test_a_lane_that_the_store_refuses_is_left_alone_and_the_others_go_on(link):
    """It is neither shipped nor asked about while it rests, and shipped when it does not any more."""
    bad = stats().lane
    link.doubt({bad})
    lanes = [stats(), stats("news")]
    (ship,) = link.orders(0.0, lanes, awaiting=False, resting=lambda lane: lane == bad)
    assert [lane.channel for lane, _ in ship.lanes] == ["news"]
    assert link.orders(0.0, lanes, awaiting=False) == [Probe((bad,))]
