"""One listener: a ROUTER socket bound to an address, and the orderly way to close it.

Owns binding, the lock of a socket file, what the monitor tells of connections, and draining. Must not know
what callers say (`answering.py`).
"""

import ipaddress
import logging
import os
import shutil
import socket as sockets
import tempfile
import threading
from functools import partial
from pathlib import Path
from time import monotonic
from typing import cast

import zmq
from zmq.utils.monitor import parse_monitor_message

from dropr_core.contracts.transport import Answerer, Listener
from dropr_core.errors import Closed, Held, Unreachable
from dropr_core.system.locks import FileLock
from dropr_core.system.tally import Tally
from dropr_transport_zmq.address import Address, endpoint
from dropr_transport_zmq.answering import Answering
from dropr_transport_zmq.dealer import settle
from dropr_transport_zmq.engine import Deadline, Engine, receive
from dropr_transport_zmq.handshakes import Handshakes
from dropr_transport_zmq.hub import Hub
from dropr_transport_zmq.keys import public_of, secret_to_z85
from dropr_transport_zmq.lines import Everybody, Lines
from dropr_transport_zmq.options import Options
from dropr_transport_zmq.zap import DOMAIN

_UNBIND = 2.0


class Door(Listener):
    """An open door."""

    def __init__(self, engine: Engine, address: Address, answerer: Answerer, options: Options, hub: Hub,
                 log: logging.Logger) -> None:  # fmt: skip
        """Runs in the engine's thread. Raises Unreachable."""
        self._engine, self._options, self._hub, self._log = engine, options, hub, log
        self._kind = address.kind
        self._lock: FileLock | None = None
        self._name = ""
        self._monitor: zmq.Socket[bytes] | None = None
        self._handshakes, self._failed = Handshakes(options.connect + 1.0), Tally()
        self._overdue = Deadline(engine, self._look)
        self.lines: Lines | None = None
        """Only over TCP: elsewhere the system says who may connect."""
        self._shut = threading.Event()
        self._closing = False
        self.ended = False
        context = hub.use() if self._kind == "inproc" else engine.context
        self._socket = context.socket(zmq.ROUTER)
        try:
            self._socket.setsockopt(zmq.LINGER, round(options.linger * 1000))
            self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else answers to the departed vanish in silence
            settle(self._socket, options)
            self.url = {"tcp": self._tcp, "ipc": self._ipc, "inproc": self._inproc}[self._kind](address)
        except BaseException as error:
            self._socket.close(0)
            self._release()
            if isinstance(error, zmq.ZMQError | OSError):
                raise Unreachable(f"cannot listen on {address.url}: {error.strerror or error}") from None
            raise
        self.answering = Answering(engine, self._socket, self.url, answerer, options, self.lines or Everybody(), log)
        self.answering.on_idle = self._idle

    # ── opening ──────────────────────────────────────────────────────────────────────────────────

    def _tcp(self, address: Address) -> str:
        options = self._options
        query = ""
        if options.curve:
            public = public_of(options.key)
            query = f"?curve={public}"
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret_to_z85(options.key))
            self._socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        else:
            self._log.warning("%s: not encrypted (curve: false); others on the way can read it", address.url)
        host = "0.0.0.0" if address.host == "*" else _number(address.host)  # noqa: S104 - the user's word
        if ":" in host:
            self._socket.setsockopt(zmq.IPV6, 1)
        self.lines = Lines(self._engine, options, self._news, self._catch_up, self._log)
        self._watch()
        self._socket.bind(endpoint(host, address.port))
        port = int(self._last().rpartition(":")[2])
        shown = address.host if ":" not in address.host else f"[{address.host}]"
        return f"zmq+tcp://{shown}:{port}{query}"

    def _ipc(self, address: Address) -> str:
        path = Path(address.path)
        if address.path == "*":
            made = tempfile.mkdtemp(prefix="dropr-zmq-")
            self._engine.at_end.append(partial(shutil.rmtree, made, ignore_errors=True))
            path = Path(made, "dropr.sock")
        # ZeroMQ takes a socket file away from whoever listens there, so a lock says whether somebody does.
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            self._lock.acquire(f"listens on {path}")
        except Held as error:
            raise Unreachable(f"cannot listen on zmq+ipc://{path}: {error}") from None
        self._watch()
        self._socket.bind(f"ipc://{path}")
        os.chmod(path, 0o600)  # noqa: PTH101 - a path in words of the system
        return f"zmq+ipc://{path}"

    def _inproc(self, address: Address) -> str:
        self._name = self._hub.enter(address.name)
        self._socket.bind(f"inproc://{self._name}")
        return f"zmq+inproc://{self._name}"

    def _watch(self) -> None:
        self._monitor = self._engine.monitor(self._socket)
        self._engine.watch(self._monitor, self._heard)

    def _last(self) -> str:
        return bytes(cast("bytes", self._socket.getsockopt(zmq.LAST_ENDPOINT))).rstrip(b"\0").decode()

    def _heard(self, _events: int) -> None:
        monitor = self._monitor
        while monitor is not None and monitor is self._monitor:
            parts = receive(monitor, 2)
            if parts is None:
                return
            news = parse_monitor_message([part.bytes for part in parts])
            event, fd = news["event"], int(news["value"])
            if event == zmq.Event.ACCEPTED:
                self._overdue.by(self._handshakes.begun(monotonic()))
                if self.lines is not None:
                    self.lines.accepted(fd)
            elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
                self._handshakes.succeeded()
            elif event == zmq.Event.DISCONNECTED and self.lines is not None:
                self.lines.disconnected(fd)

    def _news(self) -> None:
        self._heard(0)

    def _catch_up(self) -> None:
        self.answering.read()

    def _look(self, now: float) -> float | None:
        failed = self._handshakes.look(now)
        if self._failed.add(failed - self._failed.count):
            self._log.warning("%s: a caller failed the handshake (%d so far): wrong or no CURVE key, or no dropr node",
                              self.url, failed)  # fmt: skip
        return self._handshakes.due

    # ── closing ──────────────────────────────────────────────────────────────────────────────────

    def close(self, *, drain: float = 0.0) -> None:
        """See the contract."""
        try:
            self._engine.run(self._shut_door)
            if self._engine.here:
                self.end()
                return
            if drain > 0:
                self._shut.wait(drain)
            self._engine.run(self.end)
        except Closed:
            pass  # the engine has closed it

    def _shut_door(self) -> None:
        if self._closing:
            return
        # The socket stays bound: to unbind it would cut off those whose answers are still to come.
        self._closing = self.answering.closing = True
        self._idle()

    def _idle(self) -> None:
        if self._closing and not self.answering.busy:
            self._shut.set()

    def end(self) -> None:
        """Close the socket, whatever is under way; safe twice."""
        if self.ended:
            return
        self.ended = self._closing = True
        self._shut.set()
        self.answering.close()
        if self.lines is not None:
            self.lines.close()
        if self._name:  # before the socket goes: nobody shall meet a name without one
            self._socket.unbind(f"inproc://{self._name}")
            self._hub.quit(self._name)
            self._name = ""
        # Not unbound before: that would throw away what its callers have not taken yet, closing lets it linger.
        self._socket.close()
        if self._monitor is not None:
            self._await_closed(self._monitor)
        self._release()

    def _await_closed(self, monitor: "zmq.Socket[bytes]") -> None:
        """ZeroMQ closes in a thread of its own; when this returns, the address can be used again."""
        ends = monotonic() + _UNBIND
        while (left := ends - monotonic()) > 0 and monitor.poll(round(left * 1000) + 1):
            parts = receive(monitor, 2) or []
            event = parse_monitor_message([part.bytes for part in parts])["event"]
            if event in (zmq.Event.CLOSED, zmq.Event.MONITOR_STOPPED):
                return

    def _release(self) -> None:
        if self._monitor is not None:
            self._engine.unwatch(self._monitor)
            self._monitor.close(0)
            self._monitor = None
        if self._name:
            self._hub.quit(self._name)
        if self._kind == "inproc":
            self._hub.leave()
        if self._lock is not None:
            self._lock.release()


def _number(host: str) -> str:
    """A host as a number: ZeroMQ binds to nothing else."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        places = sockets.getaddrinfo(host, None, type=sockets.SOCK_STREAM)
        return str(places[0][4][0])
