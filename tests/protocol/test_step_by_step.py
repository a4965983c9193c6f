"""Faults of a road or a store that one step after the other brings about; more of them in test_faults.py."""

import copy

import pytest
from support.world import World, make_puller, pull_world

from dropr_core.builtin.memory_data import InboxData
from dropr_core.contracts.storage import Ack, Bury, Selection
from dropr_core.errors import Refused
from dropr_core.model.backoff import Backoff
from dropr_core.model.message import State
from dropr_core.protocol.endpoint import Wait
from dropr_core.protocol.frames import read_head


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


def ask_for_receipts(world, rounds=6):
    """Let the sender ask and be answered some times, also when it has nothing to ship."""
    for _ in range(rounds):
        world.sender.turn()
        for letter in list(world.sender.road.letters):
            world.sender.road.arrive(letter)
            world.sender.road.come_home(letter)
        while world.sender.posts:
            world.sender.posts.pop(0)()
        world.clock.advance(15.0)


@pytest.mark.parametrize("restart", [False, True])
def test_what_was_kicked_at_the_receiver_is_processed_at_the_sender_by_itself(world, restart):
    """A delivery that failed, because its receiver buried it, becomes processed when somebody kicks it there and it
    works: no other mail is needed for that, also after the daemon began anew."""
    identity = world.sender.send(1, receipt=True)
    world.settle_down()
    (claim,) = world.inbox.claim(["a"], 1, world.inbox.register())
    world.inbox.settle([Bury(claim, "no price")])
    ask_for_receipts(world)
    (delivery,) = world.sender.outbox.status(identity)
    assert (delivery.state, delivery.reason) == (State.FAILED, "no price")
    if restart:
        world.sender.restart()
    assert world.inbox.kick(Selection()) == 1
    (claim,) = world.inbox.claim(["a"], 1, world.inbox.register())
    world.inbox.settle([Ack(claim, b"result")])
    ask_for_receipts(world)
    (delivery,) = world.sender.outbox.status(identity)
    assert (delivery.state, delivery.result) == (State.PROCESSED, b"result")
    ask_for_receipts(world)
    assert world.sender.road.letters == []
    world.sender.turn()
    assert world.sender.road.letters == [], "nothing failed any more, and receipts are asked for all the same"


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


def longest_rest(world, puller, road, posts, tries=30):
    """The longest rest of a puller that reaches nobody, time after time."""
    rests = []
    for _ in range(tries):
        puller.turn()
        for letter in list(road.letters):
            road.lose(letter, certain=True)
        while posts:
            posts.pop(0)()
        rests.append(puller.rest_until - world.clock.now())
        world.clock.advance(rests[-1])
    return max(rests)


def test_pull_mode_a_peer_that_never_answered_is_asked_again_soon():
    """Until there was a first answer ever, who fetches rests for 5 s at most; after it as long as configured."""
    world, puller, road, posts = pull_world()
    puller._backoff = Backoff(1.0, 60.0)
    assert longest_rest(world, puller, road, posts) <= 5.0
    world.sender.send(1)
    pump(world, puller, road, posts)
    assert world.queue() == [(1, False)]
    later = make_puller(world, road, posts)  # a new life of the daemon: the inbox knows the peer
    later._backoff = Backoff(1.0, 60.0)
    assert longest_rest(world, later, road, posts) > 5.0


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
