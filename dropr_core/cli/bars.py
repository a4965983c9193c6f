"""Bars for people while a large body goes through: how much, how fast, how long still.

Owns when one is shown: on a terminal, and only for what takes a while. Must not know whence the bytes come.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BAR_FROM = 16 * 1024 * 1024
"""Bytes of the smallest body that gets a bar."""

Step = Callable[[int], None]
"""Told how many bytes are done in all."""


@contextmanager
def bar(title: str, total: int) -> Iterator[Step | None]:
    """A bar on the error stream for as long as the block lasts; None where nobody would look at it."""
    if total < BAR_FROM or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)
