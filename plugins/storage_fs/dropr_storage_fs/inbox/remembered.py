"""Messages that are done with and remembered in files, and not in memory: kept, buried, expired.

Owns how one goes there, and how one comes back when something happens to it. Used inside a job. Must not know how the
files are made.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from dropr_core.contracts.context import Context
from dropr_storage_fs.engine import remembered
from dropr_storage_fs.engine.events import Events
from dropr_storage_fs.engine.remembered import Found, Fresh, Remembered
from dropr_storage_fs.engine.run import Row
from dropr_storage_fs.engine.run_files import RunFiles
from dropr_storage_fs.inbox.operations import AddJob
from dropr_storage_fs.inbox.rows import JobRecord
from dropr_storage_fs.inbox.state import InboxState

PREFIX = "remembered."

_decode = msgspec.msgpack.Decoder(AddJob).decode


class PastJob(NamedTuple):
    """A message that stands in a run."""

    found: Found[AddJob]
    record: JobRecord


class PastJobs(Remembered[InboxState, AddJob]):
    """The runs of messages of one inbox."""

    def __init__(self, directory: Path, context: Context) -> None:
        super().__init__(RunFiles(directory, PREFIX, Events(directory, context)), context.clock)

    def decode(self, payload: bytes) -> AddJob:
        """A message."""
        return _decode(payload)

    def identify(self, op: AddJob) -> tuple[int | None, bytes]:
        """Number and id."""
        return op.number, op.id

    def key(self, log: int, sequence: int) -> int:  # noqa: ARG002
        """The number, which is counted over all queues."""
        return sequence

    def row(self, op: AddJob) -> Row:
        """What is counted of a message."""
        return Row(op.queue, op.state, op.size, op.segment)

    def until(self, op: AddJob) -> float:
        """Version 1 of a run has no messages of an inbox."""
        return op.changed + op.keep

    # ── looking up ───────────────────────────────────────────────────────────────────────────────

    def named(self, state: InboxState, message_id: bytes) -> list[PastJob]:
        """All messages with an id, in order of arrival."""
        return [PastJob(found, found.op.record()) for found in self.of_message(state, message_id)]

    def numbered(self, state: InboxState, number: int) -> PastJob | None:
        """The message with a number."""
        found = self.at(state, number)
        return None if found is None else PastJob(found, found.op.record())

    def beyond(self, state: InboxState, number: int) -> Iterator[PastJob]:
        """All messages beyond a number, in order."""
        return (PastJob(found, found.op.record()) for found in self.between(state, number + 1))

    # ── setting down ─────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def wanted(state: InboxState) -> bool:
        """Whether so much may go out of memory that it should."""
        return state.holes or remembered.asks(state.settled, 0, len(state.jobs) - state.settled)

    def fresh(self, state: InboxState) -> list[Fresh[AddJob]]:
        """What is done with."""
        past = sorted((job for job in state.jobs.values() if not job.live), key=lambda job: job.number)
        return [Fresh(job.number, job.id, job.changed + job.keep, AddJob.of(job)) for job in past]

    def release(self, state: InboxState, fresh: Iterable[Fresh[AddJob]]) -> None:
        """They are not in memory any more."""
        state.set_down([one.op.number for one in fresh])
