"""What a peer refuses, garbles or says of what was never sent: nothing falsely settled, and nothing dies."""

import pytest
from support.lanes import KEY, SHOP, THERE, Node, Sender, ident

from dropr_core.errors import Refused
from dropr_core.model.names import Lane
from dropr_core.protocol.access import Access


def send(sender, *numbers, **fields):
    return [sender.send(number, **fields) for number in numbers]


def flags(node):
    return [job.possible_duplicate for _, job in node.entered]


def altered(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def attrs_like(struct, **fields):
    import msgspec

    return msgspec.structs.replace(struct, **fields)


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
