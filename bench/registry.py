"""The one list of all figures.

Owns finding them: each file of `bench/figures/` has ``FIGURES``, a tuple of `Figure`. Numbers that no file has are
listed all the same, by what is said of them here. Must not take any.
"""

import importlib
import pkgutil
import re

import bench.figures
from bench.figure import Figure

ELSEWHERE = (
    Figure("P7", "nats", "end to end ÷ NATS leaf → hub in the same run: durable / its default", "≥ 30 / ≥ 2", "55 / 4",
           "needs the programs of NATS, which are not part of this repository", None),
    Figure("P8", "rabbitmq", "end to end ÷ RabbitMQ shovel in the same run (its best client mode)", "≥ 6", "10",
           "needs RabbitMQ, which is not part of this repository", None),
    Figure("P10", "backlog", "send, ship, receive with 10,000,000 waiting ÷ with 10,000", "≥ 0.9; ≤ 150 MB", "1.0",
           "not taken by this bench yet", None),
    Figure("P11", "bad-peers", "100 peers, one dead, one slow: p99 of the others ÷ without the two", "≤ 1.1", "1.0",
           "not taken by this bench yet", None),
    Figure("P12", "send-roads", "`send` p99 with peers up ÷ black-holed ÷ refusing ÷ without DNS", "within 5 %", "",
           "not taken by this bench yet", None),
    Figure("P15", "recovery", "killed consumer, killed daemon, re-opened road: until it goes on", "≤ 1 s; ≤ 1 s; ≤ 2 s",
           "0.2 s", "not taken by this bench yet", None),
    Figure("P24", "many-peers", "1,000 peers on one daemon: idle CPU; memory; a multicast to all",
           "≤ 0.5 %; ≤ 200 MB; ≤ 10 s", "", "not taken by this bench yet", None),
    Figure("P22", "interval", "`send` one by one with `durability: interval`", "≥ 50,000 /s", "100,000",
           "not taken by this bench yet", None),
    Figure("P23", "task-queues", "`dropr worker` ÷ Celery, Dramatiq, RQ, procrastinate, huey: an empty task",
           "≥ 3 × the best", "10", "needs those, which are not part of this repository", None),
)  # fmt: skip
"""What stands in docs/performance.md and has no file here. A file that has the number takes its place."""


def figures() -> list[Figure]:
    """All of them, in the order of their numbers. Raises ValueError if two have the same number or name."""
    found: list[Figure] = []
    for module in sorted(pkgutil.iter_modules(bench.figures.__path__), key=lambda module: module.name):
        found.extend(importlib.import_module(f"bench.figures.{module.name}").FIGURES)
    for what in ("number", "name"):
        values = [getattr(figure, what) for figure in found]
        if twice := {value for value in values if values.count(value) > 1}:
            raise ValueError(f"two figures have the same {what}: {', '.join(sorted(twice))}")
    taken = {figure.number for figure in found}
    found.extend(figure for figure in ELSEWHERE if figure.number not in taken)
    return sorted(found, key=lambda figure: _order(figure.number))


def _order(number: str) -> tuple[int, int, str]:
    place = re.fullmatch(r"P(\d+)", number)
    return (0, int(place[1]), "") if place else (1, 0, number)


def chosen(names: list[str], everything: list[Figure]) -> list[Figure]:
    """Those that were named (by name or number), or all that are taken unasked. Raises KeyError with unknown names."""
    if not names:
        return [figure for figure in everything if not figure.only_if_named]
    by_name = {figure.name: figure for figure in everything} | {figure.number: figure for figure in everything}
    if unknown := [name for name in names if name not in by_name]:
        raise KeyError(", ".join(unknown))
    return list({by_name[name].number: by_name[name] for name in names}.values())
