"""The lane protocol, fault by fault: a real pusher against a real endpoint, the network in the test's hand."""

import copy

import pytest
from support.lanes import KEY, SHOP, THERE, Fetcher, Node, Sender, ident, verb

from dropr_core.errors import Refused, Unanswered, Unreachable
from dropr_core.model.names import Lane
from dropr_core.protocol.endpoint import Access
from dropr_core.system.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def server(clock):
    return Node(THERE, SHOP, clock)


@pytest.fixture
def sender(clock, server):
    return Sender(clock, server)


def send(sender, *numbers, **fields):
    return [sender.send(number, **fields) for number in numbers]


def flags(node):
    return [job.possible_duplicate for _, job in node.entered]


def test_messages_enter_in_order_and_receipts_come_home(sender, server):
    """Without faults: each lane in its order, accepted, and processed once the receiver acknowledged."""
    ids = send(sender, 1, 2, 3, receipt=True)
    news = send(sender, 4, 5, channel="news")
    sender.flow(5)
    assert [i for i in server.ids if i in ids] == ids
    assert [i for i in server.ids if i in news] == news
    assert sender.state(1) == "accepted"
    assert sender.state(4) == ""
    server.consume()
    sender.flow(5)
    assert [sender.state(n) for n in (1, 2, 3)] == ["processed"] * 3


def test_fault_21_lost_answer_puts_nothing_in_twice(sender, server, clock):
    """The peer committed, its verdict is lost: its head settles the push and nothing is sent again."""
    ids = send(sender, 1, 2)
    push = sender.ship()
    push.arrive()
    push.lose()
    send(sender, 3)
    sender.flow(10, 10)
    assert server.ids == [*ids, ident(3)]
    assert flags(server) == [False] * 3
    assert not sender.told("peer_reset")


def test_fault_20_killed_daemon_begins_again_without_doubles(sender, server):
    """The daemon dies between push and answer; the next one finds out how far the peer came."""
    send(sender, 1, 2)
    sender.ship().arrive()
    sender.start()
    send(sender, 3)
    sender.flow(10, 10)
    assert server.ids == [ident(n) for n in (1, 2, 3)]


def test_fault_22_a_sender_killed_before_it_wrote_the_verdict_down_doubles_nothing(sender, server):
    """The verdict came home and the daemon dies before it is recorded: the next one is told the head, and goes on."""
    send(sender, 1)
    assert sender.ship().carry()
    assert sender.state(1) == "queued"
    sender.start()
    send(sender, 2)
    sender.flow(10, 10)
    assert server.ids == [ident(1), ident(2)]
    assert flags(server) == [False, False]


def test_fault_47_doubled_request_enters_once(sender, server):
    """The same bytes arriving twice, or once more much later, are one entry."""
    send(sender, 1)
    push = sender.ship()
    push.arrive()
    first = push.answer
    push.arrive()
    push.come_back(first)
    sender.flow(5)
    assert server.ids == [ident(1)]
    assert sender.state(1) == ""
    send(sender, 2)
    sender.flow(5)
    push.arrive()
    assert server.ids == [ident(1), ident(2)]


def test_fault_20_request_that_comes_late_enters_nothing_out_of_order(sender, server):
    """A push given up for lost arrives after its content went again, and after a later one."""
    send(sender, 1, 2)
    late = sender.ship()
    late.lose()
    sender.flow(5, 10)
    send(sender, 3)
    sender.flow(5)
    late.arrive()
    sender.flow(5)
    assert server.ids == [ident(n) for n in (1, 2, 3)]


def test_fault_20_late_request_before_the_retry_is_the_delivery(sender, server):
    """A push given up for lost arrives between the probe and the retry: the retry does not match."""
    send(sender, 1)
    late = sender.ship()
    late.lose()
    for _ in range(20):
        sender.clock.advance(10)
        for flight in sender.turn():
            if verb(flight) == "push":
                late.arrive()
            flight.carry()
    assert server.ids == [ident(1)]
    assert sender.outbox.lanes() == []


def test_fault_27_unreachable_peer_costs_nothing_but_time(sender, server):
    """Certain that nothing arrived: it can be cancelled at once, the rest goes when the peer is back."""
    send(sender, 1, 2)
    sender.ship().lose(Unreachable("connection refused"))
    sender.turn()
    assert sender.outbox.cancel(ident(1)) == (1, 0)
    sender.flow(10, 10)
    assert server.ids == [ident(2)]
    assert sender.told("peer_down") == sender.told("peer_up") == 1


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


def test_voids_of_cancelled_and_expired_leave_no_gap(sender, server, clock):
    """A batch skips what was cancelled or expired, at its edges and within, and the lane goes on."""
    for number in range(1, 8):
        send(sender, number, expires_in=5.0 if number in {3, 7} else None)
    for number in (1, 5):
        assert sender.outbox.cancel(ident(number)) == (1, 0)
    clock.advance(6)
    sender.outbox.sweep(1e9)
    sender.flow(5)
    send(sender, 8)
    sender.flow(5)
    assert server.ids == [ident(n) for n in (2, 4, 6, 8)]
    assert [sender.state(n) for n in (1, 3, 5, 7)] == ["cancelled", "expired", "cancelled", "expired"]


def test_fault_36_bad_envelope_fails_and_the_others_go_on(sender, server):
    """One envelope damaged at rest is rejected with its reason; its neighbours enter."""
    send(sender, 1, 2, 3)
    data = sender.outbox._data
    record = data.logs[Lane(THERE, "orders", 5)].items[2]
    record.message = record.message._replace(envelope=record.message.envelope[:-1] + b"?")
    sender.flow(5)
    assert server.ids == [ident(1), ident(3)]
    assert sender.state(2) == "failed"
    assert "bad_envelope" in sender.outbox.status(ident(2))[0].reason


def test_fault_50_full_receiver_says_later_and_takes_it_then(clock):
    """Nothing is dropped and nothing half stored; the lane goes on by itself when there is room."""
    server = Node(THERE, SHOP, clock, max_messages=2)
    sender = Sender(clock, server)
    send(sender, 1, 2)
    sender.flow(5)
    send(sender, 3, 4)
    sender.flow(10, 10)
    assert server.ids == [ident(1), ident(2)]
    assert sender.state(3) == "queued"
    server.consume()
    sender.flow(10, 10)
    assert server.ids == [ident(n) for n in (1, 2, 3, 4)]


def altered(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("garble", [altered, lambda data: data[:50], lambda _data: b"<html>hello</html>",
                                    lambda _data: b"", lambda data: data + b"x"])  # fmt: skip
def test_fault_31_an_answer_that_does_not_verify_settles_nothing(sender, server, garble):
    """Garbage, truncated or altered answers: unknown, asked again, entered once."""
    send(sender, 1)
    push = sender.ship()
    push.arrive()
    push.come_back(garble(push.answer))
    sender.turn()
    assert sender.state(1) == "queued"
    assert sender.outbox.cancel(ident(1)) == (0, 1)
    sender.flow(10, 10)
    assert server.ids == [ident(1)]
    assert sender.state(1) == ""


def test_fault_31_an_answer_to_another_request_settles_nothing(sender, server):
    """A recorded, well signed answer of an earlier push is no answer to this one."""
    send(sender, 1)
    old = sender.ship()
    old.carry()
    send(sender, 2)
    push = sender.ship()
    push.come_back(old.answer)
    sender.turn()
    assert sender.state(2) == "queued"
    sender.flow(10, 10)
    assert server.ids == [ident(1), ident(2)]


def test_fault_31_an_unsigned_refusal_costs_no_message(sender, server):
    """Somebody on the way says 413 or 400 again and again: nothing dies, the peer gets it later."""
    send(sender, 1)
    for _ in range(5):
        sender.ship().lose(Refused("too_big", "says a proxy"))
        sender.turn()
        sender.clock.advance(61)
    assert sender.state(1) == "queued"
    sender.flow(10, 10)
    assert server.ids == [ident(1)]


@pytest.mark.parametrize("spoil", ["more", "index", "head"])
def test_fault_33_verdicts_on_what_was_never_sent_are_ignored(sender, server, spoil):
    """Too many verdicts, an index beyond the batch, a head never reached: no message is settled by it."""
    send(sender, 1)
    push = sender.ship()
    original = server.endpoint._verbs["push"]

    def spoiled(request, this):
        pushed = original(request, this)
        word = pushed.verdicts[0]
        if spoil == "more":
            return attrs_like(pushed, verdicts=[word, word])
        if spoil == "index":
            return attrs_like(pushed, verdicts=[attrs_like(word, rejected=[(7, "no", "no"), (-1, "no", "no")])])
        return attrs_like(pushed, verdicts=[attrs_like(word, head=(9, ident(9)))])

    server.endpoint._verbs = {**server.endpoint._verbs, "push": spoiled}
    push.carry()
    server.restart()
    sender.flow(10, 10)
    assert sender.state(1) == ""
    assert set(server.ids) == {ident(1)}
    assert flags(server) in ([False], [False, True])


def attrs_like(struct, **fields):
    import msgspec

    return msgspec.structs.replace(struct, **fields)


def test_fault_37_wrong_key_is_refused_and_nothing_dies(clock, server):
    """No message dies of a key that does not fit, and all goes on once a person has put it right."""
    sender = Sender(clock, server, keys=(b"x" * 32,))
    send(sender, 1)
    sender.flow(20, 61)
    assert sender.state(1) == "queued"
    assert server.ids == []
    assert "bad_signature" in sender.pusher.link.down_reason
    assert server.told("refused_caller") > 0
    sender.keys = (KEY,)
    sender.start()
    sender.flow(5)
    assert server.ids == [ident(1)]


def test_fault_37_rotation_finds_the_key_that_the_peer_knows(clock, server):
    """With two keys on one side during a rotation the one that the peer has is found."""
    sender = Sender(clock, server, keys=(b"new" * 10, KEY))
    send(sender, 1)
    sender.flow(5, 61)
    assert server.ids == [ident(1)]


def test_channel_that_is_not_allowed_fails_with_its_reason(sender, server):
    """The peer may not write there: failed and said why; the allowed lane goes on."""
    server.access[SHOP] = Access((KEY,), may_write=("orders",))
    send(sender, 1, channel="news")
    send(sender, 2)
    sender.flow(5)
    assert server.ids == [ident(2)]
    assert sender.state(1) == "failed"
    assert "not_allowed" in sender.outbox.status(ident(1))[0].reason


def test_new_session_after_the_server_began_anew(sender, server):
    """A restarted server knows no session: one hello more, no rest, nothing lost, no alarm."""
    send(sender, 1)
    sender.flow(5)
    server.restart()
    send(sender, 2)
    sender.flow(5)
    assert server.ids == [ident(1), ident(2)]
    assert sender.told("peer_down") == 0


def test_fault_89_recorded_push_is_refused_after_a_restart_of_the_server(sender, server):
    """What was recorded in an old session is refused in a new one."""
    send(sender, 1)
    push = sender.ship()
    push.carry()
    server.wipe()
    push.arrive()
    assert server.ids == [ident(1)]


# ── mode: pull ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def fetcher(clock):
    sender = Sender(clock, None)
    return Fetcher(clock, sender), sender


def test_fetched_mail_arrives_and_receipts_come_home(fetcher):
    """A node that cannot be reached fetches its mail in order and brings the receipts."""
    node, sender = fetcher
    ids = send(sender, 1, 2, 3, receipt=True)
    node.flow()
    assert node.ids == ids
    assert sender.state(1) == "accepted"
    node.consume()
    node.flow()
    assert [sender.state(n) for n in (1, 2, 3)] == ["processed"] * 3
    send(sender, 4)
    node.flow()
    assert node.ids == [*ids, ident(4)]


def test_fault_21_fetched_mail_enters_once_though_answers_are_lost(fetcher, clock):
    """The answer with the mail is lost, and once more after the fetcher's restart: nothing enters twice."""
    node, sender = fetcher
    send(sender, 1, 2)
    for turn in range(12):
        for flight in node.turn():
            flight.arrive()
            if turn % 3 == 0:
                flight.lose()
            else:
                flight.come_back()
        clock.advance(61)
    send(sender, 3)
    node.flow()
    assert node.ids == [ident(n) for n in (1, 2, 3)]
    assert sender.outbox.lanes() == []


def test_fault_53_wiped_fetcher_gets_again_what_is_kept(clock, fetcher):
    """Its heads are gone: what asked for a receipt comes again, flagged."""
    node, sender = fetcher
    send(sender, 1, receipt=True)
    node.flow()
    anew = Fetcher(clock, sender)
    send(sender, 2)
    anew.flow()
    assert anew.ids == [ident(1), ident(2)]
    assert flags(anew) == [True, False]


def test_new_session_of_a_fetcher_after_the_other_began_anew(fetcher):
    """The node fetched from restarts: the fetcher says hello again and misses nothing."""
    node, sender = fetcher
    send(sender, 1)
    node.flow()
    sender.restart()
    for flight in node.wires.open:
        flight.held = None
        flight.lose(Unanswered("connection reset"))
    node.turn()
    node.clock.advance(61)
    send(sender, 2)
    node.flow()
    assert node.ids == [ident(1), ident(2)]
