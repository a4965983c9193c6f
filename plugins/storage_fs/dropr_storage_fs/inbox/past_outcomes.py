"""Rows of outcome logs that stand in files, and not in memory, until their senders ask for them.

Owns these files: which rows each has, reading on behind a number, and setting rows down when a new generation of the
journal begins. Used inside a job. Must not know how outcomes travel.
"""

import heapq
import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dropr_core.contracts.context import Context
from dropr_core.model.message import Outcome
from dropr_storage_fs.engine import remembered
from dropr_storage_fs.engine.events import Events
from dropr_storage_fs.engine.run_files import RunFiles
from dropr_storage_fs.files.layout import encode
from dropr_storage_fs.files.sorted_run import Entry
from dropr_storage_fs.inbox.outcome_operations import AddOutcome
from dropr_storage_fs.inbox.rows import OutcomeRun
from dropr_storage_fs.inbox.state import InboxState

PREFIX, NUMBER_BITS = "outcomes.", 44
FOR_EVER = float("inf")
"""A row is kept until its sender has it."""

_decode = msgspec.msgpack.Decoder(AddOutcome).decode


class PastOutcomes:
    """The files of one inbox."""

    def __init__(self, directory: Path, context: Context) -> None:
        self.files = RunFiles(directory, PREFIX, Events(directory, context))

    def rows(self, state: InboxState, sender: str) -> Iterator[Outcome]:
        """All rows of a sender that it has not got, in order."""
        upto = state.told[sender]
        sources = []
        for run, _ in self.files.all(state.outcome_runs):
            if sender in run.last:
                sources.append(self._of_run(run, sender, upto))
        return itertools.chain(heapq.merge(*sources, key=lambda row: row.number), state.outcomes.get(sender, ()))

    def _of_run(self, run: OutcomeRun, sender: str, upto: int) -> Iterator[Outcome]:
        file, key = self.files.run(run.number), run.senders.index(sender) << NUMBER_BITS
        for _, stored in file.after(key + upto, key + (1 << NUMBER_BITS)) if file is not None else ():
            yield _decode(stored.payload).row()

    # ── setting down ─────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def wanted(state: InboxState) -> bool:
        """Whether there are so many rows in memory that they should go."""
        return remembered.asks(state.rows_in_memory, state.row_bytes, len(state.jobs) - state.settled)

    def set_down(self, state: InboxState, number: int) -> None:
        """Make a file of the rows in memory, if they are many. Raises OSError; then nothing has changed."""
        runs = state.outcome_runs
        again = [one for one in runs if not self.files.sound(one)]
        if not again and not remembered.is_enough(state.rows_in_memory, state.row_bytes):
            return
        sizes = {one: run.count for one, run in runs.items()}
        absorbed = remembered.choose(self.files, sizes, again, state.rows_in_memory)
        made = OutcomeRun(number, 0, sorted({*state.outcomes, *(name for one in absorbed for name in runs[one].last)}))
        self.files.write(number, self._entries(state, made, [runs[one] for one in absorbed]))
        for one in absorbed:
            if not self.files.sound(one):
                self.files.set_aside(one)
            del runs[one]
        state.set_down_outcomes(made)

    def _entries(self, state: InboxState, made: OutcomeRun, absorbed: list[OutcomeRun]) -> Iterator[Entry]:
        for at, sender in enumerate(made.senders):
            mine = [self._of_run(run, sender, state.told[sender]) for run in absorbed if sender in run.last]
            for row in heapq.merge(*mine, state.outcomes.get(sender, ()), key=lambda row: row.number):
                made.count += 1
                made.last[sender] = row.number
                yield Entry(at << NUMBER_BITS | row.number, row.id, FOR_EVER, encode(AddOutcome.of(sender, row)))

    def tidy(self, state: InboxState) -> None:
        """Remove the files that nobody knows any more."""
        self.files.tidy(state.outcome_runs)

    def close(self) -> None:
        """Close all files; safe twice."""
        self.files.close()
