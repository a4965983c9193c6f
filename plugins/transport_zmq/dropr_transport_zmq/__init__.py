"""ZeroMQ transport: a DEALER asks, a ROUTER answers, CURVE encrypts.

Owns the plugin's surface: `Options`, the hooks, the transport. Must not know what is moved.
"""

import logging
import threading
from concurrent.futures import Future
from functools import partial
from typing import ClassVar

from dropr_core.contracts.context import Context
from dropr_core.contracts.transport import Answerer, Connection, Introduction, Listener, Transport
from dropr_core.errors import Closed, Unreachable, UsageError
from dropr_core.hookspecs import hookimpl
from dropr_core.system.tally import Tally
from dropr_transport_zmq.address import SCHEMES, Address, parse
from dropr_transport_zmq.asking import Asking
from dropr_transport_zmq.dealer import Dealer
from dropr_transport_zmq.door import Door
from dropr_transport_zmq.engine import Engine
from dropr_transport_zmq.hub import Hub
from dropr_transport_zmq.keys import new_secret, public_of
from dropr_transport_zmq.options import Options
from dropr_transport_zmq.zap import Gatekeeper

__all__ = ["SCHEMES", "Options", "ZmqTransport", "dropr_keypair", "dropr_transport", "make"]

_SHORT = 64 << 10
"""Bytes of a request that is sent before its asker goes on."""
_UNWANTED = 100
"""Keys of callers that were sent away of which each gets a line in the log."""

_PROCESS = Hub()  # the address space of this process: what all nodes in it must share to meet over inproc


class ZmqConnection(Connection):
    """A way to one url."""

    def __init__(self, engine: Engine, asking: Asking, url: str, most: int) -> None:
        self._engine, self._asking, self._url, self._most = engine, asking, url, most
        self._lock = threading.Lock()
        self._under_way = 0
        self._closed = False

    def ask(self, request: bytes, *, idle: float) -> "Future[bytes]":
        """See the contract. After `close` the future fails with Closed."""
        future: Future[bytes] = Future()
        future.set_running_or_notify_cancel()
        if self._closed:
            future.set_exception(Closed(f"{self._url}: this connection is closed"))
            return future
        with self._lock:
            full = self._under_way >= self._most
            self._under_way += not full
        if full:
            text = f"{self._url}: {self._most} requests are under way already (option 'max_waiting'); it was not sent"
            future.set_exception(Unreachable(text))
            return future
        future.add_done_callback(self._done)
        work = partial(self._asking.ask, request, idle, future)
        try:
            if len(request) <= _SHORT:
                self._engine.hand_over(work)
            else:  # it takes a while, in which this thread makes the next one
                self._engine.post(work)
        except Closed as error:
            future.set_exception(Closed(f"{self._url}: {error}"))
        return future

    def _done(self, _future: "Future[bytes]") -> None:
        with self._lock:
            self._under_way -= 1

    def close(self) -> None:
        """See the contract."""
        if not self._closed:
            self._closed = True
            try:
                self._engine.post(self._asking.close)
            except Closed:
                pass


class ZmqTransport(Transport):
    """One instance serves all peers and listeners of a node."""

    schemes = SCHEMES
    abilities = frozenset({"encrypted", "knows_caller"})
    encrypted_schemes: ClassVar[frozenset[str]] = frozenset({"zmq+tcp"})

    def __init__(self, options: Options, log: logging.Logger, hub: Hub = _PROCESS) -> None:
        self._options, self._log, self._hub = options, log, hub
        self._engine = Engine(log)
        self._engine.at_end.append(self._end)
        self._key = options.key
        self._lock = threading.Lock()
        self._askings: list[Asking] = []
        self._doors: list[Door] = []
        self._gate: Gatekeeper | None = None
        self._sent, self._unwanted = Tally(), set[str]()

    def check(self, url: str, *, listen: bool) -> str | None:
        """See the contract."""
        try:
            self._address(url, listen=listen)
        except UsageError as error:
            return str(error)
        return None

    def _address(self, url: str, *, listen: bool) -> Address:
        address, options = parse(url), self._options
        if address.kind == "inproc" or (address.kind == "ipc" and listen):
            return address
        if address.kind == "ipc":
            if address.path == "*":
                raise UsageError(f"'{url}': '*' stands for any address only where a node listens")
            return address
        if not listen:
            if address.host == "*" or address.port == 0:
                raise UsageError(f"'{url}' names no address that can be asked; write host and port of the peer")
            if not address.curve and options.curve:
                raise UsageError(
                    f"'{url}' lacks the peer's public CURVE key; the peer's server logs its url with ?curve=KEY, or "
                    "say curve: false under transports: zmq: to talk without encryption"
                )
        elif options.curve and not options.key:
            raise UsageError(
                f"listening on '{url}' needs a CURVE key: make one with `dropr keygen zmq --file FILE` and say key: "
                "${file:FILE} under transports: zmq: (or curve: false, to listen without encryption)"
            )
        elif address.curve and not options.curve:
            raise UsageError(f"'{url}' asks for CURVE, and the option says curve: false; remove one of the two")
        elif address.curve and address.curve != public_of(options.key):
            raise UsageError(f"'{url}': ?curve= is not the public key of this node; leave it out where a node listens")
        return address

    def connect(self, url: str) -> Connection:
        """See the contract."""
        try:
            address = self._address(url, listen=False)
        except UsageError as error:
            raise Unreachable(str(error)) from None
        with self._lock:
            if address.curve and not self._key:
                # Encrypted and the peer proven, as with any TLS client without a certificate of its own.
                self._key = new_secret()
            asking = Asking(
                Dealer(self._engine, address, self._key, self._options, self._hub, self._log), self._options, self._log
            )
            self._askings = [one for one in self._askings if not one.closed]
            self._askings.append(asking)
        return ZmqConnection(self._engine, asking, url, self._options.max_waiting)

    def listen(self, url: str, answerer: Answerer) -> Listener:
        """See the contract."""
        try:
            address = self._address(url, listen=True)
        except UsageError as error:
            raise Unreachable(f"cannot listen: {error}") from None

        def open_door() -> Door:
            if self._gate is None and address.kind == "tcp" and self._options.curve:
                self._gate = Gatekeeper(self._engine, self._options.clients, self._sent_away)
            door = Door(self._engine, address, answerer, self._options, self._hub, self._log)
            self._doors = [*(one for one in self._doors if not one.ended), door]
            return door

        return self._engine.run(open_door)

    def _sent_away(self, key: str, address: str) -> None:
        """Each key once, as it may belong to somebody whom a person forgot; but only so many are remembered."""
        rare = self._sent.add()
        new = key not in self._unwanted and len(self._unwanted) < _UNWANTED
        if new:
            self._unwanted.add(key)
        if new or rare:
            self._log.warning("%s was sent away: its public CURVE key %s is not among 'clients' (%d so far)",
                              address, key, self._sent.count)  # fmt: skip

    def introduce(self, url: str) -> Introduction:
        """See the contract."""
        address, options = self._address(url, listen=True), self._options
        if address.kind == "inproc":
            raise UsageError(f"'{url}' stays inside one process: nobody can be invited there")
        if address.kind == "tcp" and options.curve:
            if options.clients:
                raise UsageError(
                    f"'{url}' lets in only the public keys of transports.zmq.clients, so no invitation can open it: "
                    "add the new node's key there and name the peer by hand (docs/transports/zmq.md)"
                )
            if not address.curve:
                return Introduction(f"{url.rstrip('/')}?curve={public_of(options.key)}")
        return Introduction(url)

    def close(self) -> None:
        """See the contract."""
        self._engine.close()

    def _end(self) -> None:
        for asking in self._askings:
            asking.close()
        for door in self._doors:
            door.end()
        if self._gate is not None:
            self._gate.close()


class OpenZmqTransport(ZmqTransport):
    """The same with ``curve: false``: it promises nothing that it may not keep."""

    abilities = frozenset()
    encrypted_schemes: ClassVar[frozenset[str]] = frozenset()


def make(options: Options, log: logging.Logger) -> ZmqTransport:
    """The transport for these options."""
    return (ZmqTransport if options.curve else OpenZmqTransport)(options, log)


@hookimpl
def dropr_transport(options: Options, context: Context) -> Transport:
    """Make the transport of one node."""
    return make(options, context.log)


@hookimpl
def dropr_keypair(secret: str | None) -> tuple[str, str]:
    """A secret CURVE key (a fresh one, unless given) and its public key."""
    made = secret or new_secret()
    return made, public_of(made)
