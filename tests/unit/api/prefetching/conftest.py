"""A node whose channels may be held ahead in several ways, in each storage that has lease sheets."""

import pytest

from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping

CHANNELS = {"orders": {}, "kept": {"retention": "1h"}, "single": {"prefetch": 1}, "few": {"prefetch": 3},
            "brittle": {"attempts": 2}}  # fmt: skip


@pytest.fixture(params=["sqlite", "fs"])
def open_node(request, tmp_path):
    """Opens the node anew, as another process would."""
    mapping = {"node": "ware", "data": str(tmp_path / "data"), "storage": request.param, "limits": {"min_free": 0},
               "channels": CHANNELS}  # fmt: skip
    opened = []

    def open_it():
        opened.append(Node(Runtime.open(from_mapping(mapping, tmp_path))))
        return opened[-1]

    yield open_it
    for node in opened:
        node.close()


@pytest.fixture
def node(open_node):
    """An open node with lease sheets; nothing is settled by time alone."""
    opened = open_node()
    opened.runtime.settler.mark = lambda: None
    return opened
