"""What people see while the demo runs: progress bars on a terminal, lines of text in a log.

Owns the error stream. Must not know nodes; standard output belongs to the report.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

LINE_EVERY = 2.0
"""Seconds at least between two lines about progress where there are no bars."""


class Screen:
    """Bars for named amounts, and remarks above them."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._started = time.monotonic()
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, tuple[int, int]] = {}
        self._line_at = 0.0
        self._bars: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._bars = Progress(
                SpinnerColumn(finished_text="[green]✔[/]"), TextColumn("{task.description:<22}"), BarColumn(None),
                MofNCompleteColumn(), TimeElapsedColumn(), console=self._console, expand=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self._bars is not None:
            self._bars.start()
        return self

    def say(self, text: str, style: str = "") -> None:
        """A remark."""
        passed = time.monotonic() - self._started
        self._console.print(f"{passed:6.1f} s  {text}", style=style or None, markup=False, soft_wrap=True)

    def show(self, name: str, done: int, total: int) -> None:
        """So much of it is done."""
        if self._bars is None:
            self._shown[name] = (done, total)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)

    def breathe(self, *, last: bool = False) -> None:
        """Where there are no bars: one line about everything, if it is time for it."""
        now = time.monotonic()
        if self._bars is not None or not self._shown or (now < self._line_at and not last):
            return
        self._line_at = now + LINE_EVERY
        self.say(", ".join(f"{name} {done:,}/{total:,}" for name, (done, total) in self._shown.items()))

    def close(self) -> None:
        """Leave the bars as they are; safe twice."""
        if self._bars is not None:
            self._bars.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
