"""Nodes with a door for Gearman, and gearmand beside them."""

import contextlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # gearman_peer, gearman_scenes


@pytest.fixture
def road(tmp_path):
    """Nodes in a directory of this test; what still runs at its end is killed."""
    from support.nodes import Road

    road = Road(tmp_path)
    with contextlib.closing(road):
        yield road


@pytest.fixture
def shop(road):
    """A node on its own, its gateway running."""
    from gearman_nodes import build, start

    (place,) = build(road, "shop")
    start(place)
    return place
