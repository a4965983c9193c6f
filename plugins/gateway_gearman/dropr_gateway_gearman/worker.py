"""The worker's half of a connection: what it can do, the jobs it has, what it says of them.

Owns leases of this connection: taken by GRAB_JOB, ended by WORK_COMPLETE, WORK_FAIL or WORK_EXCEPTION, by the time of
CAN_DO_TIMEOUT, or by the end of the connection.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import attrs

from dropr_core.contracts.gateway import Desk, Held
from dropr_core.errors import Conflict, QueueFull, TooBig, UsageError
from dropr_core.model.limits import MAX_RESULT
from dropr_gateway_gearman.hall import Hall
from dropr_gateway_gearman.jobs import Job
from dropr_gateway_gearman.naming import channel_of, function_of
from dropr_gateway_gearman.outgoing import Outgoing
from dropr_gateway_gearman.packets import Kind, encode
from dropr_gateway_gearman.requests import FAILED, WAITS, key_of, reducer_of, unique_of
from dropr_gateway_gearman.results import AS_MESSAGE, result_id, result_parcel

MAX_ABILITIES = 10_000
MAX_HELD = 10_000
_LATE = 0.1
"""Seconds after the end of a lease at which it is looked at."""
NO_JOB = encode(Kind.ERROR, "JOB_NOT_FOUND", "Job given in work result not found")


@attrs.define(eq=False)
class Hold:
    """One job that this worker has."""

    held: Held
    job: Job
    chunks: list[bytes] = attrs.field(factory=list)
    """WORK_DATA for a client on another node, up to `Options.max_job`."""
    size: int = 0

    def keep(self, data: bytes, most: int) -> None:
        """Keep a chunk of the result; what is beyond ``most`` bytes is counted alone."""
        self.size += len(data)
        if self.size <= most:
            self.chunks.append(data)


class Worker:
    """The half of one connection."""

    def __init__(self, hall: Hall, desk: Desk, outgoing: Outgoing) -> None:
        self.name = b""
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when the store could not take what became of a job: the connection ends, and the job is done again."""
        self._hall, self._desk, self._outgoing = hall, desk, outgoing
        self._abilities = dict[str, tuple[bytes, float | None]]()
        self._holds = dict[bytes, Hold]()
        self._sleep: asyncio.Task[None] | None = None
        self._offer: Held | None = None
        self._offer_ends: asyncio.TimerHandle | None = None
        self._tasks = set[asyncio.Task[None]]()
        self._ending = 0  # jobs that are being settled without a task
        self._settled_all: asyncio.Future[None] | None = None
        self._gone = False

    @property
    def holding(self) -> int:
        """How many jobs it has, or is just done with."""
        return len(self._holds) + len(self._tasks) + self._ending

    def functions(self) -> list[bytes]:
        """What it can do."""
        return [function for function, _ in self._abilities.values()]

    def channels(self) -> list[str]:
        """The same as channels."""
        return list(self._abilities)

    # ── what it can do ───────────────────────────────────────────────────────────────────────────

    async def can_do(self, function: bytes, seconds: float | None = None) -> None:
        """CAN_DO, CAN_DO_TIMEOUT. Raises BadName."""
        channel = channel_of(function)
        if channel in self._abilities or len(self._abilities) < MAX_ABILITIES:
            self._abilities[channel] = (function, seconds)
            await self._changed()

    async def cant_do(self, function: bytes) -> None:
        """CANT_DO. Raises BadName."""
        if self._abilities.pop(channel_of(function), None) is not None:
            await self._changed()

    async def reset(self) -> None:
        """RESET_ABILITIES."""
        self._abilities.clear()
        await self._changed()

    async def _changed(self) -> None:
        await self._withdraw()
        if self._sleep is not None:
            await self.sleep()

    # ── jobs come ────────────────────────────────────────────────────────────────────────────────

    async def sleep(self) -> None:
        """PRE_SLEEP: NOOP as soon as there is a job."""
        await self._wake()
        if self._offer is not None:
            self._outgoing.push(encode(Kind.NOOP))
        elif self._abilities and not self._desk.stopping.is_set():
            self._sleep = asyncio.get_running_loop().create_task(self._doze())

    async def _doze(self) -> None:
        found = await self._desk.reserve(list(self._abilities), wait=None)
        self._sleep = None
        if found:
            self._offer = found[0]  # kept for this one: nobody else is woken in vain
            self._offer_ends = asyncio.get_running_loop().call_later(self._hall.options.offer, self._withdraw_later)
            self._outgoing.push(encode(Kind.NOOP))

    async def _wake(self) -> None:
        task, self._sleep = self._sleep, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def _withdraw_later(self) -> None:
        self._spawn(self._withdraw())

    async def _withdraw(self) -> None:
        held, self._offer = self._offer, None
        if self._offer_ends is not None:
            self._offer_ends.cancel()
        if held is not None:
            await held.release(counted=False)

    async def grab(self, kind: Kind) -> None:
        """GRAB_JOB, GRAB_JOB_UNIQ, GRAB_JOB_ALL."""
        await self._wake()
        held, self._offer = self._offer, None
        if held is not None and self._offer_ends is not None:
            self._offer_ends.cancel()
        elif self._abilities and len(self._holds) < MAX_HELD and not self._desk.stopping.is_set():
            held = next(iter(await self._desk.reserve(list(self._abilities))), None)
        self._assign(kind, held)

    def grab_soon(self, kind: Kind, done: Callable[[], None]) -> bool:
        """`grab`, told by a call. False: it sleeps, or nothing may be taken."""
        if self._sleep is not None or self._offer is not None or not self._abilities:
            return False
        if len(self._holds) >= MAX_HELD or self._desk.stopping.is_set():
            return False

        def grabbed(found: Any) -> None:
            if self._gone:  # the desk gives it back
                return
            if isinstance(found, BaseException):
                self._break(found)
            else:
                self._assign(kind, found[0] if found else None)
            done()

        self._desk.reserve_soon(self._abilities, 1, grabbed)
        return True

    def _assign(self, kind: Kind, held: Held | None) -> None:
        """The answer to a grab."""
        if held is None:
            self._outgoing.push(encode(Kind.NO_JOB))
            return
        function, seconds = self._abilities.get(held.channel) or (function_of(held.channel), None)
        if seconds is not None:
            held.touch(seconds)
            asyncio.get_running_loop().call_later(seconds + _LATE, self._overdue, self._hall.handles.of(held.id), held)
        handle, unique, reducer = self._hall.handles.of(held.id), unique_of(held.headers), reducer_of(held.headers)
        job = self._hall.jobs.take_up(held.id, handle, held.channel, key_of(unique, held.body))
        job.worker, job.numerator, job.denominator = self, b"0", b"0"
        self._holds[handle] = Hold(held, job)
        if kind is Kind.GRAB_JOB:
            self._outgoing.push(encode(Kind.JOB_ASSIGN, handle, function, held.body))
        elif kind is Kind.GRAB_JOB_ALL and reducer:
            self._outgoing.push(encode(Kind.JOB_ASSIGN_ALL, handle, function, unique, reducer, held.body))
        else:
            self._outgoing.push(encode(Kind.JOB_ASSIGN_UNIQ, handle, function, unique, held.body))

    def _overdue(self, handle: bytes, held: Held) -> None:
        """The time of CAN_DO_TIMEOUT is over: it is not this worker's any more."""
        hold = self._holds.get(handle)
        if hold is not None and hold.held is held and held.settled:
            del self._holds[handle]
            self._hall.jobs.put_back(hold.job, self)

    # ── what becomes of them ─────────────────────────────────────────────────────────────────────

    def status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        """WORK_STATUS. Clients on other nodes do not hear of it."""
        hold = self._holds.get(handle)
        if hold is None:
            self._outgoing.push(NO_JOB)
        else:
            hold.job.progress(numerator[:20], denominator[:20])

    def say(self, kind: Kind, handle: bytes, data: bytes) -> None:
        """WORK_DATA, WORK_WARNING."""
        hold = self._holds.get(handle)
        if hold is None:
            self._outgoing.push(encode(Kind.ERROR, "JOB_NOT_FOUND", "Job does not exist on server"))
            return
        hold.job.tell(kind, data)
        if kind is Kind.WORK_DATA and WAITS in hold.held.headers and not hold.job.clients:
            hold.keep(data, self._hall.options.max_job)

    def complete(self, handle: bytes, data: bytes) -> None:
        """WORK_COMPLETE."""
        hold = self._holds.pop(handle, None)
        if hold is None:
            self._outgoing.push(NO_JOB)
        elif not hold.chunks and len(data) <= MAX_RESULT:
            self._complete_soon(hold, data)
        else:
            self._spawn(self._complete(hold, data))

    def _complete_soon(self, hold: Hold, data: bytes) -> None:
        """As a rule: there is nothing but this result."""
        self._ending += 1

        def settled(done: Any) -> None:
            self._ending -= 1
            if self._settled_all is not None and not self._ending and not self._settled_all.done():
                self._settled_all.set_result(None)
            if isinstance(done, BaseException):
                self._break(done)
            else:
                self._completed(hold, data, done=done[0])

        self._desk.settle_soon([hold.held.acked(data or None, "application/octet-stream" if data else "")], settled)

    def _completed(self, hold: Hold, data: bytes, *, done: bool) -> None:
        """On stable storage first, then the clients hear of it."""
        if done:
            self._hall.jobs.complete(hold.job, data)
        else:
            self._lost(hold)

    def fail(self, handle: bytes, exception: bytes | None = None) -> None:
        """WORK_FAIL; WORK_EXCEPTION, which ends a job, too."""
        hold = self._holds.pop(handle, None)
        if hold is None:
            text = "An exception was received for a job that does not exist"
            missing = NO_JOB if exception is None else encode(Kind.ERROR, "JOB_NOT_FOUND", text)
            self._outgoing.push(missing)
        else:
            self._spawn(self._fail(hold, exception))

    async def _complete(self, hold: Hold, data: bytes) -> None:
        """A large result, or one that came in pieces."""
        if WAITS not in hold.held.headers or hold.job.clients:
            done = await hold.held.ack()  # nobody but the clients here asked for it
        else:
            hold.keep(data, self._hall.options.max_job)
            try:
                done = await self._complete_afar(hold)
            except (TooBig, QueueFull, UsageError) as error:
                await self._fail(hold, f"its result of {hold.size} bytes cannot be sent: {error}".encode())
                return
        self._completed(hold, data, done=done)

    async def _complete_afar(self, hold: Hold) -> bool:
        """With the receipt; what does not fit into one, with a message of its own before it."""
        if hold.size > self._hall.options.max_job:
            raise TooBig(f"the limit is {self._hall.options.max_job} (option 'max_job')")
        result = b"".join(hold.chunks)
        if len(result) <= MAX_RESULT:
            return await hold.held.ack(result, "application/octet-stream")
        parcel = result_parcel(hold.held.id, hold.held.sender, result)
        with contextlib.suppress(Conflict):  # its receipt did not get away, and the job was done again
            await self._desk.put(parcel)
        return await hold.held.ack(result_id(self._desk.node, hold.held.id).encode(), AS_MESSAGE)

    async def _fail(self, hold: Hold, exception: bytes | None) -> None:
        reason = FAILED if exception is None else exception[:4000].decode("utf-8", "replace") or "an exception"
        if await hold.held.bury(reason):
            self._hall.jobs.fail(hold.job, exception)
        else:
            self._lost(hold)

    def _lost(self, hold: Hold) -> None:
        """Its time was over: somebody else has it, or it waits."""
        self._outgoing.push(NO_JOB)
        self._hall.jobs.put_back(hold.job, self)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)

    async def close(self, *, counted: bool) -> None:
        """The connection ends: what it has goes to another worker. ``counted``: it was the worker that went away."""
        self._gone = True
        self._abilities.clear()
        await self._wake()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))
        if self._ending:
            self._settled_all = asyncio.get_running_loop().create_future()
            await self._settled_all
        await self._withdraw()
        holds, self._holds = list(self._holds.values()), {}
        try:
            if counted and holds:
                reason = "the connection of its Gearman worker ended"
                await self._desk.settle(*(hold.held.released(None, reason=reason) for hold in holds))
        finally:  # else the desk gives them back, not counted
            for hold in holds:
                self._hall.jobs.put_back(hold.job, self)


__all__ = ["Hold", "Worker"]
