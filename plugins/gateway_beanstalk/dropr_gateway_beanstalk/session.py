"""One connection's commands carried out at the desk, in their order.

Owns what a connection knows (the tubes it watches) and what each command does. Neighbours of one kind are one call of
the desk: many puts that arrive together are one commit, and so are many deletes. Must not know how commands are written
(`commands`), how they arrive (`conversation`) or what statistics look like (`statistics`).
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dropr_core.contracts.gateway import Desk, Held, Line
from dropr_core.errors import Closed, DroprError
from dropr_core.gateway_kit.conversation import Conversation
from dropr_gateway_beanstalk import commands as c
from dropr_gateway_beanstalk import replies
from dropr_gateway_beanstalk.parser import Parser
from dropr_gateway_beanstalk.putting import Putting
from dropr_gateway_beanstalk.statistics import Statistics
from dropr_gateway_beanstalk.survey import MAX_NUMBER, Survey
from dropr_gateway_beanstalk.tubes import DEFAULT, channel_of
from dropr_gateway_beanstalk.work import ENDINGS, Work

AT_ONCE = 100
"""Most jobs that are reserved in one call."""


class Session(Conversation[c.Command]):
    """Made for one connection; `run` serves it."""

    def __init__(
        self, line: Line, desk: Desk, statistics: Statistics, sessions: "set[Session]", log: logging.Logger, *,
        max_job: int, ttr: int,
    ) -> None:  # fmt: skip
        super().__init__(line, Parser(max_job).feed)
        self._desk, self._statistics, self._sessions, self._log = desk, statistics, sessions, log
        self._survey = Survey(desk, statistics, ttr, self._expire_all)
        self._putting = Putting(line, desk, statistics, log)
        self._work = Work(desk, statistics, self._survey, ttr, self._loop.time)
        self._watched = {DEFAULT: DEFAULT}  # tube → channel
        self._worker = False
        self._in_vain = False  # nothing is ready for the reserve that comes next: that was asked without the task

    async def run(self) -> None:
        """Serve it until it ends."""
        self._arrive()
        try:
            await self.converse()
        finally:
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
        statistics.producers -= self._putting.producer
        statistics.workers -= self._worker
        statistics.tube(self._putting.used).using -= 1
        for tube in self._watched:
            statistics.tube(tube).watching -= 1

    @property
    def holds(self) -> bool:
        """See `Conversation`."""
        return bool(self._work)

    # ── carrying out ─────────────────────────────────────────────────────────────────────────────

    async def carry_out(self) -> None:
        """See `Conversation`."""
        first = self._pending[0]
        run = self._more((c.Put,)) or self._more(ENDINGS) or [self._pending.popleft()]
        try:
            if isinstance(first, c.Put):
                await self.say(*await self._putting.put(run))
            elif isinstance(first, c.Reserve):
                await self._reserve(first)
            elif isinstance(first, ENDINGS):
                await self.say(*await self._work.end(run))
            else:
                await self.say(await self._HANDLERS[type(first)](self, first))
        except Closed:
            raise
        except DroprError as error:
            await self.say(*[self._failed(first, error)] * len(run))

    def _failed(self, command: c.Command, error: BaseException) -> bytes:
        self._log.error("%s: %s failed: %s", self._line.peer, type(command).__name__.lower(), error)
        return replies.INTERNAL_ERROR

    def _fail(self, run: Sequence[c.Command], error: BaseException) -> None:
        """What was begun has failed."""
        if isinstance(error, Closed):
            self._ended = True
            self.finish([])
        else:
            self.finish([self._failed(run[0], error)] * len(run))

    def begin(self) -> bool:
        """See `Conversation`: puts, reserves of what is ready, and the ends of jobs in hand are short."""
        first = self._pending[0]
        if isinstance(first, c.Put):
            puts = self._more((c.Put,))
            begun = self._putting.begin(puts, self.finish)
            if not begun:
                self._pending.extendleft(reversed(puts))
            return begun
        if isinstance(first, c.Reserve):
            return self._reserve_soon(first)
        return isinstance(first, ENDINGS) and self._end_soon()

    def _more(self, kinds: tuple[type, ...]) -> list[Any]:
        """The commands that follow and are of these kinds."""
        run = []
        while self._pending and isinstance(self._pending[0], kinds):
            run.append(self._pending.popleft())
        return run

    def _count(self, name: str, times: int = 1) -> None:
        self._statistics.commands[name] += times

    def _end_soon(self) -> bool:
        run = self._more(ENDINGS)
        changes = self._work.changes(run)
        if changes is None:
            self._pending.extendleft(reversed(run))
            return False

        def done(result: Any) -> None:
            if isinstance(result, BaseException):
                self._fail(run, result)
            else:
                self.finish(self._work.ended(run, changes, result))

        self._desk.settle_soon(changes, done)
        return True

    # ── reserving ────────────────────────────────────────────────────────────────────────────────

    def _note_worker(self) -> None:
        self._statistics.workers += not self._worker
        self._worker = True

    def _together(self, most: int) -> int:
        """How many of the pending commands are reserves that can be one call."""
        many = 0
        for command in self._pending:
            if many >= most or not isinstance(command, c.Reserve):
                break
            many += 1
        return many

    def _taken(self, first: c.Reserve, jobs: Sequence[Held]) -> list[bytes]:
        """Answers to a reserve, and to those behind it that got a job, too."""
        for one in [first, *(self._pending.popleft() for _ in jobs[1:])]:
            self._count("reserve-with-timeout" if isinstance(one, c.Reserve) and one.timed else "reserve")
        return [self._work.take(held) for held in jobs]

    def _reserve_soon(self, first: c.Reserve) -> bool:
        self._note_worker()
        if self._in_vain or self._work.until_margin() == 0:
            return False

        def done(jobs: Any) -> None:
            if isinstance(jobs, BaseException):
                self._pending.popleft()
                self._fail([first], jobs)
            elif jobs:
                self._pending.popleft()
                self.finish(self._taken(first, jobs))
            else:
                self._in_vain = True
                self.finish([])

        self._desk.reserve_soon(self._watched.values(), self._together(AT_ONCE), done)
        return True

    async def _reserve(self, first: c.Reserve) -> None:
        self._note_worker()
        margin = self._work.until_margin()
        jobs: Sequence[Held] = ()
        if self._in_vain:
            self._in_vain = False
        else:
            limit = 1 if margin == 0 else 1 + self._together(AT_ONCE - 1)
            jobs = await self._desk.reserve(self._watched.values(), limit=limit)
        answers = self._taken(first, jobs)
        if jobs:
            await self.say(*answers)
        elif margin == 0:
            await self.say(replies.DEADLINE_SOON)
        elif first.seconds == 0:
            await self.say(replies.TIMED_OUT)
        else:
            await self._wait(first.seconds, margin)

    async def _wait(self, seconds: int | None, margin: float | None) -> None:
        """Nothing is ready: wait for a job, for the end of the time, or for the margin of a job in hand."""
        await self.flush()
        limit = min((one for one in (seconds, margin) if one is not None), default=None)
        self._waiting(1)
        try:
            jobs = await self.meanwhile_reading(self._desk.reserve(self._watched.values(), wait=limit))
        finally:
            self._waiting(-1)
        if jobs:
            await self.say(self._work.take(jobs[0]))
        elif self._line.stopping.is_set() and not self._eof:
            self._ended = True  # it shall wait elsewhere
            if seconds is not None:
                await self.say(replies.TIMED_OUT)
        elif margin is not None and limit == margin and not self._eof:
            await self.say(replies.DEADLINE_SOON)
        else:
            await self.say(replies.TIMED_OUT)

    def _waiting(self, change: int) -> None:
        self._statistics.waiting += change
        for tube in self._watched:
            self._statistics.tube(tube).waiting += change

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
        self._putting.use(command.tube, channel)
        return replies.using(command.tube)

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
        return replies.kicked(await self._desk.kick(self._putting.channel, command.bound))

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
        return await self._survey.peek_state(self._putting.channel, command.state)

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
            return replies.using(self._putting.used)
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
