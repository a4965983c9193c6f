"""The link: what it asks, and what answers, silence and refusals mean. No I/O anywhere."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.contracts.storage import Batch, Entry, LaneStats
from dropr_core.errors import Refused, Unanswered, Unreachable
from dropr_core.model.backoff import Backoff
from dropr_core.model.names import START, Head, Lane, MessageId
from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.protocol.log_matching import HeadRelation, compare_heads
from dropr_core.protocol.messages import PushResult, Welcome
from dropr_core.protocol.orders import (
    ClearInFlight,
    Collect,
    Compare,
    DeadLetter,
    Greet,
    PeerDown,
    PeerUp,
    Probe,
    Settle,
    Ship,
)
from dropr_core.protocol.rests import LATE

BUSY = Refused("busy", "StoreReadOnly", signed=True)
WELCOME = Welcome(1, b"n" * 16, b"s" * 16, b"i" * 8, 4 << 20, 10_000, 1 << 24)


def ident(number):
    return MessageId(number.to_bytes(16, "big"))


def stats(channel="orders", priority=5, depth=10, oldest=1.0):
    return LaneStats(Lane("peer", channel, priority), START, depth, depth, depth * 100, oldest)


def batch(lane, first=1, count=10):
    after = Head(first - 1, ident(first - 1))
    return Batch(lane, after, [Entry(n, ident(n), b"e") for n in range(first, first + count)])


def taken(of):
    return PushResult(True, of.upto)


def ask(link, now, lanes, *, awaiting):
    """What the link wants asked, as asked."""
    orders = link.orders(now, lanes, awaiting=awaiting)
    for order in orders:
        link.begin(order)
    return orders


@pytest.fixture
def link():
    fresh = Link("peer", LinkSettings(), random.Random(1))
    assert ask(fresh, 0.0, [stats()], awaiting=False) == [Greet()]
    fresh.greeted(WELCOME)
    return fresh


def test_idle_link_asks_nothing():
    """Nothing to ship and nothing awaited: not even a greeting."""
    assert ask(Link("peer", LinkSettings(), random.Random(1)), 0.0, [], awaiting=False) == []


def test_a_link_announces_its_node_once_and_no_failure_of_it_counts():
    """Told that this node can be reached again, an idle link talks once to its peer: it may be resting. Whether
    the peer is there does not matter, and then it is silent again."""
    link = Link("peer", LinkSettings(), random.Random(1))
    link.announce()
    (order,) = ask(link, 0.0, [], awaiting=False)
    assert order == Greet()
    assert link.failed(order, [], Unreachable("refused"), 0.0) == []
    assert ask(link, 0.0, [], awaiting=False) == []
    assert (link.down_reason, link.wakes_at(0.0)) == (None, None)
    link.announce()
    assert ask(link, 0.0, [], awaiting=False) == [Greet()]
    link.greeted(WELCOME)
    link.announce()
    assert ask(link, 0.0, [], awaiting=False) == [Probe(())]
    assert link.probed(Probe(()), []) == []
    assert ask(link, 0.0, [], awaiting=False) == []


def test_an_announcement_that_fails_keeps_no_message_waiting():
    """A message that came meanwhile is a reason to greet of its own, and to rest if nobody answers."""
    link = Link("peer", LinkSettings(), random.Random(1))
    link.announce()
    (order,) = ask(link, 0.0, [], awaiting=False)
    assert ask(link, 0.0, [stats()], awaiting=False) == []
    link.failed(order, [], Unreachable("refused"), 0.0)
    (order,) = ask(link, 0.0, [stats()], awaiting=False)
    assert order == Greet()
    assert link.failed(order, [], Unreachable("refused"), 0.0) == [PeerDown("refused")]


def test_one_push_under_way_for_each_lane(link):
    """A lane is not shipped again before its push is answered; another lane goes at once."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    assert ask(link, 0.0, [stats()], awaiting=False) == []
    (other,) = ask(link, 0.0, [stats(), stats("news")], awaiting=False)
    assert [lane.channel for lane, _ in other.lanes] == ["news"]
    of = batch(ship.lanes[0][0])
    assert link.pushed(ship, [of], [taken(of)], 0.0) == [Settle(of.lane, of.upto)]
    assert ask(link, 0.0, [stats()], awaiting=False) != []


def test_urgent_lanes_first_and_the_longest_waiting_one_in_eight(link):
    """Priority rules, but a quiet lane of low priority is not starved."""
    firsts = []
    for _ in range(16):
        (ship,) = ask(link, 0.0, [stats("low", 9, oldest=100.0), stats("high", 0)], awaiting=False)
        firsts.append(ship.lanes[0][0].channel)
        batches = [batch(lane) for lane, _ in ship.lanes]
        link.pushed(ship, batches, [taken(one) for one in batches], 0.0)
    assert firsts.count("low") == 2
    assert firsts[0] == "high"


def test_batches_grow_with_success(link):
    """Each accepted push lets the lane's next one be larger, up to the limit."""
    counts = []
    for _ in range(8):
        (ship,) = ask(link, 0.0, [stats(depth=10**6)], awaiting=False)
        counts.append(ship.lanes[0][1])
        of = batch(ship.lanes[0][0])
        link.pushed(ship, [of], [taken(of)], 0.0)
    assert counts[0] < counts[3] < counts[-1] == 10_000


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


def test_fault_33_verdicts_for_what_was_never_sent_are_ignored(link):
    """A rejection of an index that the push did not have changes nothing."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    of = batch(ship.lanes[0][0])
    (effect,) = link.pushed(ship, [of], [PushResult(True, of.upto, [(99, "x", "y"), (-1, "x", "y")])], 0.0)
    assert effect == Settle(of.lane, of.upto)


def test_fault_37_refused_key_rests_long_and_kills_no_message(link):
    """401 rests the peer near the cap; no delivery is given up."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    effects = link.failed(ship, [batch(ship.lanes[0][0])], Refused("unauthorized", "wrong key"), 0.0)
    assert not any(isinstance(effect, DeadLetter) for effect in effects)
    assert link.wakes_at(0.0) >= 6.0


def test_lost_session_is_greeted_again_without_rest(link):
    """A restarted server knows no session: hello, and on at once."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    of = batch(ship.lanes[0][0])
    assert link.failed(ship, [of], Refused("new_session", "?", signed=True), 0.0) == [ClearInFlight(of.lane)]
    assert ask(link, 0.0, [stats()], awaiting=False) == [Greet()]


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


def test_receipts_are_collected_by_one_long_poll(link):
    """While receipts are awaited exactly one long poll is kept open."""
    assert ask(link, 0.0, [], awaiting=True) == [Collect()]
    assert ask(link, 0.0, [], awaiting=True) == []
    link.collected(0.0)
    assert ask(link, 0.0, [], awaiting=True) == [Collect()]


def test_a_poll_that_brought_nothing_and_did_not_wait_is_followed_by_a_pause(link):
    """A peer that answers at once without anything is asked once a second, whatever else it answers meanwhile."""
    ask(link, 0.0, [], awaiting=True)
    link.collected(0.0, gently=True)
    (ship,) = ask(link, 0.0, [stats()], awaiting=True)
    of = batch(ship.lanes[0][0])
    link.pushed(ship, [of], [taken(of)], 0.0)
    assert ask(link, 0.9, [], awaiting=True) == []
    assert link.wakes_at(0.0) == 1.0
    assert ask(link, 1.0, [], awaiting=True) == [Collect()]


def test_a_broken_poll_for_receipts_is_asked_again_gently_though_pushes_are_answered(link):
    """The pause after it ends by time alone: answered pushes say nothing about the poll."""
    (poll,) = ask(link, 0.0, [], awaiting=True)
    link.failed(poll, [], Unanswered("cut"), 0.0)
    (ship,) = ask(link, 0.0, [stats()], awaiting=True)
    of = batch(ship.lanes[0][0])
    link.pushed(ship, [of], [taken(of)], 0.0)
    assert ask(link, 0.5, [], awaiting=True) == []
    assert ask(link, 1.0, [], awaiting=True) == [Collect()]


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


def test_a_lane_that_the_store_refuses_is_left_alone_and_the_others_go_on(link):
    """It is neither shipped nor asked about while it rests, and shipped when it does not any more."""
    bad = stats().lane
    link.doubt({bad})
    lanes = [stats(), stats("news")]
    (ship,) = link.orders(0.0, lanes, awaiting=False, resting=lambda lane: lane == bad)
    assert [lane.channel for lane, _ in ship.lanes] == ["news"]
    assert link.orders(0.0, lanes, awaiting=False) == [Probe((bad,))]


@given(st.data())
def test_whatever_fails_before_an_order_was_asked_leaves_nothing_behind(data):
    """An executor that fails at any order, any number of times: no lane, poll or greeting is forgotten by it."""
    link = Link("peer", LinkSettings(parallel=2, max_count=10), random.Random(1))
    left = {stats(name).lane: 3 for name in "abcde"}
    head, collected, failures = dict.fromkeys(left, 0), 0, 30
    for _ in range(200):
        lanes = [LaneStats(lane, Head(head[lane], ident(head[lane])), 30, 10 * count, 100, 1.0)
                 for lane, count in left.items() if count]  # fmt: skip
        under_way = []
        for order in link.orders(0.0, lanes, awaiting=True):
            if failures and data.draw(st.booleans()):
                failures -= 1
                continue  # the store failed: it was never asked
            link.begin(order)
            under_way.append(order)
        for order in under_way:
            match order:
                case Greet():
                    link.greeted(WELCOME)
                case Probe():
                    link.probed(order, [Head(head[lane], ident(head[lane])) for lane in order.lanes])
                case Collect():
                    link.collected(0.0)
                    collected += 1
                case Ship(chosen):
                    batches = [batch(lane, head[lane] + 1) for lane, _ in chosen]
                    link.pushed(order, batches, [taken(of) for of in batches], 0.0)
                    for lane, _ in chosen:
                        head[lane] += 10
                        left[lane] -= 1
        if not any(left.values()) and collected:
            break
    assert not any(left.values()), left
    assert collected
    assert ask(link, 0.0, [stats()], awaiting=True) != []


@pytest.mark.parametrize(
    ("theirs", "ours", "last", "located", "meaning"),
    [
        (Head(5, ident(5)), Head(5, ident(5)), 9, ident(5), HeadRelation.SAME),
        (Head(7, ident(7)), Head(5, ident(5)), 9, ident(7), HeadRelation.AHEAD),
        (Head(3, ident(3)), Head(5, ident(5)), 9, None, HeadRelation.LOST),
        (Head(3, ident(3)), Head(5, ident(5)), 9, ident(3), HeadRelation.LOST),
        (START, Head(5, ident(5)), 9, None, HeadRelation.LOST),
        (Head(7, ident(99)), Head(5, ident(5)), 9, ident(7), HeadRelation.FOREIGN),
        (Head(5, ident(99)), Head(5, ident(5)), 9, ident(5), HeadRelation.FOREIGN),
        (Head(12, ident(12)), Head(5, ident(5)), 9, None, HeadRelation.FOREIGN),
        (Head(7, ident(7)), Head(5, ident(5)), 9, None, HeadRelation.FOREIGN),
    ],
)
def test_log_matching(theirs, ours, last, located, meaning):
    """Each case of log matching: same, lost answer, wiped or restored receiver, rolled-back sender."""
    assert compare_heads(theirs, ours, last, located) is meaning
