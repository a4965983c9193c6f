"""A peer that fetches its mail: the same faults in the other direction."""

from support.lanes import Fetcher, ident

from dropr_core.errors import Unanswered


def send(sender, *numbers, **fields):
    return [sender.send(number, **fields) for number in numbers]


def flags(node):
    return [job.possible_duplicate for _, job in node.entered]


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
