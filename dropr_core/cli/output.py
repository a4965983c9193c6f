"""How the command line shows things: JSON, tables, ages, sizes, times.

Owns what may reach a terminal: texts that came from a peer lose everything that could steer one.
Must not know any verb, nor a node.
"""

import base64
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal

import click

from dropr_core.cli.logs import one_line

PIECE = 1024 * 1024


def echo(text: str) -> None:
    """Print one line for people."""
    click.echo(one_line(text))


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are, and let them go at once; raises OSError if they cannot."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_stream(file: BinaryIO, end: bytes = b"", step: Callable[[int], None] | None = None) -> None:
    """Write a file to standard output piece by piece; raises OSError if it cannot. ``step``: told of bytes done."""
    piece, done = file.read(PIECE), 0
    while following := file.read(PIECE):
        write_bytes(piece)
        done += len(piece)
        if step is not None:
            step(done)
        piece = following
    write_bytes(piece + end)


def echo_json(document: object) -> None:
    """Print one JSON document; ASCII, so that it survives every terminal and pipe."""
    click.echo(json.dumps(document, indent=2))


def echo_json_list(head: Mapping[str, object], name: str, items: Iterable[object]) -> None:
    """Print ``{**head, name: [items]}`` item by item, whatever their number."""
    start = json.dumps(head)[:-1]
    click.echo(f"{start}{', ' if head else ''}{json.dumps(name)}: [", nl=False)
    for number, item in enumerate(items):
        click.echo(("," if number else "") + "\n  " + json.dumps(item), nl=False)
    click.echo("\n]}")


def echo_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    header: bool = True,
    notes: Sequence[str] | None = None,
    style: Callable[[str, str], str] = lambda _column, _cell: "",
) -> None:
    """Print a table. Columns whose name ends in ``>`` are aligned to the right.

    Into a pipe, lines are as long as they must be; on a terminal rich fits them to its width. ``notes``: a text for
    each row (may be empty), which follows it on a line of its own, indented. ``style``: how a terminal shows a cell of
    a column, in rich's words.
    """
    terminal = sys.stdout.isatty()
    cells = [[one_line(str(cell)) for cell in row] for row in rows]
    if not terminal and all(cell.isascii() for row in cells for cell in row):
        _finish_table(_plain_table(columns, cells, header=header), notes, header=header)
        return
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=StringIO(), force_terminal=terminal, highlight=False, width=None if terminal else 4000)
    table = Table(box=None, show_header=header, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        right = column.endswith(">")
        fixed = column.rstrip(">") in {"id", "state", "age", "size"}
        side: Literal["left", "right"] = "right" if right else "left"
        whole = fixed or not terminal or notes is not None  # a note follows its row, so a row is one line
        overflow: Literal["ellipsis", "fold"] = "fold" if notes is None else "ellipsis"
        table.add_column(Text(column.rstrip(">")), justify=side, no_wrap=whole, overflow=overflow)
    for row in cells:
        table.add_row(*(Text(cell, style(column, cell)) for column, cell in zip(columns, row, strict=True)))
    with console.capture() as captured:
        console.print(table)
    _finish_table([line.rstrip() for line in captured.get().splitlines()], notes, header=header)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, header: bool) -> list[str]:
    """The lines that rich makes of it for a pipe, without rich: scripts look often, and it is slow to load."""
    titled = [[column.rstrip(">") for column in columns], *rows] if header else rows
    widths = [max((len(row[place]) for row in titled), default=0) for place in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if column.endswith(">") else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in titled
    ]


def _finish_table(lines: list[str], notes: Sequence[str] | None, *, header: bool) -> None:
    for number, note in enumerate(notes or (), start=header):
        if note:
            lines[number] += "".join(f"\n    {one_line(part)}" for part in note.splitlines())
    click.echo("\n".join(lines))


def on_terminal() -> bool:
    """Whether people look at the output, at some width; else a program reads it."""
    return sys.stdout.isatty()


def pages(items: Iterable[Any], size: int = 500) -> Iterator[list[Any]]:
    """Lists of up to ``size`` items."""
    page: list[Any] = []
    for item in items:
        page.append(item)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


def say_age(seconds: float | None) -> str:
    """A length of time in two steps at most: ``12s``, ``3m20s``, ``5h``, ``2d4h``."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    if left < 60:
        return f"{left}s"
    for unit, length, below, step in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if left >= length:
            count, rest = divmod(left, length)
            return f"{count}{unit}" + (f"{rest // step}{below}" if rest // step else "")
    return f"{left}s"


def say_size(count: int) -> str:
    """Bytes for people: ``17 B``, ``1.5 KiB``."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" or size >= 100 else f"{size:.1f} {units[0]}"


def say_wall(seconds: float) -> str:
    """A wall time, local, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "-"


def say_count(number: int, one: str, many: str = "") -> str:
    """``1 message``, ``2 messages``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def text_or_base64(data: bytes | None, name: str = "body") -> dict[str, str | None]:
    """Bytes in JSON: as ``name`` if they are UTF-8 text, else as ``name_base64``; the other key is null."""
    text = encoded = None
    if data is not None:
        try:
            text = bytes(data).decode("utf-8")
        except UnicodeDecodeError:
            encoded = base64.b64encode(data).decode("ascii")
    return {name: text, f"{name}_base64": encoded}
