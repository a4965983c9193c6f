"""Group commit: many threads, one flush.

Owns the queue of calls that want to be durable. There is no thread of its own: the first caller leads, runs
everything that has queued up meanwhile, and wakes the others with their results. Must not know what is written.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from dropr_core.errors import WriteFailed


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

    def run(self, job: Any) -> Any:
        """The result of ``job`` once it is on stable storage; raises what the job or the flush raised."""
        with self._mutex:
            lead = not self._led
            if lead:
                self._led = True
                if not self._waiting:
                    ticket = None
                else:
                    ticket = _Ticket(job)
            else:
                ticket = _Ticket(job)
                self._waiting.append(ticket)
        if ticket is None:
            return self._alone(job)
        if not lead:
            ticket.wake.acquire()
            lead = not ticket.done
        if lead:
            self._lead(ticket)
        if isinstance(ticket.result, BaseException):
            raise ticket.result
        return ticket.result

    def _alone(self, job: Any) -> Any:
        """Nobody else is there."""
        try:
            (result,) = self._run([job])
        finally:
            self._hand_over()
        if isinstance(result, BaseException):
            raise result
        return result

    def _hand_over(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().wake.release()
            else:
                self._led = False

    def _lead(self, own: _Ticket) -> None:
        with self._mutex:
            tickets = [own, *self._waiting]
            self._waiting.clear()
        try:
            results = self._run([ticket.job for ticket in tickets])
            for ticket, result in zip(tickets, results, strict=True):
                ticket.result, ticket.done = result, True
        except BaseException as error:
            if isinstance(error, Exception):
                own.result = error
            for ticket in tickets:
                if not ticket.done:
                    ticket.done = True
                    if ticket is not own:
                        ticket.result = WriteFailed(f"the commit was interrupted ({error!r}); nothing was promised")
            if not isinstance(error, Exception):
                raise
        finally:
            self._hand_over()
            for ticket in tickets:
                if ticket is not own:
                    ticket.wake.release()
