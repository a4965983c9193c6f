"""A link that has greeted its peer."""

import random

import pytest
from unit.protocol.link_rig import WELCOME, ask, stats

from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.protocol.orders import (
    Greet,
)


@pytest.fixture
def link():
    fresh = Link("peer", LinkSettings(), random.Random(1))
    assert ask(fresh, 0.0, [stats()], awaiting=False) == [Greet()]
    fresh.greeted(WELCOME)
    return fresh
