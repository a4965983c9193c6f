"""What each single fault of a road or a store does to a lane, step by step."""

import copy

import pytest
from helpers_world import Sender, World, make_puller, pull_world

from dropr_core.builtin.memory_data import InboxData
from dropr_core.contracts.storage import Ack
from dropr_core.endpoint import Wait
from dropr_core.errors import Refused
from dropr_core.message import State
from dropr_core.names import Lane
from dropr_core.signing import read_head

LANE = Lane("ware", "a", 5)


@pytest.fixture
def world():
    """Two nodes that have said hello, with nothing to say."""
    return World()


def push_until(world, verb, sender=None):
    """Let everything move until a request of this verb is on the road; return its letter."""
    sender = sender or world.sender
    for _ in range(50):
        sender.turn()
        for letter in list(sender.road.letters):
            if read_head(letter.frame, 1 << 30).header.verb == verb:
                return letter
            sender.road.arrive(letter)
            sender.road.come_home(letter)
        world.clock.advance(1.0)
    raise AssertionError(f"no {verb} was asked")


def test_messages_arrive_once_and_in_order(world):
    """The plain way: everything enters in the order of each lane, and the sender knows it."""
    for number in range(1, 30):
        world.sender.send(number, channel="ab"[number % 2])
    world.settle_down()
    got = world.numbers()
    assert [n for n in got if n % 2] == list(range(1, 30, 2))
    assert [n for n in got if not n % 2] == list(range(2, 30, 2))


def test_fault_21_a_lost_answer_doubles_nothing(world):
    """The peer committed, its answer was lost: the sender asks for the head and goes on after it."""
    for number in range(1, 4):
        world.sender.send(number)
    letter = push_until(world, "push")
    world.sender.road.arrive(letter)
    world.sender.road.lose(letter)
    assert world.numbers() == [1, 2, 3]
    world.sender.send(4)
    world.settle_down()
    assert world.queue() == [(1, False), (2, False), (3, False), (4, False)]
    assert not world.named("peer_reset")


def test_fault_22_a_sender_killed_before_it_wrote_the_verdict_down_doubles_nothing(world):
    """The answer came, the daemon died: the next one pushes again, is told the head, and goes on."""
    world.sender.send(1)
    letter = push_until(world, "push")
    world.sender.road.arrive(letter)
    world.sender.restart()
    world.sender.send(2)
    world.settle_down()
    assert world.queue() == [(1, False), (2, False)]


def test_fault_47_the_same_request_twice_enters_once(world):
    """A doubled request is refused as a repeat, and a copy that comes much later too."""
    world.sender.send(1)
    letter = push_until(world, "push")
    road = world.sender.road
    road.arrive(letter)
    road.arrive(letter)
    assert world.numbers() == [1]
    road.come_home(letter)
    world.sender.send(2)
    world.settle_down()
    road.arrive(letter)
    assert world.numbers() == [1, 2]


def test_fault_89_a_recorded_request_is_worthless_to_another_endpoint_life(world):
    """After a restart of the receiver a recorded request belongs to no session."""
    world.sender.send(1)
    letter = push_until(world, "push")
    world.set_inbox(world.inbox_data)
    world.sender.road.arrive(letter)
    assert world.numbers() == []
    world.sender.road.come_home(letter)
    world.settle_down()
    assert world.queue() == [(1, False)]


def test_fault_53_a_wiped_receiver_gets_again_what_is_still_kept(world):
    """Everything kept and not processed comes again, flagged, in order; an event says so; nothing new is swallowed."""
    for number in range(1, 6):
        world.sender.send(number, receipt=number != 3)
    world.settle_down()
    world.set_inbox(InboxData())
    world.sender.send(6)
    world.settle_down()
    assert world.numbers() == [1, 2, 4, 5, 6]
    assert [n for n, flag in world.queue() if flag][:4] == [1, 2, 4, 5]
    assert len(world.named("peer_reset")) == 1


def test_fault_53_a_wiped_receiver_is_noticed_without_anything_new_to_send(world):
    """Its receipts come in a new log: what only waits for its receipt is sent again at once."""
    for number in (1, 2):
        world.sender.send(number, receipt=True)
    world.settle_down()
    world.sender.send(3, channel="b", receipt=True)
    world.settle_down()
    assert collect(world, "b") == [3]
    world.set_inbox(InboxData())
    collect(world, "b")
    world.settle_down()
    assert world.queue() == [(1, True), (2, True)]
    assert collect(world, "a") == [1, 2]
    assert {delivery.state for delivery in world.sender.outbox.status((1).to_bytes(16, "big"))} == {State.PROCESSED}


def test_fault_54_a_restored_receiver_gets_again_what_came_after_its_backup(world):
    """The head of the backup is older than ours: what is kept after it is sent again, flagged."""
    for number in (1, 2, 3):
        world.sender.send(number, receipt=True)
    world.settle_down()
    backup = copy.deepcopy(world.inbox_data)
    for number in (4, 5):
        world.sender.send(number, receipt=True)
    world.settle_down()
    world.set_inbox(backup)
    world.sender.send(6)
    world.settle_down()
    assert world.numbers() == [1, 2, 3, 4, 5, 6]
    assert [flag for _, flag in world.queue()][:5] == [False, False, False, True, True]
    assert len(world.named("peer_reset")) == 1


def collect(world, *channels):
    """Acknowledge everything in the receiver's queue, and let the receipts come home."""
    consumer = world.inbox.register()
    claims = world.inbox.claim(channels or ("a", "b"), 100, consumer)
    world.inbox.settle([Ack(claim, b"done %d" % int.from_bytes(claim.id, "big")) for claim in claims])
    sender = world.sender
    for _ in range(10):
        sender.turn()
        for letter in list(sender.road.letters):
            sender.road.arrive(letter)
            sender.road.come_home(letter)
        world.clock.advance(2.0)
    return [int.from_bytes(claim.id, "big") for claim in claims]


def test_fault_73_receipts_come_home_though_polls_are_lost(world):
    """A lost answer to a receipt poll is asked for again: the state ends right."""
    identity = world.sender.send(1, receipt=True)
    world.settle_down()
    letter = push_until(world, "receipts")
    consumer = world.inbox.register()
    (claim,) = world.inbox.claim(["a"], 1, consumer)
    world.inbox.settle([Ack(claim, b"result")])
    world.sender.road.arrive(letter)
    world.sender.road.lose(letter)
    collect(world)
    (delivery,) = world.sender.outbox.status(identity)
    assert delivery.state is State.PROCESSED
    assert delivery.result == b"result"


def test_fault_54_receipts_of_a_restored_receiver_are_not_swallowed(world):
    """Its outcome log counts from its backup again: what is processed after it still reaches the sender."""
    for number in range(1, 4):
        world.sender.send(number, receipt=True)
    world.settle_down()
    backup = copy.deepcopy(world.inbox_data)
    assert collect(world) == [1, 2, 3]
    world.set_inbox(backup)
    identity = world.sender.send(4, channel="b", receipt=True)
    world.settle_down()
    assert collect(world, "b") == [4]
    (delivery,) = world.sender.outbox.status(identity)
    assert delivery.state is State.PROCESSED


def test_fault_62_a_rolled_back_sender_takes_a_new_identity_and_loses_nothing_new(world):
    """Numbers that were used before the roll-back stand for other messages now: they get new ones, flagged."""
    world.sender.send(1)
    world.settle_down()
    backup = world.sender.snapshot()
    for number in (2, 3):
        world.sender.send(number)
    world.settle_down()
    old = world.sender.outbox.store_id
    world.sender = Sender(world, backup)
    for number in (12, 13, 14):
        world.sender.send(number)
    world.settle_down()
    assert world.queue() == [(1, False), (2, False), (3, False), (12, True), (13, True), (14, True)]
    assert world.sender.outbox.store_id != old
    assert len(world.named("rolled_back")) == 1


def test_fault_61_two_clones_separate_and_lose_nothing(world):
    """A copied machine sends under the same numbers: the second to come takes another store id."""
    world.sender.send(1)
    world.settle_down()
    clone = Sender(world, world.sender.snapshot())
    for number in (2, 3):
        world.sender.send(number)
    for number in (102, 103):
        clone.send(number)
    world.settle_down(world.sender, clone)
    assert sorted(world.numbers()) == [1, 2, 3, 102, 103]
    assert world.sender.outbox.store_id != clone.outbox.store_id
    for sender, number in ((world.sender, 4), (clone, 104)):
        sender.send(number)
    world.settle_down(world.sender, clone)
    assert sorted(world.numbers()) == [1, 2, 3, 4, 102, 103, 104]


def test_cancelled_and_expired_deliveries_leave_no_gap(world):
    """What was cancelled or expired before it was shipped is passed over; the lane goes on."""
    ids = [world.sender.send(number, expires_in=5.0 if number == 3 else None) for number in range(1, 7)]
    assert world.sender.outbox.cancel(ids[0]) == (1, 0)
    assert world.sender.outbox.cancel(ids[5]) == (1, 0)
    world.clock.advance(10.0)
    world.sender.outbox.sweep(1000.0)
    world.settle_down()
    assert world.queue() == [(2, False), (4, False), (5, False)]
    world.sender.send(7)
    world.settle_down()
    assert world.numbers() == [2, 4, 5, 7]


@pytest.mark.parametrize("signed", [True, False])
def test_fault_35_one_poisonous_message_is_found_and_the_others_arrive(world, signed):
    """The peer (or a proxy before it) refuses every push that holds it with 400: it ends as dead, alone."""
    bad = world.sender.send(5)
    ids = [world.sender.send(number) for number in range(6, 20)]
    first = [world.sender.send(number, channel="b") for number in range(20, 25)]

    def proxy(frame):
        return Refused("bad_request", "400", signed=signed) if bad in frame else None

    world.sender.road.before = proxy
    world.settle_down()
    assert sorted(world.numbers()) == list(range(6, 25))
    assert [n for n in world.numbers() if n < 20] == list(range(6, 20))
    (delivery,) = world.sender.outbox.status(bad)
    assert delivery.state is State.DEAD
    assert len(ids) + len(first) == len(world.entered)


def test_fault_34_500_for_ever_is_no_reason_to_give_a_message_up(world):
    """A peer that fails on everything takes no message down: all wait, and all arrive when it is well."""
    for number in range(1, 6):
        world.sender.send(number)
    broken = [True]
    world.sender.road.before = lambda frame: (
        Refused("busy", "500") if broken[0] and read_head(frame, 1 << 30).header.verb == "push" else None
    )
    with pytest.raises(AssertionError, match="still waiting"):
        world.settle_down(rounds=40)
    assert world.sender.outbox.counts()["ware", "a"]["queued"] == 5
    broken[0] = False
    world.settle_down()
    assert world.queue() == [(number, False) for number in range(1, 6)]


def test_fault_50_a_full_receiver_says_later_and_recovers_by_itself(world):
    """Nothing is half stored while it is full; when there is room everything arrives, once."""
    world.set_inbox(world.inbox_data, max_messages=2)
    for number in range(1, 9):
        world.sender.send(number)
    with pytest.raises(AssertionError, match="still waiting"):
        world.settle_down(rounds=20)
    assert len(world.numbers()) <= 2
    world.set_inbox(world.inbox_data)
    world.settle_down()
    assert world.queue() == [(number, False) for number in range(1, 9)]


def pump(world, puller, road, posts, rounds=6):
    """Let a fetching node ask and be answered some times."""
    for _ in range(rounds):
        puller.turn()
        for letter in list(road.letters):
            road.arrive(letter)
            road.come_home(letter)
        while posts:
            posts.pop(0)()
        world.clock.advance(1.0)


def test_pull_mode_follows_the_same_rule():
    """The fetcher's heads are its acknowledgement: lost answers and restarts double nothing, receipts come home."""
    world, puller, road, posts = pull_world()
    ids = [world.sender.send(number, receipt=number == 2) for number in (1, 2, 3)]
    pump(world, puller, road, posts, 1)  # hello
    puller.turn()
    (letter,) = road.letters
    road.arrive(letter)
    road.lose(letter)
    pump(world, puller, road, posts)
    assert world.queue() == [(1, False), (2, False), (3, False)]
    puller = make_puller(world, road, posts)
    world.sender.send(4)
    pump(world, puller, road, posts)
    assert world.queue() == [(1, False), (2, False), (3, False), (4, False)]
    assert not world.sender.outbox.lanes("ware")
    claims = world.inbox.claim(["a"], 10, world.inbox.register())
    world.inbox.settle([Ack(claim, b"result") for claim in claims])
    pump(world, puller, road, posts)
    (delivery,) = world.sender.outbox.status(ids[1])
    assert delivery.state is State.PROCESSED
    assert delivery.result == b"result"
    assert not world.named("peer_reset")
    assert not world.named("rolled_back")


def test_pull_mode_a_long_poll_from_before_a_restart_concludes_nothing():
    """A request that waits speaks of old heads when it is looked at again: nothing is sent twice for it."""
    world, puller, road, posts = pull_world()
    pump(world, puller, road, posts, 1)
    puller.turn()
    (letter,) = road.letters
    request = world.office.open(letter.frame, None)
    assert isinstance(world.office.answer(request), Wait)
    road.lose(letter)
    world.sender.send(1)
    pump(world, puller, road, posts)
    world.sender.send(2)
    world.office.answer(request, first=False)
    pump(world, puller, road, posts)
    assert world.queue() == [(1, False), (2, False)]
    assert not world.named("peer_reset")
