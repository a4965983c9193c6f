"""Group commit: many threads, one flush.

Owns the queue of calls that want to be durable. There is no thread of its own: the first caller leads, runs
everything that has queued up meanwhile, and wakes the others with their results. Must not know what is written.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from dropr_core.errors import WriteFailed

PATIENCE = 0.0002
"""Seconds that a leader waits at most for the company it had a moment ago."""


class Together:
    """A job of a kind of which many are done at once for less: ``run`` gets the items of each of them and returns
    the result of each.
    """

    __slots__ = ("items", "run")

    def __init__(self, run: Callable[[Any, list[Any]], list[Any]], items: Any) -> None:
        self.run, self.items = run, items

    def __call__(self, commit: Any) -> Any:
        """The same, alone."""
        return self.run(commit, [self.items])[0]


class _Ticket:
    __slots__ = ("done", "job", "result", "wake")

    def __init__(self, job: Any) -> None:
        self.job = job
        self.done = False
        self.result: Any = None
        self.wake = threading.Lock()
        self.wake.acquire()


class Group:
    """Hands lists of jobs to ``run``, one list at a time; ``run`` returns a result or an exception for each."""

    def __init__(self, run: Callable[[list[Any]], list[Any]]) -> None:
        self._run = run
        self._mutex = threading.Lock()
        self._waiting: deque[_Ticket] = deque()
        self._led = False
        self._missing = 0
        """Of those whom the leader waits for."""
        self._complete = threading.Lock()
        self._complete.acquire()
        self._crowd = 1
        """How many took part of late: those of the last commit and those who came while it ran."""

    def run(self, job: Any) -> Any:
        """The result of ``job`` once it is on stable storage; raises what the job or the flush raised."""
        ticket: _Ticket | None = None
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

    def _alone(self, job: Any) -> Any:
        """Nobody else was there of late."""
        try:
            return self._run([job])[0]
        finally:
            self._hand_over()

    def _lead(self, own: _Ticket) -> Any:
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
                self._waiting.popleft().wake.release()
            else:
                self._led = False
