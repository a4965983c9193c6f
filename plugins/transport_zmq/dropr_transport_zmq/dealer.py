"""The life of one DEALER socket: opened by need, watched by its monitor, put away when the peer is gone.

Owns the socket, its settings, name lookup and what its events mean. A socket serves one connection: after a
break it is put away with whatever it still holds, and the next request opens a new one, so that nothing stale
is sent and the link's backoff decides how often a dead peer is tried (docs/decisions/0011). Runs in the
engine's thread. Must not know requests.
"""

import ipaddress
import itertools
import logging
import socket as sockets
import threading
from collections.abc import Callable, Sequence

import zmq
from zmq.utils.monitor import parse_monitor_message

from dropr_core.errors import Closed, DroprError, Refused, Unreachable
from dropr_transport_zmq.address import Address, endpoint
from dropr_transport_zmq.engine import Engine, Timer, receive, send_now
from dropr_transport_zmq.frames import MAX_FRAME
from dropr_transport_zmq.hub import Hub
from dropr_transport_zmq.keys import public_to_z85, secret_to_z85
from dropr_transport_zmq.options import Options

_HANDSHAKES = {zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_AUTH}
_LONGEST_TTL = 65_000
_ENDS = {zmq.Event.CLOSED, zmq.Event.CONNECT_RETRIED, zmq.Event.DISCONNECTED}


def _nothing() -> None:
    """Nobody listens yet."""


def settle(socket: "zmq.Socket[bytes]", options: Options) -> None:
    """The settings that both sides share: bounded queues, bounded frames, signs of life."""
    socket.setsockopt(zmq.SNDHWM, options.high_water)
    socket.setsockopt(zmq.RCVHWM, options.high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    silence = round(options.heartbeat * 1000)
    asks = max(1, silence // 3)  # then the answer has two thirds of the time, and both together take all of it
    socket.setsockopt(zmq.HEARTBEAT_IVL, asks)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, silence - asks)
    # The time that the other side is asked to wait for us. libzmq counts it in 16 bits: 66 s would be 0.4 s there.
    socket.setsockopt(zmq.HEARTBEAT_TTL, silence if silence <= _LONGEST_TTL else 0)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
    socket.setsockopt(zmq.HANDSHAKE_IVL, max(1, round(options.connect * 1000)))


class Dealer:
    """One way to one address."""

    def __init__(self, engine: Engine, address: Address, secret: str, options: Options, hub: Hub,
                 log: logging.Logger) -> None:  # fmt: skip
        """``secret``: this side's CURVE key, used where the address names the other side's."""
        self.engine, self.url = engine, address.url
        self._address, self._secret, self._options, self._hub, self._log = address, secret, options, hub, log
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._turn = 0
        """Rises whenever the socket changes, so that old news is known as such."""
        self._opening = False
        self._wants_room = False
        self._reason: DroprError | None = None
        self._reached = False
        """Whether somebody took the connection that is being made."""
        self._attempt: Timer | None = None
        """Looks whether the attempt to connect has come to anything."""
        self._places = itertools.count()
        self.ready = False
        """Whether the handshake is done and requests may be sent."""
        self.on_ready: Callable[[], None] = _nothing
        self.on_readable: Callable[[], None] = _nothing
        self.on_writable: Callable[[], None] = _nothing
        self.on_gone: Callable[[], None] = _nothing
        self.on_lost: Callable[[str], None] = lambda _reason: None
        self.on_failed: Callable[[DroprError], None] = lambda _error: None

    # ── opening and putting away ─────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Begin to connect, unless that is under way. How it went is told by the callbacks."""
        if self._opening:
            return
        self._opening = True
        self._turn += 1
        address = self._address
        if address.kind == "inproc":
            self._meet()
        elif address.kind == "ipc":
            self._connect(f"ipc://{address.path}")
        elif _is_number(address.host):
            self._connect(endpoint(address.host, address.port))
        else:
            turn = self._turn
            work = threading.Thread(target=self._find, args=(turn,), name="dropr-zmq-dns", daemon=True)
            work.start()

    def _find(self, turn: int) -> None:
        """Look the name up, in a thread of its own: ZeroMQ would keep all other peers waiting meanwhile."""
        found: list[str] = []
        reason = ""
        try:
            places = sockets.getaddrinfo(self._address.host, self._address.port, type=sockets.SOCK_STREAM)
            found = list(dict.fromkeys(str(place[4][0]) for place in places))
        except (OSError, UnicodeError) as error:
            reason = str(error)

        def go_on() -> None:
            if turn != self._turn:
                return
            if found:  # the next one each time: a host may have a family that does not work
                self._connect(endpoint(found[next(self._places) % len(found)], self._address.port))
            else:
                text = f"{self.url}: the host name is not known ({reason}); check the peer's url and this machine's DNS"
                self._fail(Unreachable(text))

        try:
            self.engine.post(go_on)
        except Closed:
            pass

    def _meet(self) -> None:
        turn = self._turn

        def gone() -> None:
            try:
                self.engine.post(lambda: self._left(turn, "the listener closed before the answer came"))
            except Closed:
                pass

        context = self._hub.use()
        if not self._hub.meet(self._address.name, self, gone):
            self._hub.leave()
            self._fail(Unreachable(f"{self.url}: nobody in this process listens under that name"))
            return
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, self._options.high_water)
        self._socket.setsockopt(zmq.RCVHWM, self._options.high_water)
        self._socket.connect(f"inproc://{self._address.name}")
        self.engine.watch(self._socket, self._events)
        self.ready = True
        self.on_ready()

    def _left(self, turn: int, reason: str) -> None:
        """The other side is gone: hear its last words, then put the socket away."""
        for _ in range(self._options.high_water // 128 + 2):  # more than the queue holds
            if turn == self._turn:
                self.on_readable()
        if turn == self._turn:
            self.park()
            self.on_lost(reason)
            self.on_gone()

    def _connect(self, where: str) -> None:
        options = self._options
        socket = self._socket = self.engine.context.socket(zmq.DEALER)
        settle(socket, options)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, max(1, round(options.connect * 1000)))
        # Neither ZMQ_IMMEDIATE nor -1 here (never): with them, libzmq throws away answers that came just before
        # the end. We have put the socket away long before it reconnects.
        socket.setsockopt(zmq.RECONNECT_IVL, 60_000)
        if where.startswith("tcp://["):
            socket.setsockopt(zmq.IPV6, 1)
        if self._address.curve:
            secret = secret_to_z85(self._secret)
            socket.setsockopt(zmq.CURVE_SERVERKEY, public_to_z85(self._address.curve))
            socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(secret))
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        self._monitor = self.engine.monitor(socket)
        self.engine.watch(self._monitor, self._heard)
        self.engine.watch(socket, self._events)
        try:
            socket.connect(where)
        except zmq.ZMQError as error:
            self._fail(Unreachable(f"{self.url}: cannot be used: {error}"))
            return
        self._guard()

    def _guard(self) -> None:
        """Whatever ZeroMQ tells or does not tell: an attempt ends."""
        turn = self._turn

        def look() -> None:
            if turn == self._turn and not self.ready and self._socket is not None:
                self._fail(self._reason or Unreachable(f"{self.url}: no connection within the time for it"))

        self._attempt = self.engine.after(2 * self._options.connect + 1, look)

    def park(self) -> None:
        """Put the socket away; safe twice."""
        self._turn += 1
        self._opening = self.ready = self._wants_room = False
        self._reason, self._reached = None, False
        if self._attempt is not None:
            self.engine.cancel(self._attempt)
            self._attempt = None
        socket, self._socket = self._socket, None
        monitor, self._monitor = self._monitor, None
        if socket is None:
            return
        self.engine.unwatch(socket)
        if monitor is not None:
            self.engine.unwatch(monitor)
            socket.disable_monitor()
            monitor.close(0)
        socket.close(0)
        if self._address.kind == "inproc":
            self._hub.part(self._address.name, self)
            self._hub.leave()

    # ── what ZeroMQ tells ────────────────────────────────────────────────────────────────────────

    def _heard(self, _events: int) -> None:
        monitor = self._monitor
        while monitor is self._monitor and monitor is not None:
            parts = receive(monitor, 2)
            if parts is None:
                return
            news = parse_monitor_message([part.bytes for part in parts])
            self._understand(news["event"], news["value"])

    def _understand(self, event: int, value: int) -> None:
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            self.ready, self._reason = True, None
            self._turn += 1
            self.on_ready()
        elif event == zmq.Event.CONNECTED:
            self._reached = True
        elif event in _HANDSHAKES:
            self._reason = self._unshaken(event, value)
        elif event == zmq.Event.DISCONNECTED and self.ready:
            self._left(self._turn, "the connection broke before the answer came")
        elif event in _ENDS and not self.ready:
            # That a handshake broke a rule is told by no event (engine.EVENTS), only that the connection ended.
            self._fail(self._reason or (self._unshaken(event, value) if self._reached else self._nobody()))

    def _fail(self, error: DroprError) -> None:
        self.park()
        self.on_failed(error)

    def _nobody(self) -> DroprError:
        where = "its server runs" if self._address.kind == "ipc" else "the peer's server runs, its port, and the route"
        return Unreachable(f"{self.url}: nobody listens there, or a firewall is between; check that {where}")

    def _unshaken(self, event: int, value: int) -> DroprError:
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            return Refused(
                "unauthorized",
                f"{self.url} does not let us in ({value}); have this node's public CURVE key put into the peer's "
                "option 'clients'",
            )
        hint = (
            "check that ?curve= is the public key that the peer's server logs"
            if self._address.curve
            else "the peer may want CURVE: put ?curve=KEY with its public key behind the url"
        )
        return Unreachable(f"{self.url}: the ZeroMQ handshake failed; {hint}, and that a dropr node listens there")

    # ── messages ─────────────────────────────────────────────────────────────────────────────────

    def send(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Hand one message to ZeroMQ; False if it takes no more now. Never blocks."""
        if self._socket is None or not self.ready:
            return False
        try:
            send_now(self._socket, parts)
        except zmq.Again:
            return False
        return True

    def receive(self, most: int) -> "list[zmq.Frame] | None":
        """The next message, or None."""
        return None if self._socket is None else receive(self._socket, most)

    def want_room(self, wanted: bool) -> None:
        """Whether to be told (`on_writable`) when ZeroMQ takes messages again."""
        if self._socket is not None and wanted != self._wants_room:
            self._wants_room = wanted
            self.engine.watch(self._socket, self._events, zmq.POLLIN | (zmq.POLLOUT if wanted else 0))

    def _events(self, events: int) -> None:
        if events & zmq.POLLIN:
            self.on_readable()
        if events & zmq.POLLOUT:
            self.on_writable()


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
