"""Group commit: many threads, one flush.

Owns the queue of calls that want to be durable. There is no thread of its own: the first caller leads, runs
everything that has queued up meanwhile, and wakes the others with their results. Must not know what is written.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dropr_core.errors import WriteFailed

Job = TypeVar("Job")
PATIENCE = 0.0002
"""Seconds that a leader waits at most for the company it had a moment ago."""


class _Ticket(Generic[Job]):
    __slots__ = ("done", "job", "result", "wake")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.done = False
        self.result: object = None
        self.wake = threading.Lock()
        self.wake.acquire()


class GroupCommit(Generic[Job]):
    """Hands lists of jobs to ``run``, one list at a time; ``run`` returns a result or an exception for each."""

    def __init__(self, run: Callable[[list[Job]], Sequence[object]]) -> None:
        self._run = run
        self._mutex = threading.Lock()
        self._waiting: deque[_Ticket[Job]] = deque()
        self._led = False
        self._missing = 0
        """Of those whom the leader waits for."""
        self._complete = threading.Lock()
        self._complete.acquire()
        self._crowd = 1
        """How many took part of late: those of the last commit and those who came while it ran."""

    def run(self, job: Job) -> object:
        """The result of ``job`` once it is on stable storage; raises what the job or the flush raised."""
        ticket: _Ticket[Job] | None = None
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
            raise result
        return result

    def _alone(self, job: Job) -> object:
        """Nobody else was there of late."""
        try:
            return self._run([job])[0]
        finally:
            self._hand_over()

    def _lead(self, own: _Ticket[Job]) -> object:
        tickets = [own]
        try:
            tickets = self._gather(own)
            for ticket, result in zip(tickets, self._run([ticket.job for ticket in tickets]), strict=True):
                ticket.result, ticket.done = result, True
        except BaseException as error:
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

    def _gather(self, own: _Ticket[Job]) -> list[_Ticket[Job]]:
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
