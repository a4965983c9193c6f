"""The base of what a half knows in memory.

Owns what both halves have: identity, numbers, and what recovery remembers while it reads. Must not know files, nor
what a half's own operations mean.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import NamedTuple

from dropr_core.model.names import StoreId
from dropr_storage_fs.engine.run import Counts, Run
from dropr_storage_fs.files.layout import Row
from dropr_storage_fs.files.segment import End

NO_STORE = StoreId(bytes(8))


class LogIntent(NamedTuple):
    """What a call for several logs promised for one of them."""

    number: int
    first: int
    born: float
    rows: list[Row]
    extra: bytes
    """The extra part of its frame."""


class HalfState(ABC):
    """Made by applying a journal's operations in order."""

    def __init__(self) -> None:
        self.store = NO_STORE
        self.number = 0
        self.lost: list[int] = []
        """Generations that were given up after a disk error."""
        self.ends: dict[int, End] = {}
        """Log → where it was known to be sound when this generation began."""
        self.later_ends: dict[int, End] = {}
        """Log → where the journal said so since."""
        self.intents: list[LogIntent] = []
        self.transactions: set[bytes] = set()
        """Calls for several logs that the journal knows."""
        self.runs: dict[int, Run] = {}
        """What is remembered in files, by their numbers."""
        self.holes = False
        """Whether a run should be written anew, as much of it is gone."""
        self.recovering = self.cold = self.damaged = self.complete = False
        """Whether logs may have to be made to follow intents; whether a power cut may lie between journal and logs;
        whether a part of the journal is lost; whether the snapshot was read to its end."""

    @abstractmethod
    def logs(self) -> Iterable[int]:
        """The numbers of all logs."""

    def known_end(self, number: int) -> End | None:
        """Up to where a log need not be read again."""
        end = self.ends.get(number)
        return end if self.damaged else self.later_ends.get(number, end)

    def set_known_end(self, number: int, end: End) -> None:
        """Note that up to there nothing has to be looked at again."""
        self.ends[number] = end
        self.later_ends.pop(number, None)

    def note_end(self, number: int, end: End) -> None:
        """Up to there a log was flushed, and all that its frames tell stands in the journal before this."""
        self.later_ends[number] = end

    # ── what is remembered in files ──────────────────────────────────────────────────────────────

    @abstractmethod
    def count_run(self, counts: Counts, by: int, *, forgotten: bool) -> None:
        """Records of a run count (1) or do not any more (-1). ``forgotten``: nothing is known of them any more, else
        they are in memory, or in another run.
        """

    def count_lost(self, counts: Counts) -> None:
        """Records that a run should have held could not be read; they are counted nowhere now."""

    def remembered_until(self, moment: float) -> float:
        """Node time until which something was remembered that ended at a moment, in files that do not say it."""
        return moment

    def use_run(self, run: Run) -> None:
        """A run belongs to what is known."""
        self.runs[run.number] = run
        self.holes = self.holes or run.full_of_holes()
        self.count_run(run.tally.counts(), 1, forgotten=False)

    def drop_run(self, number: int, *, forgotten: bool = True) -> None:
        """It does not any more."""
        run = self.runs.pop(number, None)
        if run is not None:
            self.count_run(run.tally.counts(), -1, forgotten=forgotten)

    def pass_run(self, number: int, moment: float, counts: Counts) -> None:
        """What of a run was remembered until a moment is forgotten."""
        run = self.runs.get(number)
        if run is not None and run.past < moment:
            run.past = moment
            run.tally.change(counts, -1)
            self.count_run(counts, -1, forgotten=True)

    def erase(self, number: int, keys: Collection[int], counts: Counts, *, forgotten: bool) -> None:
        """Some records of a run are forgotten, or are in memory again."""
        run = self.runs.get(number)
        if run is not None and not run.gone.issuperset(keys):
            run.gone.update(keys)
            self.holes = self.holes or run.full_of_holes()
            run.tally.change(counts, -1)
            self.count_run(counts, -1, forgotten=forgotten)

    # ── recovery ─────────────────────────────────────────────────────────────────────────────────

    def promise(self, intent: LogIntent, transaction: bytes) -> None:
        """Remember an intent; if not recovering, whoever wrote it makes the logs follow."""
        if self.recovering:
            self.transactions.add(transaction)
            self.intents.append(intent)

    def forget_intents(self) -> None:
        """Every log has what was promised for it, on stable storage."""
        self.intents, self.transactions = [], set()

    def finish_recovery(self) -> None:
        """Logs and journal say the same now."""
        self.recovering = self.cold = False
        self.intents = []
