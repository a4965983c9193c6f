"""A new generation of the journal: a snapshot of the state, and nothing else.

Owns when one is due and how it takes the place of the old one. Called under the half's lock. Must not know why the
state is as it is.
"""

import contextlib
from typing import Generic, TypeVar

from dropr_storage_fs.engine import formats, journal
from dropr_storage_fs.engine.journal import Journal
from dropr_storage_fs.engine.operations import LogEnd
from dropr_storage_fs.engine.replica import Replica
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files import shared
from dropr_storage_fs.files.log import Log

S = TypeVar("S", bound=HalfState)
JOURNAL_MIN, CHECK_BYTES = 4 << 20, 2 << 20
"""A journal below this size is not rewritten; a log is checked off after so many bytes."""
GROWTH = 3
"""A journal is rewritten when it is so many times as long as its snapshot: what is written again each time is never
more than a part of what was written since."""


class Generations(Generic[S]):
    """Rewrites the journal of one half."""

    def __init__(self, replica: Replica[S]) -> None:
        self._replica = replica
        self._not_before = 0

    def due(self) -> bool:
        """Whether the journal has grown too long."""
        replica = self._replica
        if replica.at <= self._not_before:
            return False
        longest = max(JOURNAL_MIN, GROWTH * replica.snapshot_size)
        return replica.at > longest or replica.model.wants_generation(replica.state)

    def give_up(self) -> None:
        """A generation was begun in vain: go on with the old one, as it stands in the journal, and try again when that
        has grown a good deal more. Raises OSError; then somebody else has to put things in order.
        """
        replica = self._replica
        self._not_before = replica.at + JOURNAL_MIN // 4
        replica.shared[shared.LEFTOVER] = 1
        replica.begin(replica.opened)
        replica.apply_journal(replica.shared[shared.JOURNAL])

    def remove_leftover(self) -> None:
        """Nothing may be written to this generation while a later one, begun in vain, could come to light after a
        power cut. Raises OSError.
        """
        replica = self._replica
        if replica.shared.slots[shared.LEFTOVER]:
            journal.remove_after(replica.directory, replica.shared[shared.GENERATION])
            replica.shared[shared.LEFTOVER] = 0

    def begin(self) -> None:
        """Begin a new generation: a snapshot, after every log was flushed. Raises OSError; then the old one stands."""
        replica = self._replica
        header, state, opened = replica.shared, replica.state, replica.journal
        generation = (opened.generation if opened is not None else 0) + 1
        for number in state.logs():
            log = replica.log(number)
            self._flush(log)
            log.slots.set(shared.CHECKED, log.end.bytes)
            state.set_known_end(number, log.flushed)
        state.number = max(state.number, header[shared.NUMBER])
        replica.model.set_down(state, generation)
        snapshot = replica.model.snapshot(state)
        state.forget_intents()  # every log is flushed
        size = journal.create(
            replica.directory, generation, snapshot, max(replica.model.journal_version(state), formats.OLDEST_WRITTEN)
        )
        following = Journal(replica.directory, generation)
        if opened is not None:
            opened.close()
        replica.journal, replica.at, replica.snapshot_size, state.complete = following, size, size, True
        self._not_before = 0
        header[shared.JOURNAL] = header[shared.JOURNAL_SYNCED] = size
        header[shared.INTENT] = 0
        header[shared.GENERATION] = generation
        journal.remove_before(replica.directory, generation)
        replica.model.tidy(state)

    @staticmethod
    def _flush(log: Log) -> None:
        end = log.end
        if end[:2] > log.flushed[:2]:
            segment = log.pin(end)
            try:
                log.flush_again(segment)
            finally:
                segment.unpin()

    def check_off(self, logs: list[Log]) -> None:
        """Note in the journal, now and then, up to where a log needs no look at the next opening."""
        ops = []
        for log in logs:
            slots, at = log.slots.common.slots, log.slots.row
            if slots[at + shared.SYNC_BYTES] - slots[at + shared.CHECKED] > CHECK_BYTES:
                end = log.flushed
                slots[at + shared.CHECKED] = end.bytes
                ops.append(LogEnd.of(log.number, end))
        if ops:
            for op in ops:
                op.apply(self._replica.state)
            with contextlib.suppress(OSError):
                self._replica.write_journal(ops, promised=False)
