"""Two nodes whose network lies in the hand of the test (support/lanes.py)."""

import pytest
from support.lanes import SHOP, THERE, Fetcher, Node, Sender

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


@pytest.fixture
def fetcher(clock):
    sender = Sender(clock, None)
    return Fetcher(clock, sender), sender
