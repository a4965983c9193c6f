"""Nothing of the everyday path becomes dearer unnoticed, on a busy machine as on a quiet one: costs are counted."""

import os
import sys
from collections import Counter

import attrs
import pytest

from budgets.counting import Functions, Statements, read_trace
from budgets.measuring import Cost, measure
from budgets.operations import Bench, open_node
from budgets.table import TABLE

FORGIVEN = {"functions": 1.2, "statements": 1.1, "steps": 1.25, "peak": 1.4}
"""How much more than recorded is forgiven: other versions of Python and SQLite count a little differently."""
CALLS = 1.1
ONCE = 0.06 if sys.version_info[:2] == (3, 11) else 0.5
"""What may come on top for each message: looks that are due now and then. The table was recorded with Python 3.11; what
is done once for a batch calls more functions with others (pathlib, above all).
"""


def overruns(name, cost, budget):
    """A sentence for each number that is above its budget, with what there is most of."""
    out = []
    for what, more in FORGIVEN.items():
        now, then = getattr(cost, what), getattr(budget, what)
        if then is not None and now > then * more + ONCE:
            out.append(f"{name}: {what} went up from {then:g} to {now:g} a message{shown(what, cost)}")
    if cost.system is None:
        return out
    for call in sorted({*cost.system, *budget.system}):
        now, then = cost.system.get(call, 0.0), budget.system.get(call, 0.0)
        if now > then * CALLS + ONCE:
            out.append(f"{name}: system call {call} went up from {then:g} to {now:g} a message")
    if cost.syncs > budget.syncs * 1.001 + 0.0005:
        out.append(f"{name}: waiting for the disk went up from {budget.syncs:g} to {cost.syncs:g} a message")
    return out


def shown(what, cost):
    """The most frequent ones."""
    count = cost.details.get("statements" if what == "steps" else what)
    return "".join(f"\n    {number:7d} × {text}" for text, number in count.most_common(12)) if count else ""


@pytest.mark.parametrize("storage", ["sqlite", "fs"])
def test_nothing_costs_more_than_its_budget(storage, tmp_path):
    """Calls of functions, SQL, memory, system calls and syncs of each operation are within what was recorded."""
    found = measure(tmp_path, storage)
    assert found.keys() == TABLE[storage].keys()
    said = [text for name, cost in found.items() for text in overruns(name, cost, TABLE[storage][name])]
    assert not said, "\n".join([*said, "If it must be so: PYTHONPATH=tests python -m budgets.record, and say why."])
    traced = found["send"].system
    assert traced is None or traced["fdatasync"] == 1.0, "a send is one flush, no more and no less"


# ── the guard itself ─────────────────────────────────────────────────────────────────────────────

BUDGET = Cost(100.0, 3.0, 50.0, 500.0, {"fdatasync": 0.001, "pwrite64": 1.0})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"functions": 130.0}, "functions went up from 100 to 130"),
        ({"statements": 4.0}, "statements went up from 3 to 4"),
        ({"steps": 70.0}, "steps went up from 50 to 70"),
        ({"peak": 800.0}, "peak went up from 500 to 800"),
        ({"system": {"fdatasync": 0.002, "pwrite64": 1.0}}, "waiting for the disk went up from 0.001 to 0.002"),
        ({"system": {"fdatasync": 0.001, "pwrite64": 2.0}}, "system call pwrite64 went up from 1 to 2"),
        ({"system": {"fdatasync": 0.001, "pwrite64": 1.0, "openat": 1.0}}, "system call openat went up from 0 to 1"),
    ],
)
def test_each_kind_of_cost_is_guarded(change, says):
    """One more sync for a batch, one more call for a message, a worse plan: each is found and named."""
    assert overruns("send", BUDGET, BUDGET) == []
    (said, *_) = overruns("send", attrs.evolve(BUDGET, **change), BUDGET)
    assert says in said


def test_what_there_is_most_of_is_shown():
    """The error names the functions or statements, so that one need not look for them."""
    cost = attrs.evolve(BUDGET, functions=130.0, details={"functions": Counter({"sender.py:Sender.store": 12000})})
    (said,) = overruns("send", cost, BUDGET)
    assert "12000 × sender.py:Sender.store" in said


def test_functions_are_counted_by_name():
    """A function that is called once more for each message is seen, and so is one of C."""

    def more():
        return len(os.sep)

    calls = Functions().count(lambda: [more() for _ in range(7)]).calls
    assert calls["len (C)"] == 7
    assert sum(number for name, number in calls.items() if name.endswith("more")) == 7


def test_statements_are_counted_with_their_work():
    """A statement that reads a thousand rows more takes more steps, though it is one statement."""
    import apsw

    statements, connection = Statements(), apsw.Connection(":memory:")
    statements.install(connection)
    connection.execute("CREATE TABLE t(a)")
    connection.executemany("INSERT INTO t VALUES(?)", [(number,) for number in range(1000)])
    few = statements.count(lambda: connection.execute("SELECT 1").fetchall()).steps
    many = statements.count(lambda: connection.execute("SELECT count(*) FROM t WHERE a > 5").fetchall())
    assert many.steps > few + 1000
    assert many.calls == Counter({"SELECT count(*) FROM t WHERE a > 5": 1})
    connection.close()


def test_a_trace_is_read_between_its_marks():
    """Calls count for the operation that they belong to; locks between threads and memory count for none."""
    text = """12 openat(AT_FDCWD, "/before") = 3
12 stat("/mark/begin/send", 0x7ffe) = -1 ENOENT
12 pwrite64(4, "x", 1, 0) = 1
13 futex(0x7f, FUTEX_WAIT_PRIVATE, 0, NULL <unfinished ...>
12 fdatasync(4) = 0
12 newfstatat(AT_FDCWD, "/mark/end/send", 0x7ffe, 0) = -1 ENOENT
12 close(4) = 0
"""
    assert read_trace(text) == {"send": Counter({"pwrite64": 1, "fdatasync": 1})}


def test_the_idle_daemon_rests(tmp_path):
    """After a few turns a daemon with nothing to do is not due again within a second."""
    bench = Bench(open_node(tmp_path, "sqlite"))
    try:
        bench.settle_down(0)  # raises if it finds no rest
    finally:
        bench.close()
