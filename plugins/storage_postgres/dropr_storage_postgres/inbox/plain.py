"""Plain messages of one lane or caller, which enter the inbox by a function that knows nothing else.

Owns what is plain, and the arguments. Everything else, and what is new here (a lane's first arrival), goes the general
way (`accept.py`). Must not know transactions.
"""

from typing import Any

from dropr_core.contracts.inbox_records import PlainJobs
from dropr_core.model.names import first_rank
from dropr_storage_postgres.engine.columns import ByteColumn
from dropr_storage_postgres.engine.inbox_tables import RECEIPT
from dropr_storage_postgres.inbox.part import Part


def plain_jobs(part: Part, now: float) -> tuple[Any, ...] | None:
    """What `in_push` and `in_put_plain` are given for the messages; None if there are none, or one is special."""
    jobs = part.jobs
    if not jobs:
        return None
    first = first_rank(part.queue)
    if isinstance(jobs, PlainJobs):
        if jobs.rank is not None and jobs.rank != first:
            return None
        receipt, ids, envelopes = jobs.receipt, ByteColumn(jobs.ids), ByteColumn(jobs.envelopes)
    else:
        receipt = jobs[0].receipt
        for _, _, _, key, wants, due_in, expires_in, duplicate, rank in jobs:
            if (
                key is not None or due_in is not None or expires_in is not None or duplicate or wants is not receipt
                or (rank is not None and rank != first)
            ):  # fmt: skip
                return None
        ids, envelopes = ByteColumn(job[0] for job in jobs), ByteColumn(job[1] for job in jobs)
    return len(ids), sum(map(len, envelopes)), RECEIPT if receipt else 0, ids, envelopes, now
