"""The report: a table for people, the same as a page, everything as JSON, and pictures.

Owns their form. Must not take any figure.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figure import Figure
from dropr_core.bench.samples import say_number

Found = Sequence[Mapping[str, Any]]

COLUMNS = ("", "figure", "measured", "raw limit", "bar", "dream", "verdict")


def rows(found: Found) -> list[tuple[str, ...]]:
    """The table: for each figure its readings, a line each; for one without any, the reason."""
    out = []
    for document in found:
        head = (document["number"], document["name"])
        for place, reading in enumerate(document["readings"]):
            raw = reading["raw"]
            beside = f"{say_number(raw['median'])} {raw['label']}" if raw else ""
            bar, dream = (_goal(reading[name]) for name in ("bar", "dream"))
            measured = f"{reading['label']}: {reading['text']}"
            out.append((*(head if not place else ("", "")), measured, beside, bar, dream, reading["verdict"]))
        if document["problem"] or not document["readings"]:
            words = document["problem"] or "no reading"
            out.append((*head, words, "", document["bar"], document["dream"], words.partition(":")[0]))
    return out


def _goal(value: float | None) -> str:
    return "" if value is None else say_number(value)


def print_table(found: Found) -> None:
    """The table, on standard output."""
    table = Table(*COLUMNS, box=None, pad_edge=False, header_style="bold")
    for row in rows(found):
        table.add_row(*row)
    console = Console(width=None if Console().is_terminal else 200, highlight=False, markup=False)
    console.print(table)
    for document in found:
        for note in document["notes"]:
            console.print(f"{document['number']} {document['name']}: {note}")


def print_list(figures: Sequence[Figure]) -> None:
    """What there is."""
    table = Table("", "name", "what", "bar", "dream", "seconds", box=None, pad_edge=False, header_style="bold")
    for one in figures:
        length = "-" if one.measure is None else f"{one.seconds:.0f}" + (" if named" if one.only_if_named else "")
        table.add_row(one.number, one.name, one.what, one.bar, one.dream, length)
    Console(highlight=False, markup=False).print(table)


def write_report(directory: Path, machine: Mapping[str, str], found: Found) -> None:
    """Write ``figures.json``, ``README.md`` and the pictures; those of an earlier run are replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    for picture in directory.glob("*.svg"):
        picture.unlink()
    document = {"machine": dict(machine), "figures": list(found)}
    (directory / "figures.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    try:
        from bench.pictures import draw

        drawn, said = draw(directory, found), ""
    except ImportError as error:
        drawn, said = [], f"No pictures: {error}. They need the extra `bench` of pyproject.toml.\n"
    except Exception as error:
        drawn, said = [], f"No pictures, or not all: {type(error).__name__}: {error}\n"
    (directory / "README.md").write_text(_page(machine, found, drawn, said), encoding="utf-8")
    if said:
        print(said, end="")


def _page(machine: Mapping[str, str], found: Found, drawn: Sequence[Path], said: str) -> str:
    parts = ["# Figures of one run\n", _markdown(("", ""), list(machine.items())), "\n## Table\n"]
    parts.append(
        "Median of the rounds ± half the range of the middle half. A raw limit was measured in the same rounds.\n"
    )
    parts.append(_markdown(COLUMNS, rows(found)))
    if costs := [(document["number"], cost) for document in found for cost in document["costs"]]:
        parts.append("\n## What one message costs, by process\n")
        head = ("", "process", "CPU µs", "system calls", "syncs", "bytes to the disk", "switches", "peak MiB")
        parts.append(_markdown(head, [
            (number, cost["process"], say_number(cost["cpu"]), _maybe(cost["calls"]), _maybe(cost["syncs"]),
             say_number(cost["written"]), say_number(cost["switches"]), say_number(cost["peak"]))
            for number, cost in costs
        ]))  # fmt: skip
        parts.append("\n– : not counted; where `strace` may trace, the figure `cost` counts calls and syncs.")
    parts.append("\n## Notes\n")
    for document in found:
        parts.append(f"- **{document['number']} {document['name']}**, {document['seconds']:.0f} s. {document['what']}. "
                     f"How: {document['how']}" + "".join(f" {note}." for note in document["notes"]))  # fmt: skip
    if drawn or said:
        parts.append("\n## Pictures\n")
        parts.append(said)
        parts.extend(f"![{picture.stem}]({picture.name})\n" for picture in drawn)
    return "\n".join(parts) + "\n"


def _maybe(value: float | None) -> str:
    return "–" if value is None else say_number(value)


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    table = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in table)
