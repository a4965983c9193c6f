"""Requests and answers that are lost, doubled or late, and processes that die between them: nothing twice, in order."""

from support.lanes import ident, verb

from dropr_core.errors import Unreachable


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
