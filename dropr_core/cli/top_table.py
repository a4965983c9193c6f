"""Tables and sparklines of `dropr top`, as lines that fit a terminal.

Owns widths. Must not know what stands in the cells.
"""

from collections.abc import Callable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from dropr_core.cli.logs import one_line

BARS = "▁▂▃▄▅▆▇█"
SPARK = 16
"""Signs of a sparkline in a table at most."""
LEAST = 6
"""Columns of a sparkline, and of a name, at least."""


def sparkline(series: Sequence[float], width: int) -> str:
    """The last numbers as bars; the largest of them is the full height, and 0 is the lowest."""
    shown = list(series[-width:])
    top = max(shown, default=0.0)
    bars = "".join(BARS[min(7, int(one / top * 7.999))] if top > 0 else BARS[0] for one in shown)
    return bars.rjust(width)


def table(
    columns: Sequence[str], names: Sequence[str], row: Callable[[str], Sequence[tuple[str, str]]], width: int,
    room: int, chosen: int | None = None,
) -> list[Text]:  # fmt: skip
    """An empty line, a heading, and ``room`` rows at most, of which one may be chosen and is among them.

    ``row``: name → cells with their styles. Columns that end in ``>`` stand to the right; the last one is a sparkline,
    which gives way first where it is narrow, and then the name. Above it stands how many rows are not shown.
    """
    mine = chosen is not None
    chosen = min(chosen, len(names) - 1) if chosen is not None else -1
    first = max(0, min(chosen - room + 1, len(names) - room)) if chosen >= room else 0
    rows = [row(name) for name in names[first : first + room]]
    rows = [[(one_line(cell), style) for cell, style in cells] for cells in rows]
    below = len(names) - first - len(rows)
    more = f"↑{first} ↓{below}" if first or below else ""
    titles = [*(column.rstrip(">") for column in columns[:-1]), more]
    widths = [max([cell_len(titles[at]), *(cell_len(cells[at][0]) for cells in rows)]) for at in range(len(columns))]
    for at, least in ((-1, LEAST), (0, LEAST)):
        widths[at] = max(least, widths[at] + min(0, width - sum(widths) - 2 * (len(widths) - 1)))
    rows = [[*cells[:-1], (cells[-1][0][-widths[-1] :], cells[-1][1])] for cells in rows]
    heading = "  ".join(_fit(title, size, column) for title, size, column in zip(titles, widths, columns, strict=True))
    lines = [Text(""), Text(f"{heading.rstrip()}", "bold" if mine else "dim bold")]
    for number, cells in enumerate(rows, first):
        line = Text("  ").join(
            Text(_fit(cell, size, column), style)
            for (cell, style), size, column in zip(cells, widths, columns, strict=True)
        )
        if number == chosen:
            line.stylize("reverse")
        lines.append(line)
    return lines


def _fit(cell: str, size: int, column: str) -> str:
    """A cell of exactly so many columns of a terminal."""
    if cell_len(cell) > size:
        return f"{set_cell_size(cell, max(0, size - 1))}…"
    room = " " * (size - cell_len(cell))
    return room + cell if column.endswith(">") else cell + room
