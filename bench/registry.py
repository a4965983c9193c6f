"""The one list of all figures.

Owns finding them: each file of `bench/figures/` has ``FIGURES``, a tuple of `Figure`. Must not take any.
"""

import importlib
import pkgutil
import re

import bench.figures
from bench.figure import Figure


def figures() -> list[Figure]:
    """All of them, in the order of their numbers. Raises ValueError if two have the same number or name."""
    found: list[Figure] = []
    for module in sorted(pkgutil.iter_modules(bench.figures.__path__), key=lambda module: module.name):
        found.extend(importlib.import_module(f"bench.figures.{module.name}").FIGURES)
    for what in ("number", "name"):
        values = [getattr(figure, what) for figure in found]
        if twice := {value for value in values if values.count(value) > 1}:
            raise ValueError(f"two figures have the same {what}: {', '.join(sorted(twice))}")
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
