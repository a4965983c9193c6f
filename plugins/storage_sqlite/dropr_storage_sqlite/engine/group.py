"""Group commit: many threads, one flush.

Owns the queue of jobs that want a durable commit. There is no thread of its own: the first caller
leads, commits everything that has queued up meanwhile, and wakes the others with their results.
Must not know SQL beyond the three words of a transaction.

A job is all or nothing by itself: if one raises, what it wrote must go without taking the others
with it, so the transaction is rolled back and each job runs in one of its own.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from dropr_core.errors import WriteFailed
from dropr_storage_sqlite.engine.sqltypes import Connection

Job = Callable[[Connection], Any]


class Together:
    """A job of a kind of which many are done at once for less: ``run`` gets the items of each of
    them and returns the result of each.
    """

    __slots__ = ("items", "run")

    def __init__(self, run: Callable[[Connection, list[Any]], list[Any]], items: Any) -> None:
        self.run = run
        self.items = items

    def __call__(self, connection: Connection) -> Any:
        """The same, alone."""
        return self.run(connection, [self.items])[0]


Transact = Callable[[Job], Any]
"""Runs one job in one durable transaction; raises what it raises."""

PATIENCE = 0.0002
"""Seconds that a leader waits at most for the company it had a moment ago."""


class _Ticket:
    __slots__ = ("done", "error", "job", "result", "wake")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.wake: Any = None


class GroupCommit:
    """Runs jobs in durable transactions, as many in one as are waiting."""

    def __init__(self, transact: Transact) -> None:
        self._transact = transact
        self._mutex = threading.Lock()
        self._waiting: deque[_Ticket] = deque()
        self._led = False
        self._missing = 0
        """Of those whom the leader waits for."""
        self._complete = threading.Lock()
        self._complete.acquire()
        self._crowd = 1
        """How many took part of late: those of the last commit and those who came while it ran."""

    def run(self, job: Job) -> Any:
        """The result of ``job`` once it is on stable storage; raises what the job or the commit raised."""
        with self._mutex:
            if self._led:
                ticket = _Ticket(job)
                ticket.wake = threading.Lock()
                ticket.wake.acquire()
                self._waiting.append(ticket)
                if self._missing > 0:
                    self._missing -= 1
                    if self._missing == 0:
                        self._complete.release()
            else:
                self._led = True
                ticket = None
        if ticket is None:
            return self._lead_alone(job) if self._crowd == 1 else self._lead(_Ticket(job))
        ticket.wake.acquire()
        if not ticket.done:  # woken to lead
            return self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def _lead_alone(self, job: Job) -> Any:
        try:
            return self._transact(job)
        finally:
            self._hand_over()

    def _lead(self, own: _Ticket) -> Any:
        try:
            tickets = self._gather(own)
            try:
                self._commit(tickets)
            finally:
                for ticket in tickets:
                    if ticket is not own:
                        if not ticket.done:  # the leader was interrupted (Ctrl-C): nobody may believe in success
                            ticket.done = True
                            ticket.error = WriteFailed("the commit was interrupted; nothing was promised")
                        ticket.wake.release()
        finally:
            self._hand_over()
        if own.error is not None:
            raise own.error
        return own.result

    def _gather(self, own: _Ticket) -> list[_Ticket]:
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
                heir = self._waiting.popleft()
                heir.wake.release()
            else:
                self._led = False

    def _commit(self, tickets: list[_Ticket]) -> None:
        if len(tickets) > 1:
            try:
                results = self._transact(lambda connection: _run_all(connection, [ticket.job for ticket in tickets]))
            except Exception:  # noqa: S110 -- one of them failed: find out which by giving each its own transaction
                pass
            else:
                for ticket, result in zip(tickets, results, strict=True):
                    ticket.result, ticket.done = result, True
                return
        for ticket in tickets:
            try:
                ticket.result = self._transact(ticket.job)
            except Exception as error:
                ticket.error = error
            ticket.done = True


def _run_all(connection: Connection, jobs: list[Job]) -> list[Any]:
    """The results of all jobs; those of one kind go together, before all others."""
    kinds: dict[Any, list[Together]] = {}
    for job in jobs:
        if isinstance(job, Together):
            kinds.setdefault(job.run, []).append(job)
    done: dict[int, Any] = {}
    for run, alike in kinds.items():
        for job, result in zip(alike, run(connection, [one.items for one in alike]), strict=True):
            done[id(job)] = result
    return [done[id(job)] if isinstance(job, Together) else job(connection) for job in jobs]
