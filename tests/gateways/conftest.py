"""What the tests of gateways are given. A missing client skips with the reason, or fails in CI: `support.clients`."""

import pytest
from support.nodes import Road


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()
