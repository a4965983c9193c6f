"""The jobs that one connection works on, from reserved to deleted, released or buried.

Owns what is in its hands, and settling. Must not know how jobs are waited for, or how commands arrive.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dropr_core.contracts.gateway import Change, Desk, Held
from dropr_gateway_beanstalk import replies
from dropr_gateway_beanstalk.commands import Bury, Delete, Release
from dropr_gateway_beanstalk.hands import Hands, ttr_in
from dropr_gateway_beanstalk.statistics import Statistics
from dropr_gateway_beanstalk.survey import MAX_NUMBER, Survey
from dropr_gateway_beanstalk.tubes import tube_of

Ending: TypeAlias = Delete | Release | Bury
ENDINGS = (Delete, Release, Bury)
_COUNTED = {Delete: "delete", Release: "release", Bury: "bury"}

MARGIN = 1.0
"""Seconds before the end of a job's time in which its worker is not left waiting for another one."""


class Work:
    """Of one connection. ``clock`` is the event loop's."""

    def __init__(
        self, desk: Desk, statistics: Statistics, survey: Survey, ttr: int, clock: Callable[[], float]
    ) -> None:
        self._desk, self._statistics, self._survey, self._ttr, self._clock = desk, statistics, survey, ttr, clock
        self._hands = Hands(clock)

    def __bool__(self) -> bool:
        return bool(self._hands)

    def take(self, held: Held) -> bytes:
        """It was reserved; what to answer."""
        self._hands.take(held, ttr_in(held.headers, self._ttr))
        job = self._statistics.known_job(held.number)
        if job is not None:
            job.reserves += 1
        return replies.reserved(held.number, held.body)

    async def take_number(self, number: int) -> bytes:
        """Answers reserve-job."""
        held = await self._desk.reserve_number(number) if number <= MAX_NUMBER else None
        return replies.NOT_FOUND if held is None else self.take(held)

    def until_margin(self) -> float | None:
        """Seconds until the margin of the first job begins, 0 within it; None with nothing in hand."""
        self.expire()
        soonest = self._hands.soonest()
        return None if soonest is None else max(0.0, soonest - MARGIN - self._clock())

    def expire(self) -> None:
        """Note which jobs have run out of time."""
        for number in self._hands.expire():
            self._statistics.timeouts += 1
            self._statistics.job(number).timeouts += 1

    def touch(self, number: int) -> bytes:
        """Answers touch."""
        self.expire()
        return replies.TOUCHED if self._hands.touch(number) else replies.NOT_FOUND

    async def end(self, run: Sequence[Ending]) -> list[bytes]:
        """Answers delete, release and bury; jobs in hand in one commit."""
        self.expire()
        answers: list[bytes] = []
        settling: list[tuple[Ending, Change]] = []
        for command in run:
            self._count(command)
            held = self._hands.get(command.id)
            if held is not None:
                self._hands.drop(command.id)
                settling.append((command, _change(held, command)))
                continue
            answers += await self._settle(settling)  # it may be about one of these
            settling = []
            answers.append(await self._delete(command.id) if isinstance(command, Delete) else replies.NOT_FOUND)
        return answers + await self._settle(settling)

    def _count(self, command: Ending) -> None:
        self._statistics.commands[_COUNTED[type(command)]] += 1

    def changes(self, run: Sequence[Ending]) -> list[Change] | None:
        """What ends these jobs, which are in hand no more; None, and nothing has changed, if one of them is not."""
        self.expire()
        hands = [self._hands.get(command.id) for command in run]
        held = [one for one in hands if one is not None]
        if len(held) < len(run) or len(set(hands)) < len(run):
            return None
        for command in run:
            self._count(command)
            self._hands.drop(command.id)
        return [_change(one, command) for one, command in zip(held, run, strict=True)]

    async def _settle(self, run: Sequence[tuple[Ending, Change]]) -> list[bytes]:
        if not run:
            return []
        changes = [change for _, change in run]
        return self.ended([command for command, _ in run], changes, await self._desk.settle(*changes))

    def ended(self, run: Sequence[Ending], changes: Sequence[Change], done: Sequence[bool]) -> list[bytes]:
        """Answers to what was settled so."""
        return [
            self._ended(command, change.held) if good else replies.NOT_FOUND
            for command, change, good in zip(run, changes, done, strict=True)
        ]

    def _ended(self, command: Ending, held: Held) -> bytes:
        statistics = self._statistics
        if isinstance(command, Delete):
            statistics.tube(tube_of(held.channel)).deletes += 1
            statistics.gone(command.id)
            return replies.DELETED
        known = statistics.known_job(command.id)
        job = known or statistics.job(command.id)
        job.reserves = job.reserves if known else held.attempt
        if isinstance(command, Release):
            job.releases += 1
            job.delay = command.delay
            return replies.RELEASED
        job.buries += 1
        return replies.BURIED

    async def _delete(self, number: int) -> bytes:
        """One that is not in hand."""
        seen = await self._survey.find(number)
        if seen is None or not await self._desk.delete(number):
            return replies.NOT_FOUND
        self._statistics.tube(tube_of(seen.channel)).deletes += 1
        self._statistics.gone(number)
        return replies.DELETED


def _change(held: Held, command: Ending) -> Change:
    if isinstance(command, Delete):
        return held.acked()
    if isinstance(command, Release):
        return held.released(float(command.delay), rank=command.priority, counted=False)
    return held.buried("buried by its worker", rank=command.priority)
