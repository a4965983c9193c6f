"""The client's half of a connection: jobs are submitted, results come back.

Owns storing a job, joining one that is there already, and waiting for what becomes of it: from a worker of this
process, from another program of this node, or from another node by its receipt.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from dropr_core.contracts.gateway import Desk, Fate, Parcel, Placed
from dropr_core.errors import Conflict, DroprError, QueueFull, TooBig, UsageError
from dropr_core.model.message import State
from dropr_core.model.names import format_id, id_of_key
from dropr_gateway_gearman.hall import Hall
from dropr_gateway_gearman.jobs import Job
from dropr_gateway_gearman.outgoing import Outgoing
from dropr_gateway_gearman.packets import Kind, Packet, encode
from dropr_gateway_gearman.requests import FAILED, HIGH, LOW, Refused, Request, read_request
from dropr_gateway_gearman.results import with_result

GENERATIONS = 64
"""So many ended jobs of one unique may be kept (buried, or by the channel's retention) before one more is an error."""
LIVES = frozenset({State.READY, State.DELAYED, State.BLOCKED, State.LEASED})
_PATIENCE = 0.05
"""Seconds after which a job that no worker of this process has taken or ended is looked for elsewhere."""


class Waiting:
    """One client waits for one job; what comes before its JOB_CREATED is sent after it."""

    def __init__(self, client: "Client", job: Job) -> None:
        self.job, self._client = job, client
        self._early: list[bytes] | None = []
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        job.clients.append(self)

    @property
    def exceptions(self) -> bool:
        """See `Listener`."""
        return self._client.exceptions

    def tell(self, packet: bytes) -> None:
        """See `Listener`."""
        if self._early is None:
            self._client.outgoing.push(packet)
        else:
            self._early.append(packet)

    def created(self) -> list[bytes]:
        """The client hears of its job; from now on all is sent as it comes."""
        early, self._early = self._early or [], None
        if self._over:
            self._client.forget(self)
        else:
            self.watch()
        return [encode(Kind.JOB_CREATED, self.job.handle), *early]

    def watch(self) -> None:
        """See `Listener`."""
        if self._timer is None and self._early is None and not self._over:
            self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._look)

    def _look(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._client.look(self.job))

    def ended(self) -> None:
        """See `Listener`."""
        self._over = True
        self.stop()
        if self._early is None:
            self._client.forget(self)

    def stop(self) -> None:
        """Look out for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def drop(self) -> None:
        """The client does not wait any more."""
        self.stop()
        if self in self.job.clients:
            self.job.clients.remove(self)
        self._client.forget(self)


class Client:
    """The half of one connection."""

    def __init__(self, hall: Hall, desk: Desk, outgoing: Outgoing) -> None:
        self.outgoing = outgoing
        self.exceptions = False
        self._hall, self._desk = hall, desk
        self._waits = set[Waiting]()

    @property
    def expects(self) -> bool:
        """Whether a worker of this process has a job for which it waits."""
        return any(waiting.job.running for waiting in self._waits)

    def forget(self, waiting: Waiting) -> None:
        """Nothing more will come."""
        self._waits.discard(waiting)

    def close(self) -> None:
        """The client is gone; its jobs are not: they are carried out, as they are on stable storage."""
        for waiting in tuple(self._waits):
            waiting.drop()
            self._hall.jobs.leave(waiting.job)

    async def submit(self, packets: Sequence[Packet]) -> None:
        """Store them, side by side, and answer in their order."""
        answers: Sequence[bytes | Waiting] | None
        if len(packets) == 1:
            answers = [await self._answer(packets[0])]
        else:
            answers = await self._plain_ones(packets)
            if answers is None:
                answers = await asyncio.gather(*(self._answer(packet) for packet in packets))
        for answer in answers:
            if isinstance(answer, Waiting):
                for one in answer.created():
                    self.outgoing.push(one)
            else:
                self.outgoing.push(answer)

    def submit_soon(self, packets: Sequence[Packet], done: Callable[[bool], None]) -> bool:
        """`submit` of background jobs that nothing joins, told by a call: whether all is answered; if not, nothing is
        stored, and `submit` answers each by itself. False at once: there are others among them.
        """
        parcels = self._plain_parcels(packets)

        def stored(placed: Any) -> None:
            if isinstance(placed, BaseException):
                done(False)
            else:
                self.outgoing.push(b"".join(self._created(placed)))
                done(True)

        with contextlib.suppress(DroprError):
            return parcels is not None and self._desk.put_soon(parcels, stored)
        return False

    def _plain_parcels(self, packets: Sequence[Packet]) -> list[Parcel] | None:
        """Of background jobs that nothing joins; None if there are others among them."""
        try:
            requests = [read_request(packet) for packet in packets]
        except Refused:
            return None
        limits = self._hall.limits
        # Listed, not asked for one by one: this is done for every job.
        if any([one.foreground or one.key or one.channel in limits for one in requests]):  # noqa: C419 -- faster
            return None
        return [one.parcel(None) for one in requests]

    def _created(self, placed: Sequence[Placed]) -> list[bytes]:
        of = self._hall.handles.of
        return [encode(Kind.JOB_CREATED, of(one.id)) for one in placed]

    async def _plain_ones(self, packets: Sequence[Packet]) -> list[bytes] | None:
        """Background jobs that nothing joins: one call of the desk for all. None if there are others among them, or one
        of them is refused: then each is answered by itself.
        """
        parcels = self._plain_parcels(packets)
        if parcels is None:
            return None
        try:
            placed = await self._desk.put(*parcels)
        except (QueueFull, UsageError):  # nothing is stored
            return None
        except DroprError as error:
            return [encode(Kind.ERROR, "QUEUE_ERROR", str(error))] * len(packets)
        return self._created(placed)

    async def _answer(self, packet: Packet) -> "bytes | Waiting":
        try:
            request = read_request(packet)
            await self._check_limit(request)
            return await (self._foreground(request) if request.foreground else self._background(request))
        except Refused as error:
            return error.packet
        except QueueFull as error:
            return encode(Kind.ERROR, "QUEUE_ERROR", f"Job queue is full: {error}")
        except TooBig as error:
            return encode(Kind.ERROR, "ARGUMENT_TOO_LARGE", str(error))
        except UsageError as error:
            return encode(Kind.ERROR, "INVALID_ARGUMENTS", str(error))
        except DroprError as error:
            return encode(Kind.ERROR, "QUEUE_ERROR", str(error))

    async def _check_limit(self, request: Request) -> None:
        limits = self._hall.limits.get(request.channel)
        most = limits[{HIGH: 0, None: 1, LOW: 2}[request.rank]] if limits else 0
        if most:
            found = await self._desk.count(request.channel)
            if found.ready + found.delayed + found.blocked + found.leased + found.outgoing >= most:
                raise Refused("QUEUE_ERROR", "Job queue is full")

    async def _background(self, request: Request) -> bytes:
        key = request.key
        if not key:
            (placed,) = await self._desk.put(request.parcel(None))
            return encode(Kind.JOB_CREATED, self._hall.handles.of(placed.id))
        for generation in range(GENERATIONS):
            job = self._hall.jobs.joined(request.channel, key)
            if job is not None and (job.stored is None or await asyncio.shield(job.stored)):
                return encode(Kind.JOB_CREATED, job.handle)
            dedup, message_id = self._identity(request.channel, key, generation)
            if await self._store(request, dedup, message_id):
                return encode(Kind.JOB_CREATED, self._hall.handles.of(message_id))
        raise _too_many_ended()

    async def _foreground(self, request: Request) -> Waiting:
        if len(self._waits) >= self._hall.options.max_jobs:
            raise Refused(
                "QUEUE_ERROR", f"this connection waits for {len(self._waits)} jobs already (option 'max_jobs')"
            )
        jobs, key = self._hall.jobs, request.key
        for generation in range(GENERATIONS):
            dedup, message_id = self._identity(request.channel, key or uuid.uuid4().bytes, generation)
            job = jobs.joined(request.channel, key) if key else None
            first = job is None
            if job is None:  # before it is stored: else a worker could be done with it before we listen
                job = jobs.take_up(message_id, self._hall.handles.of(message_id), request.channel, key)
                first = job.stored is None and not job.running
            waiting = Waiting(self, job)
            self._waits.add(waiting)
            try:
                if await (self._first(request, dedup, job) if first else _stored(job)):
                    return waiting
            except BaseException:
                waiting.drop()
                jobs.leave(job)
                raise
            waiting.drop()
            jobs.leave(job)
        raise _too_many_ended()

    async def _first(self, request: Request, dedup: str, job: Job) -> bool:
        """Store it for all that join it meanwhile."""
        stored = job.stored = asyncio.get_running_loop().create_future()
        done = False
        try:
            done = await self._store(request, dedup, job.id)
        finally:
            if not done:
                job.stored = None
                self._hall.jobs.leave(job)
            stored.set_result(done)
        return done

    async def _store(self, request: Request, dedup: str, message_id: str) -> bool:
        """On stable storage, now or before and not yet ended: True. False: what has this id has ended."""
        try:
            (placed,) = await self._desk.put(request.parcel(dedup))
        except Conflict:  # the one that is joined has other data; it keeps them
            return await self._lives(message_id)
        return not placed.duplicate or await self._lives(message_id)

    async def _lives(self, message_id: str) -> bool:
        seen = await self._desk.find_id(message_id)
        if seen is not None:
            return seen.state in LIVES
        fate = await self._desk.status(message_id)
        return fate is not None and not fate.ended

    def _identity(self, channel: str, key: bytes, generation: int) -> tuple[str, str]:
        dedup = f"gearman#{generation}:{key.decode('latin-1')}"
        return dedup, format_id(id_of_key(self._desk.node, channel, dedup))

    async def look(self, job: Job) -> None:
        """Wait for what becomes of a job elsewhere, and tell all that wait for it."""
        while not job.running and job.clients:
            fate = await self._desk.wait_receipt(job.id, None)
            if job.running or not job.clients:
                return  # the worker of this process ends it with all that it has said
            if fate is None or fate.ended:
                self._end(job, await with_result(self._desk, fate))

    def _end(self, job: Job, fate: Fate | None) -> None:
        if fate is not None and fate.state in (State.PROCESSED, State.DONE, State.ACCEPTED):
            self._hall.jobs.complete(job, fate.result or b"")
        elif fate is None or FAILED in fate.reason:
            self._hall.jobs.fail(job)
        else:
            self._hall.jobs.fail(job, (fate.reason or str(fate.state)).encode())

    async def status(self, handle: bytes) -> None:
        """GET_STATUS."""
        message_id = self._hall.handles.id_of(handle)
        known, running, numerator, denominator, _ = await self._state(message_id)
        self.outgoing.push(encode(Kind.STATUS_RES, handle, known, running, numerator, denominator))

    async def status_unique(self, unique: bytes) -> None:
        """GET_STATUS_UNIQUE: it names no function, so all are looked through."""
        job = self._hall.jobs.by_unique(unique) if unique else None
        found = await self._state(job.id if job is not None else None)
        if job is None and unique:
            for channel in (await self._desk.channels())[:1000]:
                found = await self._state(self._identity(channel, unique, 0)[1])
                if found[0] == b"1":
                    break
        self.outgoing.push(encode(Kind.STATUS_RES_UNIQUE, unique, *found))

    async def _state(self, message_id: str | None) -> tuple[bytes, bytes, bytes, bytes, bytes]:
        job = self._hall.jobs.find(message_id) if message_id is not None else None
        if job is not None:
            return b"1", b"%d" % job.running, job.numerator, job.denominator, b"%d" % len(job.clients)
        seen = await self._desk.find_id(message_id) if message_id is not None else None
        if seen is not None:
            return b"%d" % (seen.state in LIVES), b"%d" % (seen.state is State.LEASED), b"0", b"0", b"0"
        fate = await self._desk.status(message_id) if message_id is not None else None
        return b"%d" % (fate is not None and not fate.ended), b"0", b"0", b"0", b"0"


async def _stored(job: Job) -> bool:
    return job.stored is None or await asyncio.shield(job.stored)


def _too_many_ended() -> Refused:
    text = f"{GENERATIONS} ended jobs of this unique are kept; see `dropr list --state buried`, then kick or wipe them"
    return Refused("QUEUE_ERROR", text)


__all__ = ["Client", "Waiting"]
