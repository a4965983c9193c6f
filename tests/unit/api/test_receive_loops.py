"""Loops that receive: what they hold open, what they skip, how they end."""

import contextlib
import os
from pathlib import Path

import pytest

from dropr_core.api.consumer import Consumer
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Job, Selection
from dropr_core.model.message import State
from dropr_core.model.names import MessageId


@pytest.fixture(params=["memory"])
def node(request, tmp_path):
    channels = {f"c{number}": {} for number in range(100)} | {"kept": {"retention": "1h"}}
    mapping = {"node": "ware", "data": str(tmp_path / "data"), "storage": request.param, "limits": {"min_free": 0},
               "channels": channels}  # fmt: skip
    with Node(Runtime.open(from_mapping(mapping, tmp_path))) as opened:
        yield opened


def descriptors():
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_damaged_messages_hide_no_sound_one(node, caplog):
    """However many damaged ones stand first, a drain finds what is sound behind them, and each is buried and named."""
    ids = [MessageId(os.urandom(16)) for _ in range(5)]
    for identity in ids:
        node.inbox.put("c0", 5, "ware", [Job(identity, b"\0" * 50)])
    sound = node.put(b"sound", channel="c0")
    assert [(message.id, message.body) for message in node.receive("c0", wait=0)] == [(sound, b"sound")]
    assert {job.id for job in node.inbox.scan(Selection()) if job.state is State.BURIED} == set(ids)
    assert caplog.text.count("is damaged at rest and buried") == 5


def test_a_loop_that_never_begins_leaves_nothing(node):
    """`receive` alone registers no consumer and opens nothing: that comes with the first message asked for."""
    before = descriptors()
    loop = node.receive("c0")
    assert descriptors() == before
    loop.close()
    assert descriptors() == before


def test_a_loop_that_ends_after_its_node_is_quiet(node):
    """The node was closed first: its leases have ended with it, and closing the loop is no error."""
    node.put(b"x", channel="c0")
    loop = node.receive("c0")
    next(loop)
    node.close()
    loop.close()


@pytest.mark.parametrize("node", ["memory", "sqlite", "fs"], indirect=True)
def test_a_hundred_channels_and_sixteen_consumers_live_within_the_usual_limit(node):
    """Descriptors go by channels and by threads, not by both multiplied: far below the usual 1,024."""
    channels = [f"c{number}" for number in range(100)]
    before = descriptors()
    with contextlib.ExitStack() as stack:
        consumers = [stack.enter_context(contextlib.closing(Consumer(node.runtime, channels))) for _ in range(16)]
        for consumer in consumers:
            consumer.prepare()
            consumer.claim()
        assert descriptors() - before <= 100 + 3 * 16
