"""Faults of peers and of the road to them that no other test holds: step by step, with nothing real in between."""

import random

import msgspec
import pytest
from support.lanes import SHOP, THERE, Node, Sender, ident, verb

from dropr_core.contracts.storage import Ack, LaneStats, NewMessage, Selection
from dropr_core.errors import Unreachable
from dropr_core.model import envelope
from dropr_core.model.limits import MAX_HOPS
from dropr_core.model.message import Message, State
from dropr_core.model.names import START, Lane
from dropr_core.protocol.access import Access
from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.protocol.messages import Welcome
from dropr_core.protocol.orders import Greet, Probe, Ship
from dropr_core.system.clock import FakeClock

YEAR = 365 * 86400.0


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def server(clock):
    return Node(THERE, SHOP, clock)


@pytest.fixture
def sender(clock, server):
    return Sender(clock, server)


def change_pushed(server, change):
    """The peer's next word on a push is changed before it is signed; afterwards it is its own again."""
    original = server.endpoint._verbs["push"]

    def changed(request, this):
        server.endpoint._verbs = {**server.endpoint._verbs, "push": original}
        return change(original(request, this))

    server.endpoint._verbs = {**server.endpoint._verbs, "push": changed}


def test_fault_32_a_verdict_for_only_some_of_a_lane_settles_those_and_retries_the_rest(sender, server):
    """The peer says that it came to the second of four: two are settled by it, nothing is lost or doubled."""
    for number in (1, 2, 3, 4):
        sender.send(number)
    push = sender.ship()
    change_pushed(server, lambda pushed: msgspec.structs.replace(
        pushed, verdicts=[msgspec.structs.replace(pushed.verdicts[0], head=(2, ident(2)))]))  # fmt: skip
    push.carry()
    sender.turn()
    assert [sender.state(number) for number in (1, 2)] == ["", ""]
    assert sender.state(3) != ""
    sender.flow(10, 10.0)
    assert server.ids == [ident(number) for number in (1, 2, 3, 4)]
    assert sender.outbox.lanes() == []


def test_fault_32_a_verdict_for_only_some_lanes_settles_nothing_and_is_asked_again(sender, server):
    """Two lanes were pushed and one verdict came: nobody can tell whose, so both heads are asked for."""
    sender.send(1)
    sender.send(2, channel="news")
    push = sender.ship()
    change_pushed(server, lambda pushed: msgspec.structs.replace(pushed, verdicts=pushed.verdicts[:1]))
    push.carry()
    sender.turn()
    assert [sender.state(number) for number in (1, 2)] == ["queued", "queued"]
    assert "1 verdicts for 2 lanes" in sender.pusher.link.down_reason
    sender.flow(10, 10.0)
    assert sorted(server.ids) == [ident(1), ident(2)]
    assert sender.outbox.lanes() == []


def ask(link, now, lanes, *, awaiting):
    """What the link wants asked, as asked."""
    orders = link.orders(now, lanes, awaiting=awaiting)
    for order in orders:
        link.begin(order)
    return orders


def greeted(seed):
    """A link that has just been greeted, and what waits for its peer."""
    link = Link("peer", LinkSettings(), random.Random(seed))
    lanes = [LaneStats(Lane("peer", f"c{n}", 5), START, 10**6, 10**6, 10**8, 1.0) for n in range(50)]
    assert ask(link, 0.0, lanes, awaiting=False) == [Greet()]
    link.greeted(Welcome(1, b"n" * 16, b"s" * 16, b"i" * 8, 4 << 20, 10_000, 1 << 24))
    return link, lanes


def test_fault_43_peers_that_come_back_together_are_neither_tried_nor_flooded_at_once():
    """After an outage of a region the tries are spread over the rest, the first is one small probe, and what
    follows is a few bounded pushes at a time, whatever the backlog."""
    wakes = []
    for seed in range(200):
        link, lanes = greeted(seed)
        now = 0.0
        for _ in range(20):
            for order in ask(link, now, lanes, awaiting=True):
                link.failed(order, [], Unreachable("the region is dark"), now)
            began, now = now, link.rest_until
        wakes.append(now - began)
        at = now
        assert ask(link, at - 0.001, lanes, awaiting=True) == []
        first = ask(link, at, lanes, awaiting=True)
        assert [type(order) for order in first] in ([Greet], [Probe])
        if isinstance(first[0], Greet):
            link.greeted(Welcome(1, b"n" * 16, b"s" * 16, b"i" * 8, 4 << 20, 10_000, 1 << 24))
            first = ask(link, at, lanes, awaiting=True)
        link.probed(first[0], [(0, bytes(16))] * len(first[0].lanes))
        ships = [order for order in ask(link, at, lanes, awaiting=True) if isinstance(order, Ship)]
        assert 1 <= len(ships) <= LinkSettings().parallel
        assert all(sum(count for _, count in ship.lanes) <= 10_000 for ship in ships)
    assert min(wakes) >= 6.0
    assert max(wakes) <= 60.0
    tenths = [sum(low <= wake < low + 6.0 for wake in wakes) for low in range(6, 60, 6)]
    assert max(tenths) < 60, f"the tries come together: {tenths}"


def test_fault_45_a_peer_at_a_new_address_goes_on_where_it_was(sender, server):
    """The address is no identity: the same store behind another URL gets what follows, and nothing twice."""
    sender.send(1)
    sender.flow()
    sender.start()  # the daemon reloads with the new URL: another connection, to the same node
    sender.send(2)
    sender.flow()
    assert server.ids == [ident(1), ident(2)]
    assert not sender.told("peer_reset")


def test_fault_45_another_node_at_the_old_address_gets_nothing(sender, server, clock):
    """Whoever took over the address does not have the pair's key: it is refused, and all mail waits."""
    sender.send(1)
    sender.flow()
    stranger = Node(THERE, SHOP, clock)
    stranger.access[SHOP] = Access((b"another key of another pair!",))
    sender.wires.server = stranger
    sender.pusher.link.welcome = None
    sender.send(2)
    sender.flow(10, 10.0)
    assert stranger.ids == []
    assert sender.state(2) == "queued"
    assert "bad_signature" in sender.pusher.link.down_reason
    sender.wires.server = server
    sender.flow(20, 70.0)
    assert server.ids == [ident(1), ident(2)]


def test_fault_45_a_new_store_behind_the_right_key_waits_for_a_person_where_told_to(clock, server):
    """`on_peer_reset: hold`: a node that has the key and none of the past gets nothing until it is confirmed."""
    sender = Sender(clock, server, on_reset="hold")
    sender.send(1, receipt=True)
    sender.flow()
    server.wipe()
    sender.start()
    sender.send(2)
    sender.flow(10, 10.0)
    assert server.lives[-1] == []
    assert sender.told("peer_reset")
    assert "on_peer_reset" in sender.outbox.peers()[THERE].reason
    assert sender.outbox.redrive(Selection()) == 0


@pytest.mark.parametrize("pause", [0.0, 3 * YEAR])
@pytest.mark.parametrize("wiped", [False, True])
def test_fault_48_a_repeat_is_recognised_after_done_after_wipe_and_after_years(sender, server, clock, pause, wiped):
    """The head remembers, not the message: a push that comes again finds it, however late and whatever is gone."""
    sender.send(1)
    sender.send(2)
    push = sender.ship()
    push.arrive()
    assert server.consume() == [ident(1), ident(2)]
    if wiped:
        server.inbox.wipe(Selection())
    clock.advance(pause)
    server.inbox.sweep()
    assert server.inbox.status(ident(1)) is None
    push.lose()
    server.restart()  # its memory of requests is gone as well
    sender.flow(10, 10.0)
    assert server.ids == [ident(1), ident(2)]
    assert server.consume() == []
    assert sender.outbox.lanes() == []


@pytest.mark.parametrize("wrong", [-50 * YEAR, 75 * YEAR])
def test_fault_55_a_receivers_clock_that_is_wrong_by_years_changes_nothing(clock, wrong):
    """Times on the wire are durations: expiry, delay, leases and duplicates go by the receiver's own seconds."""
    theirs = FakeClock(now=5e6)
    theirs.step_wall(wrong)
    server = Node(THERE, SHOP, theirs)
    sender = Sender(clock, server)
    sender.send(1, expires_in=60.0)
    sender.send(2)
    push = sender.ship()
    push.arrive()
    push.lose()
    sender.flow(10, 10.0)
    assert server.ids == [ident(1), ident(2)]
    (claim,) = server.inbox.claim(["orders"], 1, server.consumer)
    theirs.advance(59.0)
    theirs.step_wall(-wrong)  # somebody sets it right in the middle of it
    assert server.inbox.holds(claim)
    assert server.inbox.settle([Ack(claim)]) == [True]
    assert server.consume() == [ident(2)]


def test_fault_84_a_message_that_runs_in_a_circle_ends_with_the_reason(sender, server):
    """Past the hop limit the peer refuses it for good; what was sent beside it goes on."""
    around = Message(id=ident(1), sender=SHOP, channel="orders", priority=5, hops=MAX_HOPS + 1)
    last = Message(id=ident(2), sender=SHOP, channel="orders", priority=5, hops=MAX_HOPS)
    for message in (around, last):
        sealed = envelope.encode(message, b"round and round")
        sender.outbox.append([NewMessage(message.id, "orders", 5, (THERE,), sealed)])
    sender.flow()
    (delivery,) = sender.outbox.status(ident(1))
    assert delivery.state is State.FAILED
    assert "loop" in delivery.reason
    assert "circle" in delivery.reason
    assert server.ids == [ident(2)]


def test_fault_42_a_link_that_comes_and_goes_keeps_what_it_has_won(sender, server):
    """Up for one request, down for the next, for ever: all arrives once, and no store is taken for reset."""
    numbers = range(1, 41)
    for number in numbers:
        sender.send(number, channel=("orders", "news")[number % 2])
    up = True
    for _ in range(200):
        for flight in sender.turn():
            if up:
                flight.carry()
            elif verb(flight) == "push":
                flight.arrive()
                flight.lose()
            else:
                flight.lose()
            up = not up
        sender.clock.advance(1.0)
    assert sorted(server.ids) == [ident(number) for number in numbers]
    assert sender.outbox.lanes() == []
    assert not sender.told("peer_reset")
    assert not sender.told("rolled_back")


def test_fault_76_one_peer_that_is_gone_for_ever_ends_by_the_life_of_its_delivery(sender, clock):
    """A multicast to two: the living one gets it, the delivery to the dead one is `dead` after its life."""
    message = Message(id=ident(1), sender=SHOP, channel="orders", priority=5)
    sender.outbox.append([NewMessage(ident(1), "orders", 5, (THERE, "gone"), envelope.encode(message, b"x"))])
    sender.flow()
    states = {delivery.peer: delivery.state for delivery in sender.outbox.status(ident(1))}
    assert states["gone"] is State.QUEUED
    clock.advance(6 * 86400.0)
    assert sender.outbox.sweep(5 * 86400.0)[0] == [ident(1)]
    dead = next(delivery for delivery in sender.outbox.status(ident(1)) if delivery.peer == "gone")
    assert dead.state is State.DEAD
    assert dead.reason
