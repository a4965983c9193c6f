"""The configuration is read again while requests are under way: what is not allowed any more is not answered."""

import pytest
from support.lanes import SHOP, THERE, Fetcher, Node, Sender, ident

from dropr_core.protocol.access import Access
from dropr_core.system.clock import FakeClock


@pytest.mark.parametrize("access", [{}, {THERE: Access((b"another key",))}])
def test_a_long_poll_of_a_peer_that_was_removed_or_got_another_key_gets_no_message(access):
    """It was let in with the old configuration and waits: the message that comes then is not for it."""
    clock = FakeClock()
    sender = Sender(clock, None)
    node = Fetcher(clock, sender)
    for _ in range(5):
        for flight in node.turn():
            flight.carry()
    (poll,) = [flight for flight in node.wires.open if flight.held]
    sender.endpoint.access = access
    sender.send(1)
    assert poll.arrive()
    assert poll.answer.code == "unknown_peer"
    poll.come_back()
    node.flow()
    assert node.ids == []
    assert sender.state(1) == "queued"


def test_a_push_of_a_peer_that_was_removed_between_its_admission_and_its_answer_is_refused():
    """No internal error, and nothing is taken in."""
    clock = FakeClock()
    server = Node(THERE, SHOP, clock)
    sender = Sender(clock, server)
    sender.send(1)
    push = sender.ship()
    request = server.endpoint.open(push.frame, None)
    allows = server.endpoint._allows
    server.endpoint.access = {}
    assert not allows(SHOP, "orders")
    with pytest.raises(Exception, match="unknown_peer"):
        server.endpoint.answer(request)
    assert server.ids == []
    assert ident(1) not in server.ids
