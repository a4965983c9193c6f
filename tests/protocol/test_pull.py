"""A peer that fetches and has lost what it had: noticed at its next greeting, not at the next message."""

import pytest
from support.lanes import Fetcher, Sender, ident

from dropr_core.protocol import outside
from dropr_core.system.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def fetcher(clock):
    sender = Sender(clock, None)
    return Fetcher(clock, sender), sender


def test_fault_53_a_wiped_fetcher_that_only_owes_receipts_is_noticed_when_it_greets(clock, fetcher):
    """Nothing new is sent: what awaits its receipt comes again, flagged, as soon as the wiped node fetches."""
    node, sender = fetcher
    for number in (1, 2):
        sender.send(number, receipt=True)
    node.flow()
    assert node.ids == [ident(1), ident(2)]
    anew = Fetcher(clock, sender)
    anew.flow()
    assert anew.ids == [ident(1), ident(2)]
    assert [job.possible_duplicate for _, job in anew.entered] == [True, True]
    anew.consume()
    anew.flow()
    assert [sender.state(n) for n in (1, 2)] == ["processed"] * 2


@pytest.mark.parametrize("page", [1, 1000])
def test_fault_53_a_wiped_fetcher_is_noticed_also_for_what_is_in_no_lane(clock, fetcher, monkeypatch, page):
    """Accepted before the sender took new numbers: receipts of another store tell that it is lost, in however many
    requests it is looked for."""
    monkeypatch.setattr(outside, "PAGE", page)
    node, sender = fetcher
    sender.send(1, "news", receipt=True)
    node.flow()
    node.consume()
    node.flow()
    sender.send(2, receipt=True)
    node.flow()
    sender.outbox.renumber()
    anew = Fetcher(clock, sender)
    sender.send(3, "news", receipt=True)
    anew.flow()
    anew.consume(channels=("news",))
    anew.flow()
    assert anew.ids == [ident(3), ident(2)]
    anew.consume()
    anew.flow()
    assert [sender.state(n) for n in (1, 2, 3)] == ["processed"] * 3


def test_a_fetcher_that_only_restarts_gets_nothing_again(clock, fetcher):
    """A new session over the same store: its heads say that nothing is missing."""
    node, sender = fetcher
    for number in (1, 2):
        sender.send(number, receipt=True)
    node.flow()
    node.puller._talk.session = b""
    node.flow()
    assert node.ids == [ident(1), ident(2)]
    assert sender.state(1) == "accepted"
