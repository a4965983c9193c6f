"""Writes tests/budgets/table.py from what the operations cost now: ``PYTHONPATH=tests python -m budgets.record``.

Owns the form of that file. Whoever records says in the commit why something costs more than before.
"""

import sys
import tempfile
from pathlib import Path

from budgets.measuring import Cost, measure

HEAD = '''"""What each operation may cost, for one message (or one turn of the idle daemon). Recorded, not written:

    PYTHONPATH=tests python -m budgets.record

Owns the numbers. How much more is forgiven stands in test_budgets.py.
"""

from budgets.measuring import Cost

TABLE = {
'''


def main() -> None:
    """Measure both storages and write the file."""
    lines = [HEAD]
    for storage in ("sqlite", "fs"):
        lines.append(f'    "{storage}": {{\n')
        with tempfile.TemporaryDirectory() as directory:
            for name, cost in measure(Path(directory), storage).items():
                if cost.system is None:
                    sys.exit("nothing can trace here: strace is needed to record")
                lines.append(f'        "{name}": {_text(cost)},\n')
        lines.append("    },\n")
    lines.append("}  # fmt: skip\n")
    Path(__file__).with_name("table.py").write_text("".join(lines), encoding="utf-8")


def _text(cost: Cost) -> str:
    peak = None if cost.peak is None else round(cost.peak)
    calls = [f'"{name}": {_short(number)}' for name, number in sorted((cost.system or {}).items())]
    rows = [", ".join(calls[place : place + 4]) for place in range(0, len(calls), 4)]
    system = ",\n                ".join(rows)
    return (
        f"Cost(\n            functions={_short(cost.functions)}, statements={_short(cost.statements)}, "
        f"steps={_short(cost.steps)}, peak={peak},\n            system={{\n                {system},\n            }},\n"
        "        )"
    )


def _short(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    main()
