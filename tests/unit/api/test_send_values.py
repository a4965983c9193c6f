"""Values that `send`, `put` and batches are given: one of no use is a UsageError, and nothing is stored."""

import pytest
from support.one_node import open_node

from dropr_core.contracts.storage import Selection
from dropr_core.errors import UsageError
from dropr_core.model.message import State


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path) as node:
        yield node


WRONG = {
    "to": [5, [5], b"rome", {"rome": 1}, ["rome", None], [["rome"]], object()],
    "channel": [5, b"x", ["a"], {}, "", "no spaces"],
    "priority": ["3", 3.0, True, [1], 10, -1],
    "delay": ["x", object(), [1], b"1s", True, float("inf")],
    "expires_in": ["x", object(), float("nan"), -1, 0],
    "headers": [5, [("a", "b")], {"a": 1}, {1: "a"}, "ab", b"x", {"a": "\ud800"}],
    "key": [5, b"k", "", ["k"], "\ud800"],
    "id": [5, "zz", b"x", [1]],
    "dedup_key": [5, b"x", ["a"], "\ud800", ""],
    "receipt": ["yes", 1, [], {}],
    "content_type": [5, b"x", "", ["a"], "x" * 300, "text/plain\n"],
    "timeout": ["x", object(), -1],
    "progress": [5],
}
PUT = {"channel", "priority", "delay", "expires_in", "headers", "key"}
BATCH = WRONG.keys() - {"timeout", "progress"}
CASES = [(name, value) for name, values in WRONG.items() for value in values]
NAMES = [f"{name}-{'object()' if type(value) is object else repr(value):.30}" for name, value in CASES]
"""Without the address of an object: another in each process."""


@pytest.mark.parametrize(("name", "value"), CASES, ids=NAMES)
def test_a_value_of_no_use_is_refused_by_every_verb(node, name, value):
    """The error is for the caller, at the call; the message of the batch beside it is not stored either."""
    with pytest.raises(UsageError):
        node.send(b"x", **{"to": "rome", name: value})
    if name in PUT:
        with pytest.raises(UsageError):
            node.put(b"x", **{name: value})
    if name in BATCH:
        with pytest.raises(UsageError), node.batch() as batch:
            batch.send(b"fine", to="berlin")
            batch.send(b"x", **{"to": "rome", name: value})
    assert node.outbox.lanes() == []
    assert node.inbox.scan(Selection()) == []


@pytest.mark.parametrize("name", sorted(BATCH - {"to"}))
def test_none_means_as_the_channel_says(node, name):
    """An option that is None is the same as one that was not given."""
    assert node.send(b"x", **{"to": "rome", name: None}).state is State.QUEUED


def test_a_batch_refuses_a_wrong_timeout_before_anything_is_composed(node):
    """At its making, and not when the block is left."""
    with pytest.raises(UsageError, match="timeout"):
        node.batch(timeout="soon")


@pytest.mark.parametrize("timeout", ["soon", -1, float("nan"), object()])
def test_waiting_takes_durations_and_nothing_else(node, timeout):
    """`wait` is given a duration as every other verb."""
    sent = node.send(b"x", to="rome")
    with pytest.raises(UsageError, match="timeout"):
        sent.wait(timeout)
    with pytest.raises(TimeoutError, match=r"is queued after 0\.001 s"):
        sent.wait("1ms")
