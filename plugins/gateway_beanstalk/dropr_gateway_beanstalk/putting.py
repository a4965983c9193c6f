"""The jobs that one connection puts into the tube in use.

Owns the parcels that they become, and the answers, also to what cannot be put. Must not know how commands arrive.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from dropr_core.contracts.gateway import Desk, Line, Parcel, Placed
from dropr_core.errors import Closed, DroprError, QueueFull, TooBig, UsageError
from dropr_gateway_beanstalk import replies
from dropr_gateway_beanstalk.commands import Put
from dropr_gateway_beanstalk.hands import TTR_HEADER
from dropr_gateway_beanstalk.statistics import Statistics
from dropr_gateway_beanstalk.tubes import DEFAULT


class Putting:
    """Of one connection."""

    def __init__(self, line: Line, desk: Desk, statistics: Statistics, log: logging.Logger) -> None:
        self._line, self._desk, self._statistics, self._log = line, desk, statistics, log
        self.used = self.channel = DEFAULT
        """The tube in use, and its channel."""
        self.producer = False
        """Whether it has put anything."""

    def use(self, tube: str, channel: str) -> None:
        """Put into this tube from now on."""
        self._statistics.tube(tube).using += 1
        self._statistics.tube(self.used).using -= 1
        self.used, self.channel = tube, channel

    def begin(self, puts: Sequence[Put], done: Callable[[list[bytes]], None]) -> bool:
        """`put`, told by a call. False: it cannot begin at once, or there is more to be said about it."""
        if self._line.stopping.is_set():
            return False

        def stored(placed: Any) -> None:
            if isinstance(placed, BaseException):
                done([self._refusal(placed)] * len(puts))
            else:
                done(self._inserted(puts, placed))

        begun = False
        with contextlib.suppress(UsageError, Closed):
            begun = self._desk.put_soon(self._parcels(puts), stored)
        if begun:
            self._note(len(puts))
        return begun

    async def put(self, puts: Sequence[Put]) -> list[bytes]:
        """Answers to each."""
        self._note(len(puts))
        answers = await self._store(puts)
        if answers is None:  # one of them cannot be, the others can
            answers = [answer for put in puts for answer in await self._store([put]) or [replies.INTERNAL_ERROR]]
        return answers

    def _note(self, count: int) -> None:
        self._statistics.commands["put"] += count
        self._statistics.producers += not self.producer
        self.producer = True

    def _parcels(self, puts: Sequence[Put]) -> list[Parcel]:
        channel = self.channel
        return [
            Parcel(
                channel=channel, body=put.body, rank=put.priority, delay=put.delay, headers={TTR_HEADER: str(put.ttr)}
            )
            for put in puts
        ]

    async def _store(self, puts: Sequence[Put]) -> list[bytes] | None:
        """Answers to each; None if one of several is refused."""
        if self._line.stopping.is_set():
            return [replies.DRAINING] * len(puts)
        try:
            placed = await self._desk.put(*self._parcels(puts))
        except UsageError as error:
            return None if len(puts) > 1 else [self._refusal(error)]
        except DroprError as error:
            return [self._refusal(error)] * len(puts)
        return self._inserted(puts, placed)

    def _inserted(self, puts: Sequence[Put], placed: Sequence[Placed]) -> list[bytes]:
        statistics = self._statistics
        statistics.jobs += len(placed)
        statistics.tube(self.used).jobs += len(placed)
        for put, one in zip(puts, placed, strict=True):
            if put.delay:
                statistics.job(one.number).delay = put.delay
        return [replies.inserted(one.number) for one in placed]

    def _refusal(self, error: BaseException) -> bytes:
        if isinstance(error, Closed):
            return replies.DRAINING
        if isinstance(error, QueueFull):
            return replies.OUT_OF_MEMORY
        if isinstance(error, TooBig):
            return replies.JOB_TOO_BIG
        self._log.error("%s: nothing was put into tube %s: %s", self._line.peer, self.used, error)
        return replies.INTERNAL_ERROR
