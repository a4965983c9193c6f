"""How the demo ends: one table, one sentence, or one JSON document.

Owns their form. Must not decide anything: `tally.DemoResult` does.
"""

from collections.abc import Mapping
from typing import Any

import attrs
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dropr_core.demo.tally import DemoResult, Recovery, Row


@attrs.frozen
class Outcome:
    """The verdict, and the figures around it."""

    verdict: DemoResult
    seconds: float
    """From the first `send` to the last arrival."""
    total_seconds: float
    """Starting and stopping the nodes included."""
    messages: int
    """Arrivals of all kinds."""
    file_bytes: int
    files_skipped: int
    restarts: Mapping[str, int]
    tails: Mapping[str, list[str]]
    """The ends of the angels' logs, where something is wrong."""
    kept: str = ""
    """Where the nodes' directories were left."""

    @property
    def rate(self) -> float:
        """Arrivals a second, the trouble included."""
        return self.messages / self.seconds if self.seconds > 0 else 0.0


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything, for programs."""
    verdict = outcome.verdict
    return {
        "good": verdict.good,
        "streams": [
            {
                "name": row.name, "sent": row.sent, "received": row.received, "lost": row.lost,
                "doubled": row.doubled, "out_of_order": row.misordered, "altered": row.wrong,
            }
            for row in verdict.rows
        ],
        "receipts": {
            "wanted": verdict.receipts_wanted, "good": verdict.receipts_good,
            "bad": verdict.receipts_bad, "missing": verdict.receipts_missing,
        },
        "recoveries": [{"what": each.what, "seconds": each.seconds} for each in verdict.recoveries],
        "missing": verdict.missing,
        "seconds": round(outcome.seconds, 3),
        "total_seconds": round(outcome.total_seconds, 3),
        "rate": round(outcome.rate, 1),
        "file_bytes": outcome.file_bytes,
        "files_skipped": outcome.files_skipped,
        "restarts": dict(outcome.restarts),
        "kept": outcome.kept,
    }  # fmt: skip


def print_report(outcome: Outcome, console: Console) -> None:
    """The table and what there is to say about it."""
    verdict = outcome.verdict
    console.print(_table(verdict))
    console.print()
    console.print(_troubles(verdict.recoveries, outcome.restarts))
    console.print()
    if outcome.messages:
        console.print(
            f"[bold]{outcome.rate:,.0f}[/] messages a second, the trouble included: {outcome.messages:,} messages, "
            f"{outcome.file_bytes / 2**20:,.1f} MiB of them files, in {outcome.seconds:.1f} s "
            f"({outcome.total_seconds:.1f} s with starting the nodes)."
        )
    if outcome.files_skipped:
        console.print(f"{outcome.files_skipped:,} files were not sent: larger than a body may be, or unreadable.")
    if outcome.kept:
        console.print(f"The nodes' directories are left in {outcome.kept}", soft_wrap=True, markup=False)
    if verdict.good:
        console.print("[bold green]Nothing lost, nothing doubled, everything in order, every receipt came home.[/]")
        return
    console.print("[bold red]A promise was not kept.[/]")
    if verdict.missing:
        console.print(f"Missing: {verdict.missing}", style="red", markup=False, highlight=False)
    for name, lines in outcome.tails.items():
        console.print(f"\nThe last words of {name}:", style="bold", markup=False)
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _table(verdict: DemoResult) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("what", no_wrap=True)
    for name in ("sent", "received", "lost", "doubled", "out of order", "altered"):
        table.add_column(name, justify="right")
    for row in verdict.rows:
        table.add_row(*_cells(row))
    table.add_row(
        "receipts, results", f"{verdict.receipts_wanted:,}",
        f"{verdict.receipts_good + verdict.receipts_bad:,}", _bad(verdict.receipts_missing), "", "",
        _bad(verdict.receipts_bad),
    )  # fmt: skip
    return table


def _cells(row: Row) -> list[str]:
    bad = (row.lost, row.doubled, row.misordered, row.wrong)
    return [row.name, f"{row.sent:,}", f"{row.received:,}", *map(_bad, bad)]


def _bad(count: int) -> str:
    return f"[bold red]{count:,}[/]" if count else "[green]0[/]"


def _troubles(recoveries: tuple[Recovery, ...], restarts: Mapping[str, int]) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("trouble made on purpose")
    table.add_column("mail flowed again after", justify="right")
    for recovery in recoveries:
        seconds = "[bold red]never[/]" if recovery.seconds is None else f"{recovery.seconds:.2f} s"
        table.add_row(recovery.what, seconds)
    for name, count in restarts.items():
        table.add_row(f"[dim]{name} restarted by its angel[/]", f"[dim]{count} ×[/]")
    return table
