"""The link: what it asks, in which order, and what an answer to it means. No I/O anywhere."""

import random

from hypothesis import given
from hypothesis import strategies as st
from unit.protocol.link_rig import WELCOME, ask, batch, ident, stats, taken

from dropr_core.contracts.storage import LaneStats
from dropr_core.errors import Refused, Unanswered, Unreachable
from dropr_core.model.names import Head
from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.protocol.messages import PushResult
from dropr_core.protocol.orders import (
    ClearInFlight,
    Collect,
    Greet,
    PeerDown,
    Probe,
    Settle,
    Ship,
)


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


def test_fault_33_verdicts_for_what_was_never_sent_are_ignored(link):
    """A rejection of an index that the push did not have changes nothing."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    of = batch(ship.lanes[0][0])
    (effect,) = link.pushed(ship, [of], [PushResult(True, of.upto, [(99, "x", "y"), (-1, "x", "y")])], 0.0)
    assert effect == Settle(of.lane, of.upto)


def test_lost_session_is_greeted_again_without_rest(link):
    """A restarted server knows no session: hello, and on at once."""
    (ship,) = ask(link, 0.0, [stats()], awaiting=False)
    of = batch(ship.lanes[0][0])
    assert link.failed(ship, [of], Refused("new_session", "?", signed=True), 0.0) == [ClearInFlight(of.lane)]
    assert ask(link, 0.0, [stats()], awaiting=False) == [Greet()]


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
