"""What all connections of one gateway share: jobs in hand, who is connected, functions that were named.

Owns `Hall` and the plugin's `Options`. Knows no packets that come in, and nothing of the store.
"""

import itertools
from typing import Protocol

import attrs

from dropr_core import options as fields
from dropr_gateway_gearman.jobs import Jobs
from dropr_gateway_gearman.naming import Handles

MAX_FUNCTIONS = 10_000
"""Functions that an admin may create or give a limit; they are names in memory."""


@attrs.frozen(kw_only=True)
class Options:
    """Options of the gateway ``gearman``."""

    max_job: int = fields.size(
        "16MiB",
        least=1024,
        most=1 << 30,
        doc="Most bytes of a packet: a job's data, a result. More closes the connection.",
    )
    max_jobs: int = fields.option(10_000, least=1, doc="Jobs for whose results one connection may wait at once.")
    offer: float = fields.duration(
        "1s", least=0.01, doc="How long a job is kept for a worker that was woken for it; then another one gets it."
    )


class Connected(Protocol):
    """A connection, as the admin protocol shows it."""

    number: int
    address: str

    @property
    def name(self) -> bytes:
        """What it calls itself."""
        ...

    def functions(self) -> list[bytes]:
        """What it can do."""
        ...

    def channels(self) -> list[str]:
        """The same as channels."""
        ...


class Hall:
    """One gateway's."""

    def __init__(self, node: str, options: Options) -> None:
        self.options = options
        self.handles = Handles(node)
        self.jobs = Jobs()
        self.connected = list[Connected]()
        self.created = set[str]()
        """Channels of functions that an admin created."""
        self.limits = dict[str, tuple[int, int, int]]()
        """Channel → how many jobs may be in it for one more to be taken, by priority (high, normal, low); 0: any."""
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """One that no other connection of this gateway has."""
        return next(self._numbers)

    def has_room(self, channel: str) -> bool:
        """Whether one more name fits into memory."""
        return channel in self.created or channel in self.limits or len(self.created) + len(self.limits) < MAX_FUNCTIONS

    def workers(self, channel: str) -> int:
        """How many connections can do it."""
        return sum(channel in one.channels() for one in self.connected)


__all__ = ["MAX_FUNCTIONS", "Connected", "Hall", "Options"]
