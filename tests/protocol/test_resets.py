"""Stores that were wiped, restored, rolled back or cloned on either side: noticed, and nothing new is lost."""

import copy

import pytest
from support.lanes import THERE, Sender, ident

from dropr_core.protocol import outside
from dropr_core.protocol.outside import OutsideSearch


def send(sender, *numbers, **fields):
    return [sender.send(number, **fields) for number in numbers]


def flags(node):
    return [job.possible_duplicate for _, job in node.entered]


def test_fault_53_wiped_receiver_gets_again_what_is_kept(sender, server):
    """Everything not yet processed that asked for a receipt is sent again, flagged, and said in an event."""
    send(sender, 1, 2, receipt=True)
    send(sender, 3)
    sender.flow(5)
    server.wipe()
    send(sender, 4)
    sender.flow(10, 10)
    assert [job.id for _, job in server.lives[1]] == [ident(1), ident(2), ident(4)]
    assert [job.possible_duplicate for _, job in server.lives[1]] == [True, True, False]
    assert sender.told("peer_reset") == 1
    server.consume()
    sender.flow(10, 10)
    assert sender.state(1) == sender.state(2) == "processed"


def test_fault_53_wiped_receiver_is_noticed_though_nothing_is_to_be_sent(sender, server):
    """A sender that only waits for receipts sees the new outcome log, and sends again what it keeps."""
    send(sender, 1, 2, receipt=True)
    sender.flow(5)
    server.wipe()
    sender.flow(20, 20)
    assert [job.id for _, job in server.lives[1]] == [ident(1), ident(2)]
    assert all(job.possible_duplicate for _, job in server.lives[1])
    server.consume()
    sender.flow(20, 20)
    assert sender.state(1) == sender.state(2) == "processed"


def test_fault_53_on_reset_hold_waits_for_a_person(clock, server):
    """With on_peer_reset: hold nothing goes to a receiver that lost messages until it is released."""
    sender = Sender(clock, server, on_reset="hold")
    send(sender, 1, receipt=True)
    sender.flow(5)
    server.wipe()
    send(sender, 2)
    sender.flow(10, 10)
    assert server.lives[1] == []
    assert sender.outbox.peers()[THERE].held


def test_fault_54_restored_receiver_gets_again_what_it_lost(sender, server):
    """Behind the head of its backup nothing is sent again; what came after it is, flagged."""
    send(sender, 1, receipt=True)
    sender.flow(5)
    backup = copy.deepcopy(server.data)
    send(sender, 2, 3, receipt=True)
    sender.flow(5)
    server.restore(backup)
    send(sender, 4)
    sender.flow(20, 20)
    assert [job.id for _, job in server.lives[1]] == [ident(2), ident(3), ident(4)]
    assert [job.possible_duplicate for _, job in server.lives[1]] == [True, True, False]
    assert server.consume() == [ident(n) for n in (1, 2, 3, 4)]
    sender.flow(20, 20)
    assert [sender.state(n) for n in (1, 2, 3)] == ["processed"] * 3


def test_fault_62_rolled_back_sender_loses_nothing_new(clock, server, sender):
    """A sender restored from a snapshot finds a head that it cannot know, and takes a new identity."""
    send(sender, 1)
    snapshot = sender.image()
    send(sender, 2, 3)
    sender.flow(5)
    again = Sender(clock, server, snapshot)
    send(again, 4)
    again.flow(10, 10)
    assert again.told("rolled_back") == 1
    assert server.ids == [ident(n) for n in (1, 2, 3, 1, 4)]
    assert flags(server) == [False, False, False, True, True]
    assert again.outbox.store_id != sender.outbox.store_id


def test_fault_62_roll_back_that_changes_nothing_is_no_roll_back(clock, server, sender):
    """A snapshot whose messages the receiver took, and nothing after them: settled, not doubled."""
    send(sender, 1, 2)
    snapshot = sender.image()
    sender.flow(5)
    again = Sender(clock, server, snapshot)
    send(again, 3)
    again.flow(10, 10)
    assert server.ids == [ident(1), ident(2), ident(3)]
    assert again.told("rolled_back") == 0


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("came", [False, True])
def test_fault_53_also_after_the_sender_was_rolled_back(clock, server, sender, came, restarted):
    """What was accepted before the sender took new numbers is in no lane: the peer's new store tells that it is lost.

    Whether a receipt had come home before or not, and though the sender's daemon is another one by then.
    """
    send(sender, 1, receipt=True)
    send(sender, 2, channel="news")
    snapshot = sender.image()
    send(sender, 3, channel="news")
    sender.flow(5)
    again = Sender(clock, server, snapshot)
    send(again, 4, channel="news", receipt=came)
    again.flow(10, 10)
    assert again.told("rolled_back") == 1
    if came:
        server.consume(channels=("news",))
        again.flow(10, 10)
        assert again.state(4) == "processed"
    server.wipe()
    if restarted:
        for flight in again.wires.flights:
            flight.lose()
        again.start()
    again.flow(20, 20)
    assert [(job.id, job.possible_duplicate) for _, job in server.lives[-1]] == [(ident(1), True)]
    assert again.told("peer_reset") == 1
    server.consume()
    again.flow(20, 20)
    assert again.state(1) == "processed"


def test_what_is_in_no_lane_is_looked_for_a_page_at_a_time(clock, server, sender, monkeypatch):
    """However much waits there, the daemon's turn looks at one page of it, and new messages go meanwhile."""
    monkeypatch.setattr(outside, "PAGE", 2)
    send(sender, *range(1, 8), receipt=True)
    sender.flow(5)
    sender.outbox.renumber()
    server.wipe()
    send(sender, 8, channel="news")
    step, steps, came = OutsideSearch._step, [], []
    monkeypatch.setattr(OutsideSearch, "_step", lambda search: (steps.append(None), step(search))[1])
    for _ in range(20):
        before = len(steps)
        sender.flow(1, 10)
        assert len(steps) - before <= 2  # an answer that came, and the turn itself
        came.append((len(steps), ident(8) in server.ids))
    assert len(steps) >= 4
    assert any(there and at < len(steps) for at, there in came)
    assert sorted(job.id for _, job in server.lives[-1] if job.possible_duplicate) == [ident(n) for n in range(1, 8)]
    assert [details["again"] for name, details in sender.events if name == "peer_reset"] == [7]
    server.consume()
    sender.flow(20, 20)
    assert {sender.state(n) for n in range(1, 8)} == {"processed"}


def test_fault_53_on_reset_hold_holds_also_for_what_is_in_no_lane(clock, server):
    """A person decides; and what is asked for is still there."""
    sender = Sender(clock, server, on_reset="hold")
    send(sender, 1, receipt=True)
    sender.flow(5)
    sender.outbox.renumber()
    server.wipe()
    sender.flow(20, 20)
    assert server.lives[-1] == []
    assert sender.outbox.peers()[THERE].held
    assert sender.state(1) == "accepted"


@pytest.mark.parametrize("before", [0, 2])
def test_fault_61_cloned_senders_both_go_on(clock, server, sender, before):
    """Two machines with one store: each of their messages arrives, and one of the two is renamed."""
    send(sender, *range(1, before + 1))
    sender.flow(5)
    clone = Sender(clock, server, sender.image(), seed=2)
    for number in range(10, 16):
        send(sender, number)
        send(clone, number + 10)
        sender.flow(3, 10)
        clone.flow(3, 10)
    sender.flow(5, 10)
    clone.flow(5, 10)
    for numbers in (range(10, 16), range(20, 26)):
        ids = [ident(n) for n in numbers]
        assert [i for i in server.ids if i in ids] == ids
    assert sender.told("rolled_back") + clone.told("rolled_back") == 1
    assert len(server.ids) == before + 12


def test_fault_61_clones_at_the_same_number_are_told_apart_by_id(clock, server, sender):
    """Two clones each settled a number one of one lane, with a wipe between: the third message finds out."""
    clone = Sender(clock, server, sender.image(), seed=2)
    clone.outbox._data.store_id = sender.outbox.store_id
    send(sender, 1)
    sender.flow(5)
    server.wipe()
    send(clone, 2)
    clone.flow(5, 10)
    send(sender, 3)
    sender.flow(10, 10)
    assert server.ids == [ident(1), ident(2), ident(3)]
    assert sender.told("rolled_back") == 1
