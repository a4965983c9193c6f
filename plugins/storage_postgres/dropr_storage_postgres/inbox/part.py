"""What comes for one queue in one call. Must not know how it is stored."""

from collections.abc import Sequence
from typing import NamedTuple

from dropr_core.contracts.storage import Job
from dropr_core.model.names import Head


class Part(NamedTuple):
    """By a lane, or from this node itself (no store)."""

    sender: str
    store: bytes | None
    channel: str
    priority: int
    queue: int
    after: Head
    upto: Head
    jobs: Sequence[Job]
