"""Order after a death: what the journal and the logs of a half say together.

Owns opening after everybody was gone, and putting things in order after one process died while it wrote, or after a
flush failed. Called under the half's lock. Must not know what the operations mean.
"""

import os
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from dropr_core.errors import StoreCorrupt, StoreGone, StoreTooNew
from dropr_core.storage_kit.syncs import Syncs
from dropr_storage_fs.engine import formats, journal
from dropr_storage_fs.engine.commit import frame_of
from dropr_storage_fs.engine.generations import Generations
from dropr_storage_fs.engine.journal import Damage, Journal
from dropr_storage_fs.engine.operations import Lost, Operation
from dropr_storage_fs.engine.replica import Replica
from dropr_storage_fs.engine.state import HalfState, LogIntent
from dropr_storage_fs.files import disk, log_recovery, shared
from dropr_storage_fs.files.layout import Frame, Record
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.log_recovery import Each
from dropr_storage_fs.files.segment import End

S = TypeVar("S", bound=HalfState)


class Recovery(Generic[S]):
    """Puts one half in order."""

    def __init__(self, replica: Replica[S], generations: Generations[S], syncs: Syncs) -> None:
        self._replica, self._generations, self._syncs = replica, generations, syncs

    # ── everybody was gone ───────────────────────────────────────────────────────────────────────

    def recover(self, *, cut: bool, made: bool) -> None:
        """Read everything that a stopped or cut-off store left, and put it in order. ``cut``: torn ends are cut, and
        a new generation begins; else nothing is changed. ``made``: a store without a journal was made before, so that
        it must have lost it.
        """
        replica = self._replica
        found = journal.generations(replica.directory) if replica.directory.is_dir() else []
        opened = self._best(found, cut=cut)
        if opened is None and made:
            raise StoreGone(
                f"{replica.directory}: the journal is gone, though this store was made before; put it back from a "
                "backup"
            )
        replica.begin(opened)
        state = replica.state
        state.recovering = state.cold = True
        self._find_logs()
        if opened is not None:
            size = opened.size
            replica.apply_journal(size)
            if replica.at < size:
                self._torn(opened, size, cut=cut)
        replica.shared[shared.NUMBER] = state.number
        self._derive(self._recover_logs(lambda log: state.known_end(log.number), cut=cut))
        if cut:
            replica.model.settle_identity(state)
            self._generations.begin()

    def _find_logs(self) -> None:
        """Each log says itself what it is, should the journal not know: damaged, or cut when the log was made."""
        replica = self._replica
        for place in sorted((replica.directory / "logs").glob("*/name.json")):
            try:
                number, op = replica.model.decode_label(place.read_bytes())
                if int(place.parent.name) == number:
                    op.apply(replica.state)
            except (OSError, ValueError, LookupError, TypeError, msgspec.MsgspecError) as error:
                replica.events.tell("corrupt", {"file": str(place), "error": f"cannot be read: {error}"})

    def _best(self, found: list[int], *, cut: bool) -> Journal | None:
        """The newest journal that can be read."""
        directory = self._replica.directory
        for generation in reversed(found):
            opened = Journal(directory, generation, read_only=not cut)
            if opened.good:
                try:
                    formats.check(directory, opened)
                except StoreTooNew:
                    opened.close()
                    raise
                return opened
            error = "the header of this journal is damaged"
            self._replica.events.tell("corrupt", {"file": str(opened.path), "error": error})
            opened.close()
        if found:
            raise StoreCorrupt(f"{directory}: no journal can be read; put it back from a backup")
        return None

    def _torn(self, opened: Journal, size: int, *, cut: bool) -> None:
        """What cannot be read is evidence: it stays beside the new generation."""
        at = self._replica.at
        tail = os.pread(opened.fd, size - at, at)
        if tail.strip(b"\0"):
            self._replica.events.tell("torn", {"file": str(opened.path), "from": at, "bytes": size - at})
            if cut:
                disk.put_file(self._replica.directory / f"torn-{opened.path.name}", tail)

    # ── a process died while it wrote ────────────────────────────────────────────────────────────

    def repair(self) -> None:
        """Find the ends of everything anew. Raises OSError; then it is tried again by whoever comes next."""
        replica = self._replica
        header = replica.shared
        generation = header[shared.GENERATION]
        journal.remove_after(replica.directory, generation)
        opened = Journal(replica.directory, generation)
        try:
            at = journal.START_SIZE  # from the beginning: it may have died while it noted a new generation
            for found in opened.read(at, opened.size):
                at = found.behind
            os.ftruncate(opened.fd, at)
            header[shared.JOURNAL] = at
            header[shared.JOURNAL_SYNCED] = min(header[shared.JOURNAL_SYNCED], at)
            if header[shared.JOURNAL_SYNCED] < at:
                disk.write_again(opened.fd, header[shared.JOURNAL_SYNCED], at)
                disk.flush_file(opened.fd)
                header[shared.JOURNAL_SYNCED] = at
        finally:
            opened.close()
        if replica.journal is None or replica.journal.generation != generation:
            replica.follow()
        replica.begin(replica.opened)  # from the beginning, for its intents
        replica.state.recovering = True
        replica.apply_journal(at)
        fresh = self._recover_logs(_flushed_end, cut=True)
        self._derive(fresh)
        header[shared.BUSY] = 0
        if fresh:
            replica.write_journal(fresh, promised=False)
        replica.context.log.info("%s: put in order after the death of a process", replica.directory)

    # ── a flush failed ───────────────────────────────────────────────────────────────────────────

    def settle_doubt(self) -> None:
        """See to errors of flushes that other processes have met: what they were told, nobody else is. Raises OSError;
        then it is tried again before anything else is written.
        """
        replica, syncs = self._replica, self._syncs
        if replica.has_opened() and syncs.look():
            # It was killed within a flush, which may have failed or not: what it wrote is flushed again.
            met = syncs.before_mending()
            replica.shared[shared.BUSY] = 1
            self.repair()
            syncs.mended(met)
        if syncs.in_doubt() or replica.shared.slots[shared.SUSPECT]:
            self.start_over()

    def start_over(self) -> None:
        """What was promised since the last good flush did not happen. Derive everything anew from what is known to be
        on stable storage (and what was never promised), into a new generation of the journal. Raises OSError; until it
        has succeeded nothing may be written.
        """
        replica = self._replica
        header, met = replica.shared, self._syncs.before_mending()
        header[shared.SUSPECT] = 1
        generation, good = header[shared.GENERATION], header[shared.JOURNAL_SYNCED]
        old = Journal(replica.directory, generation)
        state = replica.state = replica.model.make_state()
        state.recovering = state.cold = True
        try:
            for found in old.read(journal.START_SIZE, header[shared.JOURNAL]):
                if isinstance(found, Damage):
                    state.damaged = True
                elif found.behind <= good or not found.promised:
                    for op in replica.model.decode(found.payload):
                        op.apply(state)
        finally:
            old.close()
        fresh: list[Operation[S]] = []
        for number in state.logs():
            log = replica.log(number)
            if log.end[:2] != log.flushed[:2]:
                log.give_up_unflushed()
            log_recovery.read_on(log, state.known_end(number), self._told_of(log, fresh))
        self._derive(fresh)
        Lost(generation).apply(state)
        self._generations.begin()
        header[shared.SUSPECT] = 0
        self._syncs.mended(met)

    # ── what the logs tell ───────────────────────────────────────────────────────────────────────

    def _told_of(self, log: Log, fresh: list[Operation[S]]) -> Each:
        """Collects in ``fresh`` what the frames of a log tell."""
        replica = self._replica

        def each(frame: Frame, records: list[Record]) -> None:
            segment = log.slots.get(shared.SEGMENT)
            fresh.extend(replica.model.recovered(replica.state, log.number, frame, records, segment))

        return each

    def _recover_logs(self, since: Callable[[Log], End | None], *, cut: bool) -> list[Operation[S]]:
        """Find the ends of all logs; returns the operations that the journal may have lost."""
        state = self._replica.state
        fresh: list[Operation[S]] = []
        for number in state.logs():
            log = self._replica.log(number)
            each = self._told_of(log, fresh)
            log_recovery.recover(log, since(log), each, cut=cut)
            for intent in state.intents:
                if cut and intent.number == number and intent.first > log.end.last:
                    self._redo(log, intent, each)
        return fresh

    @staticmethod
    def _redo(log: Log, intent: LogIntent, each: Each) -> None:
        """Append what the journal promised for several logs at once and this one has not got."""
        target = log.ready()
        before, size, count = log.end, sum(len(row[3]) for row in intent.rows), len(intent.rows)
        data = frame_of(target, intent.first, intent.born, intent.rows, 0, intent.extra)
        log.append(target, before, data, max(intent.first + count - 1, before.last), count, size)
        disk.flush_file(target.fd)
        log.slots.set_flushed(log.end)
        log_recovery.read_on(log, before, each)

    def _derive(self, fresh: Sequence[Operation[S]]) -> None:
        """Apply what the logs told; forget what they have not got."""
        replica = self._replica
        state = replica.state
        last = {number: replica.end(number).last for number in state.logs()}
        replica.model.forget_beyond(state, last)
        header = replica.shared
        header[shared.NUMBER] = max([header[shared.NUMBER], *last.values()])
        for op in fresh:
            op.apply(state)
        header[shared.NUMBER] = max(header[shared.NUMBER], state.number)
        state.finish_recovery()


def _flushed_end(log: Log) -> End | None:
    """After the death of one process: what was flushed is sound."""
    return log.flushed if log.flushed.written else None
