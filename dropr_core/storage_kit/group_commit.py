"""Group commit: many threads, one flush.

Owns the queue of jobs that want a durable commit. There is no thread of its own: the first caller leads, hands over
everything that has queued up meanwhile, and wakes the others with their results. Must not know what is written.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

from dropr_core.errors import WriteFailed

C = TypeVar("C")
"""What a job writes with: a connection, a commit."""
T = TypeVar("T")
Job = Callable[[C], Any]

PATIENCE = 0.0002
"""Seconds that a leader waits at most for the company it had a moment ago."""


class BatchedJob(Generic[C]):
    """A job of a kind of which many are done at once for less: ``run`` gets the items of each of them and returns the
    result of each.
    """

    __slots__ = ("items", "run", "seen")

    def __init__(
        self, run: Callable[[C, list[Any]], list[Any]], items: Any, seen: Callable[[Any], None] | None = None
    ) -> None:
        """``seen``: told the result by a storage that shows what it has committed before that is on stable storage."""
        self.run, self.items, self.seen = run, items, seen

    def __call__(self, commit: C) -> Any:
        """The same, alone."""
        return self.run(commit, [self.items])[0]


class JobsTogether(Generic[C]):
    """Several jobs as one, whose result is the list of theirs."""

    __slots__ = ("jobs",)

    def __init__(self, jobs: Sequence[Job[C]]) -> None:
        self.jobs = jobs

    def __call__(self, commit: C) -> list[Any]:
        """All of them."""
        return run_together(commit, self.jobs)


def are_told(job: Job[C]) -> bool:
    """Whether somebody wants to know when a job's work is seen."""
    if isinstance(job, BatchedJob):  # by far the most
        return job.seen is not None
    return any(getattr(one, "seen", None) is not None for one in (job.jobs if isinstance(job, JobsTogether) else [job]))


def tell_seen(job: Job[C], result: Any) -> Any:
    """A job's work, with this result, is seen by others; the result."""
    jobs, results = (job.jobs, result) if isinstance(job, JobsTogether) else ([job], [result])
    for one, its in zip(jobs, results, strict=True):
        if isinstance(one, BatchedJob) and one.seen is not None:
            one.seen(its)
    return result


class _Ticket(Generic[C]):
    __slots__ = ("done", "job", "result", "wake")

    def __init__(self, job: Job[C]) -> None:
        self.job = job
        self.done = False
        self.result: Any = None
        self.wake = threading.Lock()
        self.wake.acquire()


class GroupCommit(Generic[C]):
    """Hands lists of jobs to ``run_all``, one list at a time; it returns a result or an exception for each."""

    def __init__(self, run_all: Callable[[list[Job[C]]], Sequence[Any]]) -> None:
        self._run_all = run_all
        self._mutex = threading.Lock()
        self._waiting: deque[_Ticket[C]] = deque()
        self._led = False
        self._missing = 0
        """Of those whom the leader waits for."""
        self._complete = threading.Lock()
        self._complete.acquire()
        self._crowd = 1
        """How many took part of late: those of the last commit and those who came while it ran."""

    def run(self, job: Callable[[C], T]) -> T:
        """The result of ``job`` once it is on stable storage; raises what the job or the commit raised."""
        ticket: _Ticket[C] | None = None
        with self._mutex:
            if self._led:
                ticket = _Ticket(job)
                self._waiting.append(ticket)
                if self._missing > 0:
                    self._missing -= 1
                    if self._missing == 0:
                        self._complete.release()
            else:
                self._led = True
        if ticket is None:
            result = self._alone(job) if self._crowd == 1 else self._lead(_Ticket(job))
        else:
            ticket.wake.acquire()
            result = ticket.result if ticket.done else self._lead(ticket)
        if isinstance(result, BaseException):
            try:
                raise result
            finally:
                del result  # else it and this frame keep each other
        done: T = result
        return done

    def _alone(self, job: Job[C]) -> Any:
        """Nobody else was there of late."""
        try:
            return self._run_all([job])[0]
        finally:
            self._hand_over()

    def _lead(self, own: _Ticket[C]) -> Any:
        tickets = [own]
        try:
            tickets = self._gather(own)
            for ticket, result in zip(tickets, self._run_all([ticket.job for ticket in tickets]), strict=True):
                ticket.result, ticket.done = result, True
        except BaseException as error:  # Ctrl-C, for example: nobody may believe in success
            for ticket in tickets:
                if not ticket.done:
                    ticket.done = True
                    ticket.result = WriteFailed(f"the commit was interrupted ({error!r}); nothing was promised")
            raise
        finally:
            self._hand_over()
            for ticket in tickets:
                if ticket is not own:
                    ticket.wake.release()
        return own.result

    def _gather(self, own: _Ticket[C]) -> list[_Ticket[C]]:
        """Own ticket and all that wait; those who shared the last commit are given a moment to come back."""
        waiting = self._waiting
        with self._mutex:
            self._missing = self._crowd - 1 - len(waiting)
        if self._missing > 0:
            self._complete.acquire(timeout=PATIENCE)
        with self._mutex:
            self._missing = 0
            self._complete.acquire(blocking=False)
            tickets = [own, *waiting]
            waiting.clear()
        self._crowd = max(len(tickets), self._crowd - 1)
        return tickets

    def _hand_over(self) -> None:
        with self._mutex:
            self._crowd = max(self._crowd, len(self._waiting))
            if self._waiting:
                self._waiting.popleft().wake.release()
            else:
                self._led = False


def in_one_transaction(transact: Callable[[Job[C]], Any]) -> Callable[[list[Job[C]]], list[Any]]:
    """What `GroupCommit` needs, for storages with transactions: all jobs in one.

    ``transact`` runs one job in one durable transaction and raises what it raises. A job is all or nothing by itself:
    if one raises, what it wrote must go without taking the others with it, so then each gets a transaction of its own.
    """

    def attempt(job: Job[C]) -> Any:
        try:
            return transact(job)
        except Exception as error:
            return error

    def run_all(jobs: list[Job[C]]) -> list[Any]:
        if len(jobs) > 1:
            results = attempt(JobsTogether(jobs))
            if isinstance(results, WriteFailed):
                # Perhaps it is there all the same, and would be a second time; and the next one would fare no better.
                return [results] * len(jobs)
            if not isinstance(results, Exception):
                return cast("list[Any]", results)
            return [attempt(job) for job in jobs]
        return [attempt(jobs[0])]

    return run_all


def run_together(commit: C, jobs: Sequence[Job[C]]) -> list[Any]:
    """The results of all jobs; those of one kind go together, before all others."""
    kinds: dict[Any, list[BatchedJob[C]]] = {}
    for job in jobs:
        if isinstance(job, BatchedJob):
            kinds.setdefault(job.run, []).append(job)
    done: dict[int, Any] = {}
    for run, alike in kinds.items():
        for job, result in zip(alike, run(commit, [one.items for one in alike]), strict=True):
            done[id(job)] = result
    return [done[id(job)] if isinstance(job, BatchedJob) else job(commit) for job in jobs]
