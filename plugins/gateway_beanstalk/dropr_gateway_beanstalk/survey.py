"""What only looks: at jobs, at tubes, and at all of them together.

Owns the answers to peek, stats and list commands. A tube exists while a connection uses or watches it, and while there
are messages in its channel. Must not know connections.
"""

from collections.abc import Callable, Iterable, Mapping

from dropr_core.contracts.gateway import Counts, Desk, Seen
from dropr_core.model.message import State
from dropr_gateway_beanstalk import replies
from dropr_gateway_beanstalk.hands import ttr_in
from dropr_gateway_beanstalk.statistics import STATES, Statistics
from dropr_gateway_beanstalk.tubes import DEFAULT, channel_of, tube_of

MAX_NUMBER = 2**63 - 1
"""The largest number that a job of a node can have; the protocol's go on to 2^64 - 1."""

_PEEKED = {"ready": State.READY, "delayed": State.DELAYED, "buried": State.BURIED}


class Survey:
    """Looks at a node for one connection. ``expire`` notes whose time has run out on any connection."""

    def __init__(self, desk: Desk, statistics: Statistics, ttr: int, expire: Callable[[], None]) -> None:
        self._desk, self._statistics, self._ttr, self._expire = desk, statistics, ttr, expire

    async def find(self, number: int) -> Seen | None:
        """A job that is still there."""
        seen = await self._desk.find(number) if number <= MAX_NUMBER else None
        return seen if seen is not None and seen.state in STATES else None

    async def peek(self, number: int) -> bytes:
        """Answers peek."""
        return _found(await self.find(number))

    async def peek_state(self, channel: str, state: str) -> bytes:
        """Answers peek-ready, peek-delayed, peek-buried."""
        return _found(await self._desk.peek(channel, _PEEKED[state]))

    async def tubes(self) -> list[str]:
        """All that exist, "default" first."""
        return self._with_channels(await self._desk.counts())

    def _with_channels(self, channels: Mapping[str, Counts]) -> list[str]:
        names = {tube_of(channel) for channel, counts in channels.items() if _holds_any(counts)}
        names.update(name for name, tube in self._statistics.tubes.items() if tube.wanted)
        return [DEFAULT, *sorted(names - {DEFAULT})]

    async def exists(self, tube: str) -> bool:
        """Whether this one does."""
        known = self._statistics.tubes.get(tube)
        if tube == DEFAULT or (known is not None and known.wanted):
            return True
        channel = channel_of(tube)
        return channel is not None and _holds_any(await self._desk.count(channel))

    async def job(self, number: int) -> bytes:
        """Answers stats-job."""
        self._expire()
        seen = await self.find(number)
        if seen is None:
            return replies.NOT_FOUND
        return replies.facts(self._statistics.of_job(seen, tube_of(seen.channel), ttr_in(seen.headers, self._ttr)))

    async def tube(self, name: str) -> bytes:
        """Answers stats-tube."""
        channel = channel_of(name)
        if channel is None or not await self.exists(name):
            return replies.NOT_FOUND
        return replies.facts(self._statistics.of_tube(name, await self._desk.count(channel)))

    async def all(self, *, draining: bool) -> bytes:
        """Answers stats."""
        self._expire()
        counts = await self._desk.counts()
        tubes = len(self._with_channels(counts))
        return replies.facts(self._statistics.of_all(_sum(counts.values()), tubes, draining=draining))


def _found(seen: Seen | None) -> bytes:
    return replies.NOT_FOUND if seen is None else replies.found(seen.number, seen.body)


def _holds_any(counts: Counts) -> bool:
    return bool(
        counts.ready or counts.blocked or counts.delayed or counts.leased or counts.buried or counts.outgoing
    )  # fmt: skip


def _sum(channels: Iterable[Counts]) -> Counts:
    ready = urgent = delayed = blocked = leased = buried = outgoing = 0
    for one in channels:
        ready += one.ready
        urgent += one.urgent
        delayed += one.delayed
        blocked += one.blocked
        leased += one.leased
        buried += one.buried
        outgoing += one.outgoing
    return Counts(
        ready=ready, urgent=urgent, delayed=delayed, blocked=blocked, leased=leased, buried=buried, outgoing=outgoing
    )
