"""Who waits for messages, and who gets which.

Owns the requests of all connections of a process: those for the same channels are one group, which asks the store once
for all of them and deals out what comes in the order in which they asked. Lives in the event loop. Must not know the
store, nor what a message is.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeAlias, TypeVar

from dropr_core.errors import Closed
from dropr_core.gateway.claiming import Taken, Wanted
from dropr_core.gateway.writer import Job, settle_future

M = TypeVar("M")

MOST = 1000
"""Messages that one group asks for at once."""
LOOK_AGAIN = 1.0
"""Seconds after which a group that waits looks again when nobody has told it when."""


Answer: TypeAlias = Callable[[Any], None]
"""Is called with the messages, or with the exception."""


class Request(Generic[M]):
    """One connection's: a task waits for its future, or an answer is called."""

    __slots__ = ("answer", "answered", "asked", "future", "group", "limit", "owner", "waits")

    def __init__(
        self, owner: object, group: "Group[M]", limit: int, future: "asyncio.Future[list[M]] | None",
        answer: Answer | None, *, waits: bool,
    ) -> None:  # fmt: skip
        self.owner, self.group, self.limit, self.waits = owner, group, limit, waits
        self.future, self.answer = future, answer
        self.asked = self.answered = False
        """Whether it is counted in what the store is asked for now; whether its answer is known."""

    @property
    def over(self) -> bool:
        """Whether it gets nothing more."""
        return self.answered or (self.future is not None and self.future.done())


class Group(Generic[M]):
    """Those who want the same channels. Each of them is asked for once when it comes, and all together when there is
    news: so ten thousand that wait cost the next one nothing.
    """

    def __init__(self, channels: tuple[str, ...], *, large: bool) -> None:
        self.channels, self.large = channels, large
        self.requests: dict[Request[M], None] = {}
        """In the order in which they came."""
        self.fresh: list[Request[M]] = []
        """Those for whom the store was not asked yet."""
        self.asking: Job[Any] | None = None
        """What the store is asked for, if it is."""
        self.wanted = Wanted(channels, large=large)
        self.turn: list[Request[M]] = []
        """Those for whom it is asked."""
        self.news = False
        self.timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        """Safe twice."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Waiting(Generic[M]):
    """All groups of a process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ask: Callable[[Wanted, Callable[[Taken | BaseException], None]], Job[Any]],
        make: Callable[[Any, Any, bytes | None], M],
        give_back: Callable[[list[Any]], None],
        undo: Callable[[list[M]], None],
    ) -> None:
        """``ask`` the store; ``make`` a message for a request's owner; ``give_back`` claims that nobody wants any more,
        and ``undo`` what was made for somebody who has gone.
        """
        self._loop, self._ask, self._make, self._give_back = loop, ask, make, give_back
        self._undo = undo
        self._groups: dict[tuple[bool, tuple[str, ...]], Group[M]] = {}
        self._by_channel: dict[str, set[Group[M]]] = {}
        self._watched: dict[str, int] = {}
        self._by_owner: dict[object, set[Request[M]]] = {}
        self._told: dict[str, set[asyncio.Event]] = {}
        self._answers: list[tuple[Answer, Any]] = []
        self._ended: list[Request[M]] = []
        """What is to be told once all is in order: who is told may ask again at once."""
        self._stopped = self._closed = False

    async def get(
        self, owner: object, channels: tuple[str, ...], limit: int, wait: float | None, *, large: bool = False
    ) -> list[M]:
        """Up to ``limit`` messages; waits up to ``wait`` seconds for the first one. Safe to cancel. ``large``: their
        bodies are not read.
        """
        future: asyncio.Future[list[M]] = self._loop.create_future()
        waits = (wait is None or wait > 0) and not self._stopped
        group = self._group(channels, large=large)
        request = Request(owner, group, limit, future, None, waits=waits)
        self._enter(request)
        timer = self._loop.call_later(wait, self._in_vain, request) if waits and wait is not None else None
        try:
            return await future
        except asyncio.CancelledError:
            # It may have been served in the very turn in which it was cancelled.
            if not future.cancelled() and future.exception() is None:
                self._undo(future.result())
            raise
        finally:
            self._exit(request)
            if timer is not None:
                timer.cancel()

    def soon(self, owner: object, channels: tuple[str, ...], limit: int, answer: Answer, *, large: bool) -> None:
        """`get` of what is there, for whom a task is too much: ``answer`` is called, later."""
        self._enter(Request(owner, self._group(channels, large=large), limit, None, answer, waits=False))

    def _enter(self, request: Request[M]) -> None:
        group = request.group
        group.requests[request] = None
        group.fresh.append(request)
        self._by_owner.setdefault(request.owner, set()).add(request)
        self._look(group)

    def _exit(self, request: Request[M]) -> None:
        request.group.requests.pop(request, None)
        mine = self._by_owner.get(request.owner)
        if mine is not None:
            mine.discard(request)
            if not mine:
                del self._by_owner[request.owner]

    def _end(self, request: Request[M], result: Any) -> None:
        """It is over. Who has an answer is told by `_tell`."""
        if request.future is not None:
            settle_future(request.future, result)
        elif request.answer is not None and not request.answered:
            request.answered = True
            self._answers.append((request.answer, result))
            self._ended.append(request)

    def _tell(self) -> None:
        """Say what `_end` knows, when nothing is under way any more."""
        if self._answers:
            answers, self._answers = self._answers, []
            ended, self._ended = self._ended, []
            for request in ended:
                self._exit(request)
            for answer, result in answers:
                try:
                    answer(result)
                except Exception as error:  # a fault of one must not keep the others waiting for ever
                    text = "messages could not be told to who had asked for them"
                    self._loop.call_exception_handler({"message": text, "exception": error})

    def news(self, channel: str) -> None:
        """There may be something on a channel."""
        for event in self._told.get(channel, ()):
            event.set()
        for group in sorted(self._by_channel.get(channel, ()), key=lambda one: len(one.channels)):
            self._look(group, news=True)

    def watch(self, channel: str, fd: int, drain: Callable[[], None]) -> None:
        """Call `news` when a descriptor can be read."""

        def readable() -> None:
            drain()
            self.news(channel)

        self._watched[channel] = fd
        self._loop.add_reader(fd, readable)

    def tell(self, channel: str, event: asyncio.Event) -> None:
        """Set it at every `news` of a channel, and when nobody waits any more."""
        self._told.setdefault(channel, set()).add(event)

    def tell_no_more(self, channel: str, event: asyncio.Event) -> None:
        """The end of `tell`; safe twice."""
        events = self._told.get(channel, set())
        events.discard(event)
        if not events:
            self._told.pop(channel, None)

    def stop(self) -> None:
        """Nobody waits any more: those who do get nothing, and later ones only what is there."""
        self._stopped = True
        for events in self._told.values():
            for event in events:
                event.set()
        for group in list(self._groups.values()):
            for request in list(group.requests):
                if request.waits:
                    self._in_vain(request)

    def leave(self, owner: object) -> None:
        """Requests of this owner end with Closed."""
        for request in list(self._by_owner.get(owner, ())):
            self._end(request, Closed("the connection has ended"))
        self._tell()

    def hurry(self, owner: object) -> None:
        """Requests of this owner wait no more: they get what is there."""
        for request in list(self._by_owner.get(owner, ())):
            if request.waits:
                self._in_vain(request)

    def close(self) -> None:
        """Watch nothing more. What is still taken for somebody is not dealt out: its lease ends with the consumer."""
        self.stop()
        self._closed = True
        watched, self._watched = self._watched, {}
        for fd in watched.values():
            self._loop.remove_reader(fd)
        for group in list(self._groups.values()):
            self._forget(group)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _group(self, channels: tuple[str, ...], *, large: bool) -> Group[M]:
        group = self._groups.get((large, channels))
        if group is None:
            group = self._groups[large, channels] = Group(channels, large=large)
            for channel in channels:
                self._by_channel.setdefault(channel, set()).add(group)
        return group

    def _forget(self, group: Group[M]) -> None:
        group.stop_timer()
        if self._groups.pop((group.large, group.channels), None) is not None:
            for channel in group.channels:
                groups = self._by_channel[channel]
                groups.discard(group)
                if not groups:
                    del self._by_channel[channel]

    def _in_vain(self, request: Request[M]) -> None:
        """The time is over. What is being asked for may still bring something: then it is given back."""
        self._end(request, [])
        self._tell()

    def _look(self, group: Group[M], *, news: bool = False) -> None:
        """Ask the store for those who have just come; with news for all who wait."""
        job = group.asking
        if job is not None and job.begun:
            group.news |= news
            return
        if job is None:
            if not group.requests:
                self._forget(group)
                return
            group.wanted = Wanted(group.channels, large=group.large)
        if news:
            group.news = False
            group.stop_timer()
        self._count_in(group, group.requests if news else group.fresh)
        group.fresh = [request for request in group.fresh if not (request.asked or request.over)]
        if job is None and group.turn:
            group.asking = self._ask(group.wanted, lambda taken: self._taken(group, taken))

    @staticmethod
    def _count_in(group: Group[M], requests: Iterable[Request[M]]) -> None:
        wanted = group.wanted
        for request in requests:
            if wanted.limit >= MOST:
                return
            if not (request.asked or request.over):
                request.asked = True
                group.turn.append(request)
                wanted.limit = min(MOST, wanted.limit + request.limit)
                wanted.waits |= request.waits

    def _taken(self, group: Group[M], taken: Taken | BaseException) -> None:
        self._take_in(group, taken)
        self._tell()

    def _take_in(self, group: Group[M], taken: Taken | BaseException) -> None:
        group.asking = None
        turn, group.turn = group.turn, []
        for request in turn:
            request.asked = False
        if self._closed:  # the subscriptions that it made are closed as well, or will be
            for request in group.requests:
                self._end(request, [])
            return
        if isinstance(taken, BaseException):
            self._failed(group, taken)
            return
        for channel, subscription in taken.subscriptions:
            self.watch(channel, subscription.fileno(), subscription.drain)
        more = len(taken.claims) >= group.wanted.limit
        """Whether there may be more than what was asked for."""
        self._deal(group, taken)
        for request in turn:
            if request.over or (request.waits and not self._stopped):
                continue
            if more:  # what was meant for it went to others, who had waited for longer
                group.fresh.append(request)
            else:
                self._end(request, [])
        self._go_on(group, taken, more=more)

    def _go_on(self, group: Group[M], taken: Taken, *, more: bool) -> None:
        alive = any(not request.over for request in group.requests)
        if not alive:
            self._forget(group)
        elif group.news or more:
            self._look(group, news=True)
        elif group.fresh:
            self._look(group)
        if alive and group.asking is None and (taken.patience or group.timer is None):
            group.stop_timer()  # nobody waits without a moment at which the store is asked again
            group.timer = self._loop.call_later(taken.patience or LOOK_AGAIN, self._wake, group)

    def _deal(self, group: Group[M], taken: Taken) -> None:
        claims = iter(taken.claims)
        claim = next(claims, None)
        for request in group.requests:
            if claim is None:
                return
            if request.over:
                continue
            got: list[M] = []
            while claim is not None and len(got) < request.limit:
                got.append(self._make(request.owner, *claim))
                claim = next(claims, None)
            self._end(request, got)
        if claim is not None:
            self._give_back([claim[0], *[one for one, _ in claims]])

    def _failed(self, group: Group[M], error: BaseException) -> None:
        """Who asked hears of it; nobody waits at a store that fails."""
        fresh = set(group.fresh)
        for request in group.requests:
            if request not in fresh:
                self._end(request, error)
        if fresh:
            self._look(group)
        else:
            self._forget(group)

    def _wake(self, group: Group[M]) -> None:
        group.timer = None
        self._look(group, news=True)
