"""What each operation costs now, for one message: everything that is counted, in one shape.

Owns `Cost` and how it is taken. Must not know what it should be.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import attrs

from budgets.counting import SYNCS, Functions, Statements, peak_of, system_calls
from budgets.operations import OPERATIONS, Bench, open_node

BATCHES = frozenset({"send batch", "ship", "accept", "receive batch"})
"""Operations whose memory grows with the messages; of the others it is that of the node."""


@attrs.frozen
class Cost:
    """What one message costs; the details are what an error shows."""

    functions: float
    """Calls of functions, those of C among them."""
    statements: float
    """SQL statements."""
    steps: float
    """Instructions of SQLite's virtual machine."""
    peak: float | None
    """Bytes of Python's memory at most; None where it does not grow with the messages."""
    system: Mapping[str, float] | None = None
    """System calls that touch files and sockets, by name; None where nothing can trace."""
    details: Mapping[str, Counter[str]] = attrs.field(factory=dict, eq=False, repr=False)

    @property
    def syncs(self) -> float:
        """System calls that wait for the disk."""
        return sum((self.system or {}).get(name, 0.0) for name in SYNCS)


def measure(directory: Path, storage: str) -> dict[str, Cost]:
    """Every operation; system calls only where something can trace."""
    import apsw

    statements, found = Statements(), {}
    inside = directory / "inside"
    inside.mkdir()
    apsw.connection_hooks.append(statements.install)
    try:
        bench = Bench(open_node(inside, storage))
        try:
            for name in OPERATIONS:
                found[name] = _measure(bench, name, statements)
        finally:
            bench.close()
    finally:
        apsw.connection_hooks.remove(statements.install)
    traced = system_calls(directory, storage)
    if traced is None:
        return found
    return {
        name: attrs.evolve(cost, system={call: number / OPERATIONS[name].count for call, number in calls.items()})
        for name, cost, calls in ((name, cost, traced[name]) for name, cost in found.items())
    }


def _measure(bench: Bench, name: str, statements: Statements) -> Cost:
    operation = OPERATIONS[name]
    count = operation.count

    def act() -> None:
        operation.act(bench, count)

    for _ in range(2):  # what is only done once is done now
        operation.ready(bench, count)
        act()
    operation.ready(bench, count)
    sql = statements.count(act)
    texts, steps = Counter(sql.calls), sql.steps
    operation.ready(bench, count)
    functions = Functions().count(act).calls
    peak = None
    if name in BATCHES:
        operation.ready(bench, count)
        peak = peak_of(act) / count
    return Cost(
        functions.total() / count, texts.total() / count, steps / count, peak,
        details={"functions": functions, "statements": texts},
    )  # fmt: skip
