"""What it costs to look at a node: a picture is as cheap with a long backlog as with a short one."""

import apsw
import pytest

from budgets.counting import Functions, Statements
from budgets.operations import Bench, open_node
from dropr_core.monitor.gathering import take_snapshot

FEW, MANY = 10, 20_000
"""With 100,000 it is the same (23 statements, 386 steps); to fill in so many takes its time."""
STATEMENTS = {"sqlite": 23, "fs": 0}
"""SQL statements of one picture of a node with one peer: six reads and one for the peer, and what frames them."""


def cost(node, statements):
    """(SQL statements, steps of SQLite, calls of functions) of one picture."""
    for _ in range(2):  # what is only done once is done now
        take_snapshot(node.runtime)
    sql = statements.count(lambda: take_snapshot(node.runtime))
    functions = Functions().count(lambda: take_snapshot(node.runtime)).calls.total()
    return sql.calls.total(), sql.steps, functions


@pytest.fixture
def statements():
    """A counter of what connections do that are opened in the test."""
    counter = Statements()
    apsw.connection_hooks.append(counter.install)
    yield counter
    apsw.connection_hooks.remove(counter.install)


@pytest.mark.parametrize("storage", ["sqlite", "fs"])
def test_a_picture_costs_the_same_with_any_backlog(storage, tmp_path, statements):
    """The same statements, the same steps and calls, whether ten or twenty thousand wait on each side."""
    found = {}
    for count in (FEW, MANY):
        (tmp_path / str(count)).mkdir()
        bench = Bench(open_node(tmp_path / str(count), storage))
        try:
            for _ in range(max(1, count // 10_000)):
                bench.send_batch(min(count, 10_000))
                bench.fill(min(count, 10_000))
            seen = take_snapshot(bench.node.runtime)
            assert (seen.peers[0].waiting, seen.channels[0].ready) == (count, count)
            found[count] = cost(bench.node, statements)
        finally:
            bench.close()
    (few, many) = found.values()
    assert many[0] == few[0] <= STATEMENTS[storage]
    assert many[1] <= few[1] * 1.3 + 50
    assert many[2] <= few[2] * 1.3 + 100
