"""This process's picture of a half: the state that the journal tells, and the logs.

Owns following what other processes wrote, and writing one commit to the journal. Called under the half's lock. Must
not know what operations mean, nor when anything is flushed.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from dropr_core.contracts.context import Context
from dropr_core.errors import StoreCorrupt, StoreTooNew
from dropr_storage_fs.engine import formats, journal
from dropr_storage_fs.engine.events import Events
from dropr_storage_fs.engine.journal import Damage, Journal
from dropr_storage_fs.engine.model import HalfModel
from dropr_storage_fs.engine.operations import Operation
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files import disk, shared
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.segment import End
from dropr_storage_fs.files.segments import OpenFiles
from dropr_storage_fs.files.shared import Shared

S = TypeVar("S", bound=HalfState)
LOGS_KEPT = 256
"""Logs of which something is kept in memory; the others are looked at anew when they are used."""
LOST = "these bytes of the journal are damaged; what they said is lost, what the logs say of it is read again"


class Replica(Generic[S]):
    """Files of one half as one process sees them. ``shared`` is attached when the half is opened."""

    def __init__(self, directory: Path, context: Context, model: HalfModel[S], events: Events) -> None:
        self.directory, self.context, self.model, self.events = directory, context, model, events
        self.state: S = model.make_state()
        self.shared = Shared(None)
        self.journal: Journal | None = None
        self.at = 0
        """Up to where the journal is applied."""
        self.snapshot_size = 0
        """Bytes of the snapshot that this generation began with."""
        self.alone = False
        """Whether this is a copy that nobody has open, looked at and not changed: there is nobody to follow."""
        self._logs: dict[int, Log] = {}
        self._open_files = OpenFiles()

    def attach(self, common: Shared) -> None:
        """Use these shared slots from now on."""
        self.shared.close()
        self.shared = common

    @property
    def opened(self) -> Journal:
        """The journal of this generation; there is one whenever a half is open."""
        assert self.journal is not None
        return self.journal

    def log(self, number: int) -> Log:
        """A log by its number."""
        found = self._logs.get(number)
        if found is None:
            while len(self._logs) >= LOGS_KEPT:
                self._logs.pop(next(iter(self._logs))).close()
            where = self.directory / "logs" / f"{number:05d}"
            found = Log(
                where, number, self.shared, self._open_files, self.events.tell, read_only=self.context.read_only
            )
            self._logs[number] = found
        return found

    def end(self, number: int) -> End:
        """Where a log ends: what is written, flushed or not."""
        row = self.shared.row(number)
        return tuple.__new__(End, self.shared.slots[row : row + 5])

    def is_flushed(self, number: int) -> bool:
        """Whether all of a log is on stable storage."""
        slots, row = self.shared.slots, self.shared.row(number)
        written = (slots[row + shared.SEGMENT], slots[row + shared.WRITTEN])
        return bool(written <= (slots[row + shared.SYNC_SEGMENT], slots[row + shared.SYNCED]))

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def follow(self) -> None:
        """Learn what other processes wrote."""
        header = self.shared.slots
        generation = header[shared.GENERATION]
        opened = self.journal
        if opened is not None and opened.generation == generation:
            if self.at < header[shared.JOURNAL]:
                self.apply_journal(header[shared.JOURNAL])
            return
        if self.alone:
            return
        following = Journal(self.directory, generation, read_only=self.context.read_only)
        try:
            formats.check(self.directory, following)
        except StoreTooNew:
            following.close()
            raise
        if opened is not None:
            opened.close()
        self._open_files.fresh = True
        self.begin(following)
        self.apply_journal(header[shared.JOURNAL])

    def begin(self, opened: Journal | None) -> None:
        """An empty state, at the beginning of a generation."""
        self.state, self.at, self.snapshot_size = self.model.make_state(), journal.START_SIZE, 0
        self.journal = opened

    def apply_journal(self, end: int) -> None:
        """Apply what this generation says up to an offset, or to a torn end before it."""
        opened = self.opened
        for found in opened.read(self.at, end):
            if isinstance(found, Damage):
                details = {"file": str(opened.path), "from": found.start, "to": found.behind, "error": LOST}
                self.events.tell("corrupt", details)
                self.state.damaged = True
                self.at = found.behind
                continue
            complete = self.state.complete
            for op in self._decode(found.payload):
                self._apply(op)
            self.at = found.behind
            if self.state.complete and not complete:
                self.snapshot_size = self.at

    def _decode(self, payload: bytes) -> Sequence[Operation[S]]:
        try:
            return self.model.decode(payload)
        except msgspec.DecodeError as error:
            raise StoreCorrupt(
                f"{self.opened.path}: the operation behind offset {self.at} is none that this dropr knows ({error}); "
                "was it written by a newer one? Nothing was changed"
            ) from error

    def _apply(self, op: Operation[S]) -> None:
        try:
            op.apply(self.state)
        except LookupError:  # it speaks of something that stood in the damaged part
            if not self.state.damaged:
                raise

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def write_journal(self, ops: Sequence[Operation[S]], *, promised: bool) -> None:
        """Append one commit to the journal; it is applied already."""
        opened, header = self.opened, self.shared
        data = opened.pack(ops, promised=promised, synced=header[shared.JOURNAL_SYNCED])
        at = header[shared.JOURNAL]
        try:
            disk.write_at(opened.fd, data, at)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(opened.fd, at)
            raise
        header[shared.JOURNAL] = self.at = at + len(data)

    def take_back(self, at: int) -> None:
        """Cut the journal to where it was, and forget what was applied since."""
        self.shared[shared.JOURNAL] = at
        with contextlib.suppress(OSError):
            os.ftruncate(self.opened.fd, at)
        self.begin(self.journal)
        self.apply_journal(at)

    def has_opened(self) -> bool:
        """Whether a descriptor was opened, that is flushed by, since this was asked last."""
        fresh, self._open_files.fresh = self._open_files.fresh, False
        return fresh

    def close_segments(self) -> bool:
        """Give descriptors back that are not in use at the moment; whether there were any."""
        some = len(self._open_files) > 0
        self._open_files.close_any()
        return some

    def close(self) -> None:
        """Close all files; safe twice."""
        for log in self._logs.values():
            log.close()
        if self.journal is not None:
            self.journal.close()
        self.shared.close()
