"""One connection: its commands carried out at the desk, in their order.

Owns what a connection knows (the tube in use, those watched) and the loop that reads, carries out and answers.
Neighbours of one kind are one call of the desk: many puts that arrive together are one commit, and so are many deletes.
Must not know how commands are written (`commands`) or what statistics look like (`statistics`).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dropr_core.contracts.gateway import Desk, Held, Line, Parcel
from dropr_core.errors import Closed, DroprError, QueueFull, TooBig, UsageError
from dropr_gateway_beanstalk import commands as c
from dropr_gateway_beanstalk import replies
from dropr_gateway_beanstalk.hands import TTR_HEADER
from dropr_gateway_beanstalk.parser import Parser
from dropr_gateway_beanstalk.statistics import Statistics
from dropr_gateway_beanstalk.survey import MAX_NUMBER, Survey
from dropr_gateway_beanstalk.tubes import DEFAULT, channel_of
from dropr_gateway_beanstalk.work import ENDINGS, Work

AT_ONCE = 100
"""Most jobs that are reserved in one call."""
AHEAD = 64 * 1024
"""Bytes of commands that are read while a reserve waits."""
UNWRITTEN = 64 * 1024
"""Bytes of answers that are gathered before they are written."""


class Session:
    """Made for one connection; `run` serves it."""

    def __init__(
        self, line: Line, desk: Desk, statistics: Statistics, sessions: "set[Session]", log: logging.Logger, *,
        max_job: int, ttr: int,
    ) -> None:  # fmt: skip
        self._line, self._desk, self._statistics, self._sessions, self._log = line, desk, statistics, sessions, log
        self._loop = asyncio.get_running_loop()
        self._survey = Survey(desk, statistics, ttr, self._expire_all)
        self._work = Work(desk, statistics, self._survey, ttr, self._loop.time)
        self._parser = Parser(max_job)
        self._pending: deque[c.Command] = deque()
        self._out: list[bytes] = []
        self._unwritten = 0
        self._used, self._channel = DEFAULT, DEFAULT
        self._watched = {DEFAULT: DEFAULT}  # tube → channel
        self._producer = self._worker = self._ended = self._eof = False
        self._ahead: asyncio.Task[bytes] | None = None  # a read that a waiting reserve began
        self._resting: asyncio.Timeout | None = None

    # ── reading and writing ──────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Serve it until it ends."""
        self._arrive()
        stopping = asyncio.ensure_future(self._line.stopping.wait())
        stopping.add_done_callback(lambda _: self._wake())
        try:
            while not self._ended and (self._pending or await self._read()):
                if self._pending:
                    await self._next()
            await self._flush()
        finally:
            stopping.cancel()
            if self._ahead is not None:
                self._ahead.cancel()
            self._leave()

    def _arrive(self) -> None:
        statistics = self._statistics
        self._sessions.add(self)
        statistics.connections += 1
        statistics.total_connections += 1
        tube = statistics.tube(DEFAULT)
        tube.using += 1
        tube.watching += 1

    def _leave(self) -> None:
        statistics = self._statistics
        self._sessions.discard(self)
        self._work.expire()
        statistics.connections -= 1
        statistics.producers -= self._producer
        statistics.workers -= self._worker
        statistics.tube(self._used).using -= 1
        for tube in self._watched:
            statistics.tube(tube).watching -= 1

    async def _read(self) -> bool:
        """Get more commands; False if none will come."""
        await self._flush()
        while not self._eof and (self._work or not self._line.stopping.is_set()):
            reading, self._ahead = self._ahead, None
            try:
                async with asyncio.timeout(None) as self._resting:
                    data = await (reading or self._line.read())
            except TimeoutError:  # the gateway drains
                continue
            finally:
                self._resting = None
            self._take_in(data)
            return not self._eof
        return False

    def _wake(self) -> None:
        if self._resting is not None:
            self._resting.reschedule(self._loop.time())

    def _take_in(self, data: bytes) -> None:
        self._eof = not data
        self._pending.extend(self._parser.feed(data))

    async def _say(self, *answers: bytes) -> None:
        self._out += answers
        self._unwritten += sum(map(len, answers))
        if self._unwritten >= UNWRITTEN:
            await self._flush()

    async def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._unwritten = 0
            await self._line.write(data)

    # ── carrying out ─────────────────────────────────────────────────────────────────────────────

    async def _next(self) -> None:
        """Carry out the next command, together with those behind it that go with it."""
        first = self._pending.popleft()
        try:
            if isinstance(first, c.Put):
                await self._say(*await self._put([first, *self._more((c.Put,))]))
            elif isinstance(first, c.Reserve):
                await self._reserve(first)
            elif isinstance(first, ENDINGS):
                await self._say(*await self._work.end([first, *self._more(ENDINGS)]))
            else:
                await self._say(await self._HANDLERS[type(first)](self, first))
        except Closed:
            raise
        except DroprError as error:
            self._log.error("%s: %s failed: %s", self._line.peer, type(first).__name__.lower(), error)
            await self._say(replies.INTERNAL_ERROR)

    def _more(self, kinds: tuple[type, ...]) -> list[Any]:
        """The commands that follow and are of these kinds."""
        run = []
        while self._pending and isinstance(self._pending[0], kinds):
            run.append(self._pending.popleft())
        return run

    def _count(self, name: str, times: int = 1) -> None:
        self._statistics.commands[name] += times

    async def _put(self, puts: Sequence[c.Put]) -> list[bytes]:
        self._count("put", len(puts))
        self._statistics.producers += not self._producer
        self._producer = True
        answers = await self._store(puts)
        if answers is None:  # one of them cannot be, the others can
            answers = [answer for put in puts for answer in await self._store([put]) or [replies.INTERNAL_ERROR]]
        return answers

    async def _store(self, puts: Sequence[c.Put]) -> list[bytes] | None:
        """Answers to each; None if one of several is refused."""
        if self._line.stopping.is_set():
            return [replies.DRAINING] * len(puts)
        channel = self._channel
        parcels = [
            Parcel(
                channel=channel, body=put.body, rank=put.priority, delay=put.delay, headers={TTR_HEADER: str(put.ttr)}
            )
            for put in puts
        ]
        try:
            placed = await self._desk.put(*parcels)
        except Closed:
            return [replies.DRAINING] * len(puts)
        except UsageError as error:
            return None if len(puts) > 1 else [self._refusal(error)]
        except DroprError as error:
            return [self._refusal(error)] * len(puts)
        statistics = self._statistics
        statistics.jobs += len(placed)
        statistics.tube(self._used).jobs += len(placed)
        for put, one in zip(puts, placed, strict=True):
            if put.delay:
                statistics.job(one.number).delay = put.delay
        return [replies.inserted(one.number) for one in placed]

    def _refusal(self, error: DroprError) -> bytes:
        if isinstance(error, QueueFull):
            return replies.OUT_OF_MEMORY
        if isinstance(error, TooBig):
            return replies.JOB_TOO_BIG
        self._log.error("%s: nothing was put into tube %s: %s", self._line.peer, self._used, error)
        return replies.INTERNAL_ERROR

    # ── reserving ────────────────────────────────────────────────────────────────────────────────

    def _note_worker(self) -> None:
        self._statistics.workers += not self._worker
        self._worker = True

    async def _reserve(self, first: c.Reserve) -> None:
        self._note_worker()
        margin = self._work.until_margin()
        many = 1
        while margin != 0 and many <= min(AT_ONCE - 1, len(self._pending)):
            if not isinstance(self._pending[many - 1], c.Reserve):
                break
            many += 1
        jobs = await self._desk.reserve(self._watched.values(), limit=many)
        for one in [first, *(self._pending.popleft() for _ in jobs[1:])]:
            self._count("reserve-with-timeout" if isinstance(one, c.Reserve) and one.timed else "reserve")
        if jobs:
            for held in jobs:
                await self._say(self._work.take(held))
        elif margin == 0:
            await self._say(replies.DEADLINE_SOON)
        elif first.seconds == 0:
            await self._say(replies.TIMED_OUT)
        else:
            await self._wait(first.seconds, margin)

    async def _wait(self, seconds: int | None, margin: float | None) -> None:
        """Nothing is ready: wait for a job, for the end of the time, or for the margin of a job in hand."""
        await self._flush()
        limit = min((one for one in (seconds, margin) if one is not None), default=None)
        self._waiting(1)
        try:
            jobs = await self._meanwhile_reading(self._desk.reserve(self._watched.values(), wait=limit))
        finally:
            self._waiting(-1)
        if jobs:
            await self._say(self._work.take(jobs[0]))
        elif self._line.stopping.is_set() and not self._eof:
            self._ended = True  # it shall wait elsewhere
            if seconds is not None:
                await self._say(replies.TIMED_OUT)
        elif margin is not None and limit == margin and not self._eof:
            await self._say(replies.DEADLINE_SOON)
        else:
            await self._say(replies.TIMED_OUT)

    def _waiting(self, change: int) -> None:
        self._statistics.waiting += change
        for tube in self._watched:
            self._statistics.tube(tube).waiting += change

    async def _meanwhile_reading(self, reserving: Awaitable[list[Held]]) -> list[Held]:
        """Wait for it, and notice if the connection ends; what arrives is kept for later."""
        waiting = asyncio.ensure_future(reserving)
        room = AHEAD
        try:
            while not waiting.done() and not self._eof:
                if self._ahead is None and room > 0:
                    self._ahead = asyncio.ensure_future(self._line.read())
                tasks: set[asyncio.Future[Any]] = {waiting}
                if self._ahead is not None:
                    tasks.add(self._ahead)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if self._ahead is not None and self._ahead.done():
                    reading, self._ahead = self._ahead, None
                    data = reading.result()
                    room -= len(data)
                    self._take_in(data)
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})
        return [] if waiting.cancelled() else waiting.result()

    async def _reserve_job(self, command: c.ReserveJob) -> bytes:
        self._note_worker()
        return await self._work.take_number(command.id)

    async def _touch(self, command: c.Touch) -> bytes:
        self._count("touch")
        return self._work.touch(command.id)

    def _expire_all(self) -> None:
        for session in self._sessions:
            session._work.expire()  # noqa: SLF001 - of this class

    # ── tubes ────────────────────────────────────────────────────────────────────────────────────

    async def _use(self, command: c.Use) -> bytes:
        channel = channel_of(command.tube)
        if channel is None:
            return replies.BAD_FORMAT
        self._count("use")
        self._statistics.tube(command.tube).using += 1
        self._statistics.tube(self._used).using -= 1
        self._used, self._channel = command.tube, channel
        return replies.using(self._used)

    async def _watch(self, command: c.Watch) -> bytes:
        channel = channel_of(command.tube)
        if channel is None:
            return replies.BAD_FORMAT
        self._count("watch")
        if command.tube not in self._watched:
            self._watched[command.tube] = channel
            self._statistics.tube(command.tube).watching += 1
        return replies.watching(len(self._watched))

    async def _ignore(self, command: c.Ignore) -> bytes:
        self._count("ignore")
        if command.tube in self._watched:
            if len(self._watched) == 1:
                return replies.NOT_IGNORED
            del self._watched[command.tube]
            self._statistics.tube(command.tube).watching -= 1
        return replies.watching(len(self._watched))

    async def _pause(self, command: c.PauseTube) -> bytes:
        self._count("pause-tube")
        channel = channel_of(command.tube)
        if channel is None or not await self._survey.exists(command.tube):
            return replies.NOT_FOUND
        if command.delay:
            await self._desk.pause(channel, float(command.delay))
        else:
            await self._desk.resume(channel)
        tube = self._statistics.tube(command.tube)
        tube.pauses += 1
        tube.paused_for = command.delay
        return replies.PAUSED

    async def _kick(self, command: c.Kick) -> bytes:
        self._count("kick")
        return replies.kicked(await self._desk.kick(self._channel, command.bound))

    async def _kick_job(self, command: c.KickJob) -> bytes:
        if command.id > MAX_NUMBER or not await self._desk.kick_number(command.id):
            return replies.NOT_FOUND
        self._statistics.job(command.id).kicks += 1
        return replies.KICKED

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    async def _peek(self, command: c.Peek) -> bytes:
        self._count("peek")
        return await self._survey.peek(command.id)

    async def _peek_state(self, command: c.PeekState) -> bytes:
        self._count(f"peek-{command.state}")
        return await self._survey.peek_state(self._channel, command.state)

    async def _stats_job(self, command: c.StatsJob) -> bytes:
        self._count("stats-job")
        return await self._survey.job(command.id)

    async def _stats_tube(self, command: c.StatsTube) -> bytes:
        self._count("stats-tube")
        return await self._survey.tube(command.tube)

    async def _plain(self, command: c.Plain) -> bytes:
        name = command.name
        if name == "quit":
            self._ended = True
            return b""
        self._count(name)
        if name == "list-tube-used":
            return replies.using(self._used)
        if name == "list-tubes-watched":
            return replies.names(self._watched)
        if name == "list-tubes":
            return replies.names(await self._survey.tubes())
        return await self._survey.all(draining=self._line.stopping.is_set())

    async def _refuse(self, command: c.Refused) -> bytes:
        if command.name:
            self._count(command.name)
        return command.reply

    _HANDLERS: dict[type, Callable[["Session", Any], Awaitable[bytes]]] = {  # noqa: RUF012 - never changed
        c.ReserveJob: _reserve_job, c.Touch: _touch, c.Use: _use, c.Watch: _watch, c.Ignore: _ignore, c.Peek: _peek,
        c.PeekState: _peek_state, c.Kick: _kick, c.KickJob: _kick_job, c.PauseTube: _pause, c.StatsJob: _stats_job,
        c.StatsTube: _stats_tube, c.Plain: _plain, c.Refused: _refuse,
    }  # fmt: skip
