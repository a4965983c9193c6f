"""The jobs that somebody in this process has in hand: clients that wait for one, a worker that has it.

Owns `Jobs`, `Job` and who hears what of a job. A job that only waits is not here: it is in the store. Knows packets,
but neither sockets nor the desk.
"""

import asyncio
from collections.abc import Iterator
from typing import Protocol

import attrs

from dropr_gateway_gearman.packets import Kind, encode


class Listener(Protocol):
    """One client that waits for one job."""

    @property
    def exceptions(self) -> bool:
        """Whether it asked for WORK_EXCEPTION."""
        ...

    def tell(self, packet: bytes) -> None:
        """Send; never waits."""
        ...

    def ended(self) -> None:
        """Nothing more will come of this job."""
        ...

    def watch(self) -> None:
        """Nobody in this process has the job any more: look out for what becomes of it elsewhere."""
        ...


@attrs.define(eq=False)
class Job:
    """One job in hand."""

    id: str
    handle: bytes
    channel: str
    unique: bytes
    numerator: bytes = b"0"
    denominator: bytes = b"0"
    worker: object | None = None
    """Who of this process has it."""
    stored: "asyncio.Future[bool] | None" = None
    """Whether it is on stable storage, for those who join before that is known; None: a worker has had it."""
    clients: list[Listener] = attrs.field(factory=list)

    @property
    def running(self) -> bool:
        """Whether a worker of this process has it."""
        return self.worker is not None

    @property
    def idle(self) -> bool:
        """Whether nobody here has anything to do with it."""
        return not (self.running or self.clients)

    def tell(self, kind: Kind, *arguments: bytes) -> None:
        """The same packet to every client that waits."""
        if self.clients:
            packet = encode(kind, self.handle, *arguments)
            for client in self.clients:
                client.tell(packet)

    def progress(self, numerator: bytes, denominator: bytes) -> None:
        """How far a worker has come."""
        self.numerator, self.denominator = numerator, denominator
        self.tell(Kind.WORK_STATUS, numerator, denominator)


class Jobs:
    """All of this process, by id and by function and unique."""

    def __init__(self) -> None:
        self._by_id = dict[str, Job]()
        self._by_unique = dict[tuple[str, bytes], Job]()

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self._by_id.values()))

    def find(self, message_id: str) -> Job | None:
        """The job of an id."""
        return self._by_id.get(message_id)

    def joined(self, channel: str, unique: bytes) -> Job | None:
        """The one that a job with this unique joins."""
        return self._by_unique.get((channel, unique))

    def by_unique(self, unique: bytes) -> Job | None:
        """The same, whatever the function."""
        return next((job for (_, one), job in self._by_unique.items() if one == unique), None)

    def take_up(self, message_id: str, handle: bytes, channel: str, unique: bytes) -> Job:
        """The job of an id; made if it is new here."""
        job = self._by_id.get(message_id)
        if job is None:
            job = self._by_id[message_id] = Job(message_id, handle, channel, unique)
            if unique:
                self._by_unique.setdefault((channel, unique), job)
        return job

    def put_back(self, job: Job, worker: object) -> None:
        """A worker of this process has it no more, and it has not ended."""
        if job.worker is worker:
            job.worker = None
            for client in job.clients:
                client.watch()
        self.leave(job)

    def leave(self, job: Job) -> None:
        """Forget it if nobody has it in hand any more."""
        if job.idle and self._by_id.get(job.id) is job:
            self._remove(job)

    def complete(self, job: Job, data: bytes) -> None:
        """It is done: its clients hear the result, once."""
        job.tell(Kind.WORK_COMPLETE, data)
        self._end(job)

    def fail(self, job: Job, exception: bytes | None = None) -> None:
        """It has failed. With an exception, those that asked for exceptions get it, and the others WORK_FAIL."""
        failed = encode(Kind.WORK_FAIL, job.handle)
        excepted = failed if exception is None else encode(Kind.WORK_EXCEPTION, job.handle, exception)
        for client in job.clients:
            client.tell(excepted if client.exceptions else failed)
        self._end(job)

    def _end(self, job: Job) -> None:
        clients, job.clients = job.clients, []
        self._remove(job)
        for client in clients:
            client.ended()

    def _remove(self, job: Job) -> None:
        if self._by_id.get(job.id) is job:
            del self._by_id[job.id]
        key = (job.channel, job.unique)
        if self._by_unique.get(key) is job:
            del self._by_unique[key]


__all__ = ["Job", "Jobs", "Listener"]
