"""The transport ``loopback``: addresses inside one process, for tests and demonstrations.

Owns a table of names (`Hub`) and the rules of the transport contract without any network. Must not
know what a request means.
"""

import heapq
import itertools
import os
import re
import threading
from concurrent.futures import Future
from time import monotonic
from typing import Any

import attrs

from dropr_core import options as fields
from dropr_core.contracts.context import Context
from dropr_core.contracts.transport import Answerer, Caller, Connection, Introduction, Listener, Transport
from dropr_core.errors import Closed, Refused, Unanswered, Unreachable, UsageError
from dropr_core.hookspecs import hookimpl

SCHEMES = ("loopback",)

_FORKED = "this transport was opened by the parent process; open the node anew"
_URL = re.compile(r"loopback://([A-Za-z0-9._-]+)(/[A-Za-z0-9._~/-]*)?")


class Hub:
    """Who listens under which name. Transports that share a hub reach each other."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._listeners: dict[str, LoopbackListener] = {}
        self._numbers = itertools.count(1)

    def _look_around(self) -> None:
        """In a forked child nobody listens: a copy of the parent's listener would take what never reaches it."""
        if self._pid != os.getpid():
            self._lock, self._listeners, self._pid = threading.Lock(), {}, os.getpid()

    def enter(self, name: str, listener: "LoopbackListener") -> str:
        """Give a name to a listener (``0``: a fresh one); raises Unreachable if it is taken."""
        self._look_around()
        with self._lock:
            name = f"loopback-{next(self._numbers)}" if name == "0" else name
            if name in self._listeners:
                raise Unreachable(f"cannot listen on loopback://{name}: somebody in this process does already")
            self._listeners[name] = listener
            return name

    def leave(self, name: str, listener: "LoopbackListener") -> None:
        """Take the name back, if this listener has it."""
        self._look_around()
        with self._lock:
            if self._listeners.get(name) is listener:
                del self._listeners[name]

    def find(self, name: str) -> "LoopbackListener | None":
        """The listener of that name."""
        self._look_around()
        return self._listeners.get(name)


_PROCESS = Hub()  # the address space of this process: the one thing of dropr that all nodes in it must share


@attrs.frozen(kw_only=True)
class Options:
    """Options of the transport ``loopback``: none in a file."""

    hub: Hub = fields.given(_PROCESS, repr=False)
    """For tests that want an address space of their own."""


@attrs.define(eq=False)
class _Asked:
    """One request under way; settled once, whoever comes first."""

    url: str
    idle: float
    future: "Future[bytes]"
    owner: "LoopbackConnection"
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    done: bool = False

    def end(self, result: bytes | BaseException) -> None:
        with self._lock:
            if self.done:
                return
            self.done = True
        self.owner.forget(self)
        if isinstance(result, bytes):
            self.future.set_result(result)
        else:
            self.future.set_exception(result)

    def on_answer(self, answer: "Future[bytes]") -> None:
        if answer.cancelled():
            self.end(Unanswered(f"{self.url}: the answer was cancelled"))
            return
        error = answer.exception()
        if error is None:
            self.end(answer.result())
        elif isinstance(error, Refused):
            self.end(Refused(error.code, error.reason))
        else:  # no details, as over a network
            self.end(Unanswered(f"{self.url}: internal error of the peer"))


class _Timer:
    """Ends requests whose idle time is over: one thread for all of them, started by the first."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._change = threading.Condition()
        self._due: list[tuple[float, int, _Asked]] = []
        self._count = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process whose thread it is: what it belongs to is the parent's."""
        return self._pid != os.getpid()

    def watch(self, asked: _Asked) -> None:
        with self._change:
            if self._closed:
                return
            self._due = [entry for entry in self._due if not entry[2].done] if len(self._due) > 64 else self._due
            heapq.heapify(self._due)
            heapq.heappush(self._due, (monotonic() + asked.idle, next(self._count), asked))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dropr-loopback", daemon=True)
                self._thread.start()
            self._change.notify()

    def _run(self) -> None:
        while True:
            with self._change:
                if self._closed:
                    return
                pause = self._due[0][0] - monotonic() if self._due else None
                if pause is None or pause > 0:
                    self._change.wait(pause)
                    continue
                asked = heapq.heappop(self._due)[2]
            asked.end(Unanswered(f"{asked.url}: no answer for {asked.idle:g} s; the peer hangs"))

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._due.clear()
            self._change.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)


class LoopbackConnection(Connection):
    """A way to one name."""

    def __init__(self, hub: Hub, timer: _Timer, url: str, name: str) -> None:
        self._hub, self._timer, self._url, self._name = hub, timer, url, name
        self._lock = threading.Lock()
        self._open: set[_Asked] = set()
        self.closed = False

    def ask(self, request: bytes, *, idle: float) -> "Future[bytes]":
        """See the contract. After `close` the future fails with Closed."""
        future: Future[bytes] = Future()
        future.set_running_or_notify_cancel()
        if self._timer.forked:
            future.set_exception(Closed(f"{self._url}: {_FORKED}"))
            return future
        asked = _Asked(self._url, idle, future, self)
        with self._lock:
            if self.closed:
                future.set_exception(Closed(f"{self._url}: this connection is closed"))
                return future
            self._open.add(asked)
        listener = self._hub.find(self._name)
        if listener is None:
            asked.end(Unreachable(f"{self._url}: nobody in this process listens under that name"))
        elif not listener.take(request, asked):
            asked.end(Unreachable(f"{self._url}: it is closing"))
        if not asked.done:
            self._timer.watch(asked)
        return future

    def forget(self, asked: _Asked) -> None:
        """A request has ended."""
        with self._lock:
            self._open.discard(asked)

    def close(self) -> None:
        """See the contract."""
        if self._timer.forked:
            return
        with self._lock:
            self.closed = True
            left = list(self._open)
        for asked in left:
            asked.end(Unanswered(f"{self._url}: the connection was closed before the answer came"))


class LoopbackListener(Listener):
    """An open door inside the process."""

    def __init__(self, hub: Hub, timer: _Timer, answerer: Answerer, name: str, path: str) -> None:
        self._hub, self._timer, self._answerer = hub, timer, answerer
        self._change = threading.Condition()
        self._busy: set[_Asked] = set()
        self.closed = False
        self._name = hub.enter(name, self)
        self.url = f"loopback://{self._name}{path}"

    def take(self, request: bytes, asked: _Asked) -> bool:
        """Pass a request to the answerer in the caller's thread; False if the door is closed."""
        with self._change:
            if self.closed:
                return False
            self._busy.add(asked)
        asked.future.add_done_callback(lambda _: self._forget(asked))
        caller = Caller("loopback")
        try:
            length = self._answerer.admit(request[: self._answerer.head_size], caller)
            if length != len(request):
                raise Refused("bad_frame", f"the request says {length} bytes and has {len(request)}")
            self._answerer.answer(request, caller).add_done_callback(asked.on_answer)
        except Refused as refused:
            asked.end(Refused(refused.code, refused.reason))
        except Exception:
            asked.end(Unanswered(f"{asked.url}: internal error of the peer"))
        return True

    def _forget(self, asked: _Asked) -> None:
        with self._change:
            self._busy.discard(asked)
            self._change.notify_all()

    def close(self, *, drain: float = 0.0) -> None:
        """See the contract."""
        if self._timer.forked:
            return
        self._hub.leave(self._name, self)
        with self._change:
            self.closed = True
            self._change.wait_for(lambda: not self._busy, drain)
            left = list(self._busy)
        for asked in left:
            asked.end(Unanswered(f"{self.url}: the peer closed before it answered"))


class LoopbackTransport(Transport):
    """Moves requests by calling the other side."""

    schemes = SCHEMES

    def __init__(self, hub: Hub) -> None:
        self._hub, self._timer = hub, _Timer()
        self._lock = threading.Lock()
        self._opened: list[Any] = []
        self._closed = False

    def check(self, url: str, *, listen: bool) -> str | None:  # noqa: ARG002
        """See the contract."""
        return None if _URL.fullmatch(url) else f"'{url}' must look like loopback://name"

    def introduce(self, url: str) -> Introduction:
        """See the contract."""
        raise UsageError(f"'{url}' stays inside one process: nobody can be invited there")

    def connect(self, url: str) -> Connection:
        """See the contract."""
        connection = LoopbackConnection(self._hub, self._timer, url, self._name(url)[0])
        self._keep(connection)
        return connection

    def listen(self, url: str, answerer: Answerer) -> Listener:
        """See the contract."""
        if self._timer.forked:
            raise Closed(f"{url}: {_FORKED}")
        listener = LoopbackListener(self._hub, self._timer, answerer, *self._name(url))
        self._keep(listener)
        return listener

    def _name(self, url: str) -> tuple[str, str]:
        match = _URL.fullmatch(url)
        if not match:
            raise Unreachable(f"'{url}' must look like loopback://name")
        return match[1], match[2] or ""

    def _keep(self, opened: Connection | Listener) -> None:
        with self._lock:
            if not self._closed:
                self._opened = [one for one in self._opened if not one.closed]
                self._opened.append(opened)
                return
        opened.close()

    def close(self) -> None:
        """See the contract."""
        if self._timer.forked:
            return
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, []
        for one in opened:
            one.close()
        self._timer.close()


@hookimpl
def dropr_transport(options: Options, context: Context) -> Transport:  # noqa: ARG001
    """Make the transport of one node."""
    return LoopbackTransport(options.hub)
