"""The dispatcher: lets requests be authenticated and answered, in a few threads or at once.

Owns the threads between a transport's listener and the endpoint. When a push is answered at once stands in at_once.py.
Must not know sockets, nor what verbs mean.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dropr_core.contracts.transport import Caller
from dropr_core.errors import Refused
from dropr_core.protocol.endpoint import Endpoint, Request, Wait
from dropr_core.protocol.messages import PUSH
from dropr_core.serving.at_once import AtOnce
from dropr_core.serving.long_polls import LongPolls
from dropr_core.serving.refusals import RefusalLog
from dropr_core.system.clock import Clock
from dropr_core.system.notifier import Notifier

ALIVE_EVERY = 2.0
"""Seconds at least between two words to the daemon that one peer is alive."""


class Dispatcher:
    """Implements `contracts.transport.Answerer` over an endpoint."""

    def __init__(self, endpoint: Endpoint, notifier: Notifier, clock: Clock, alive: Callable[[str], None],
                 log: logging.Logger, threads: int = 4, at_once: AtOnce | None = None) -> None:  # fmt: skip
        """``at_once``: the rule by which a push is answered in the thread that read it, where that thread is ours."""
        self.endpoint, self._at_once = endpoint, at_once
        self.head_size = endpoint.head_size
        self._clock, self._alive, self._log = clock, alive, log
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="dropr-dispatcher")
        self._seen: dict[str, float] = {}
        self._refusals = RefusalLog(log, clock)
        self._long_polls = LongPolls(notifier, clock, self._retry, log)

    def admit(self, head: bytes, caller: Caller) -> int:
        """Judge a request by its beginning (see the contract)."""
        try:
            return self.endpoint.admit(head, caller)
        except Refused as refusal:
            self._refusals.note(refusal, caller)
            raise

    def answer(self, request: bytes | memoryview, caller: Caller) -> "Future[bytes]":
        """The answer, now or after a long poll (see the contract)."""
        return_to: Future[bytes] = Future()
        rule = self._at_once
        if rule is None or not rule.may(len(request)):
            self._send_away(self._first, request, caller, return_to)
        elif (opened := self._open(request, caller, return_to)) is not None:
            if opened.verb == PUSH:
                rule.here(lambda: self._answer(opened, return_to))
            else:
                self._send_away(self._answer, opened, return_to)
        return return_to

    def _send_away(self, work: Callable[..., None], *what: Any) -> None:
        """Have a thread do it; what it answers to comes last."""
        return_to, rule = what[-1], self._at_once
        if rule is not None:
            rule.sent_away(return_to)
        try:
            self._pool.submit(self._away, work, *what)
        except RuntimeError as error:  # closed; or no thread can be started
            if rule is not None:
                rule.came_back(return_to)
            self._failed(Refused("busy", f"this node cannot answer now: {error}"), return_to)

    def _away(self, work: Callable[..., None], *what: Any) -> None:
        try:
            work(*what)
        finally:
            if self._at_once is not None:
                self._at_once.came_back(what[-1])

    def _first(self, frame: bytes | memoryview, caller: Caller, return_to: "Future[bytes]") -> None:
        if (request := self._open(frame, caller, return_to)) is not None:
            self._answer(request, return_to)

    def _open(self, frame: bytes | memoryview, caller: Caller, return_to: "Future[bytes]") -> Request | None:
        """The authenticated request; None if it is refused by now."""
        try:
            return self.endpoint.open(frame, caller)
        except BaseException as error:
            self._failed(error, return_to)
            return None

    def _answer(self, request: Request, return_to: "Future[bytes]") -> None:
        try:
            self._note(request.peer)
            answer = self.endpoint.answer(request)
            if isinstance(answer, Wait):
                self._long_polls.enter(request, answer, return_to)
                return
        except BaseException as error:
            self._failed(error, return_to)
            return
        self._give(answer, request, return_to)

    def _retry(self, request: Request, final: bool, return_to: "Future[bytes]") -> Wait | None:
        """Ask again for a request that waits; None when it is answered."""
        if return_to.cancelled():
            return None
        try:
            answer = self.endpoint.answer(request, first=False, final=final)
        except BaseException as error:
            self._failed(error, return_to)
            return None
        if isinstance(answer, Wait):
            return answer
        self._give(answer, request, return_to)
        return None

    def _give(self, answer: bytes, request: Request, return_to: "Future[bytes]") -> None:
        if _still_wanted(return_to):
            self.endpoint.answers.count(return_to, request.peer, len(answer))
            return_to.set_result(answer)

    def _failed(self, error: BaseException, return_to: "Future[bytes]") -> None:
        if not isinstance(error, Exception) or not hasattr(error, "code"):
            self._log.error("a request could not be answered: %s: %s", type(error).__name__, error)
        if _still_wanted(return_to):
            return_to.set_exception(error)

    def _note(self, peer: str) -> None:
        now = self._clock.now()
        if now - self._seen.get(peer, float("-inf")) >= ALIVE_EVERY:
            self._seen[peer] = now
            self._alive(peer)

    def close_waiting(self) -> None:
        """End all long polls with what there is; safe twice."""
        self._long_polls.close()

    def close(self) -> None:
        """End all long polls, finish what is being answered, then stop; safe twice."""
        self._long_polls.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.endpoint.close()


def _still_wanted(return_to: "Future[bytes]") -> bool:
    """Whether the asker is still there. From now on it cannot leave between this question and the answer."""
    return return_to.set_running_or_notify_cancel()
