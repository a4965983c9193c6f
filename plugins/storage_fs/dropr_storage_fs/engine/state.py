"""The base of what a half knows in memory.

Owns what both halves have: identity, numbers, and what recovery remembers while it reads. Must not know files, nor
what a half's own operations mean.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

from dropr_core.model.names import StoreId
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
