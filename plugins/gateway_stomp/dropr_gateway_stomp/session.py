"""The server's side of one STOMP connection, without I/O: bytes in, events out; words of the door in, bytes out.

Owns the order in which frames may come, negotiation, subscriptions with what is delivered and not settled, and
transactions, which wait here in memory until their COMMIT. Knows no socket, no clock and no dropr: a delivery is named
by a ticket that the door chooses.

    session.feed(data)
    while (event := session.next()) is not None:
        ... do it; then
        out += session.receipt(event.receipt)
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Generic

from dropr_gateway_stomp import durable
from dropr_gateway_stomp.events import (
    Commit,
    Connect,
    Disconnect,
    Event,
    Nothing,
    Send,
    Settle,
    Subscribe,
    Ticket,
    Unsubscribe,
)
from dropr_gateway_stomp.frames import Beat, Frame, FrameReader, Limits, ProtocolError, Version, encode

PREFETCH = ("prefetch-count", "activemq.prefetchSize")
"""Headers of SUBSCRIBE with which clients limit what is under way: RabbitMQ's and ActiveMQ's."""
MOST_PREFETCH = 10_000
_ACKS = ("auto", "client", "client-individual")


class Subscription(Generic[Ticket]):
    """One subscription of a session."""

    def __init__(self, asked: Subscribe) -> None:
        self.asked = asked
        self.unsettled: OrderedDict[str, tuple[str, Ticket]] = OrderedDict()
        """Number of the delivery → message id, what the door calls it; the oldest first."""
        self.numbers: dict[str, str] = {}
        """Message id → number of its delivery: what ACK names before STOMP 1.2."""

    @property
    def tickets(self) -> list[Ticket]:
        """What is delivered and not settled, the oldest first."""
        return [ticket for _, ticket in self.unsettled.values()]

    def add(self, number: str, message_id: str, ticket: Ticket) -> None:
        """It is under way."""
        self.unsettled[number] = (message_id, ticket)
        self.numbers[message_id] = number

    def take(self, number: str) -> tuple[str, Ticket]:
        """It is not any more."""
        message_id, ticket = self.unsettled.pop(number)
        del self.numbers[message_id]
        return message_id, ticket


class _Transaction(Generic[Ticket]):
    def __init__(self) -> None:
        self.sends: list[Send] = []
        self.settles: list[Settle[Ticket]] = []
        self.taken: list[tuple[str, str, str, Ticket]] = []  # subscription, number of the delivery, message id, ticket
        self.bytes = 0


class Session(Generic[Ticket]):
    """One connection. After a ProtocolError send `error` and end it."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        prefetch: int = 100,
        subscriptions: int = 1000,
        transactions: int = 100,
        transaction_bytes: int = 64 * 1024 * 1024,
        server: str = "dropr",
    ) -> None:
        """``prefetch``: deliveries under way at once on a subscription that does not say; the others bound memory."""
        self.version: Version | None = None
        """None until `accept`."""
        self.heart_beat = "0,0"
        """The client's header, as it stood in CONNECT."""
        self.ended = False
        """After DISCONNECT or `error`: nothing is read any more."""
        self.subscriptions: dict[str, Subscription[Ticket]] = {}
        self._reader = FrameReader(limits)
        self._prefetch, self._most_subscriptions = prefetch, subscriptions
        self._most_transactions, self._most_bytes = transactions, transaction_bytes
        self._server = server
        self._offered: Version | None = None
        self._transactions: dict[str, _Transaction[Ticket]] = {}
        self._deliveries = 0

    # ── in ───────────────────────────────────────────────────────────────────────────────────────

    def feed(self, data: bytes) -> None:
        """Bytes of the client; take all events before the next call."""
        self._reader.feed(data)

    def next(self) -> Event[Ticket] | None:
        """The next thing that the client wants; None: more bytes are needed. Raises ProtocolError."""
        while not self.ended:
            frame = self._reader.next()
            if frame is None:
                return None
            if frame is Beat.BEAT:
                continue
            assert isinstance(frame, Frame)
            try:
                return self._event(frame)
            except ProtocolError as error:
                error.receipt = error.receipt or frame.headers.get("receipt")
                raise
        return None

    def _event(self, frame: Frame) -> Event[Ticket]:
        command, headers = frame.command, frame.headers
        if command in {"CONNECT", "STOMP"}:
            return Event(self._connect(headers))
        if self.version is None:
            raise ProtocolError(f"the first frame must be CONNECT or STOMP, not {command[:40]!r}")
        receipt = headers.get("receipt")
        match command:
            case "SEND":
                return Event(self._send(frame), receipt)
            case "ACK" | "NACK":
                return Event(self._settle(command, headers), receipt)
            case "SUBSCRIBE":
                return Event(self._subscribe(headers), receipt)
            case "UNSUBSCRIBE":
                return Event(self._unsubscribe(headers), receipt)
            case "BEGIN":
                self._begin(headers)
                return Event(Nothing(), receipt)
            case "COMMIT":
                done = self._end(headers, command)
                return Event(Commit(done.sends, done.settles), receipt)
            case "ABORT":
                self._give_back(self._end(headers, command))
                return Event(Nothing(), receipt)
            case "DISCONNECT":
                self.ended = True
                return Event(Disconnect(), receipt)
        raise ProtocolError(f"{command[:40]!r} is no command of a STOMP client")

    def _connect(self, headers: Mapping[str, str]) -> Connect:
        if self._offered is not None:
            raise ProtocolError("this connection is connected already")
        wanted = [one.strip() for one in headers.get("accept-version", "1.0").split(",")]
        common = [one for one in Version if one.value in wanted]
        if not common:
            raise ProtocolError(f"no common version: {', '.join(Version)} are spoken here, accept-version was "
                                f"{headers['accept-version'][:80]!r}")  # fmt: skip
        self._offered = common[-1]
        self.heart_beat = headers.get("heart-beat", "0,0") if self._offered is not Version.V10 else "0,0"
        # One who pipelines writes in the version that he knows he will get.
        self._reader.version = self._offered
        return Connect(headers.get("login", ""), headers.get("passcode", ""), headers)

    def _needed(self, command: str, headers: Mapping[str, str], name: str) -> str:
        value = headers.get(name)
        if not value:
            raise ProtocolError(f"{command} needs the header {name!r}")
        return value

    def _send(self, frame: Frame) -> Send | Nothing:
        destination = self._needed("SEND", frame.headers, "destination")
        send = Send(destination, frame.headers, frame.body)
        inside = self._transaction("SEND", frame.headers)
        if inside is None:
            return send
        inside.bytes += len(frame.body) + sum(len(name) + len(value) for name, value in frame.headers.items())
        inside.sends.append(send)
        if sum(one.bytes for one in self._transactions.values()) > self._most_bytes:
            raise ProtocolError(f"transactions that are open may hold {self._most_bytes:,} bytes together "
                                "(option 'max_transaction'); commit in smaller parts")  # fmt: skip
        return Nothing()

    def _transaction(self, command: str, headers: Mapping[str, str]) -> "_Transaction[Ticket] | None":
        name = headers.get("transaction")
        if name is None:
            return None
        if name not in self._transactions:
            raise ProtocolError(f"{command} names the transaction {name[:80]!r}, which is not open")
        return self._transactions[name]

    def _begin(self, headers: Mapping[str, str]) -> None:
        name = self._needed("BEGIN", headers, "transaction")
        if name in self._transactions:
            raise ProtocolError(f"the transaction {name[:80]!r} is open already")
        if len(self._transactions) >= self._most_transactions:
            raise ProtocolError(f"a connection may have {self._most_transactions} open transactions")
        self._transactions[name] = _Transaction()

    def _end(self, headers: Mapping[str, str], command: str) -> "_Transaction[Ticket]":
        name = self._needed(command, headers, "transaction")
        if name not in self._transactions:
            raise ProtocolError(f"{command} names the transaction {name[:80]!r}, which is not open")
        return self._transactions.pop(name)

    def _give_back(self, aborted: "_Transaction[Ticket]") -> None:
        """What it had acknowledged is delivered and not settled again, in the order of delivery."""
        touched = set()
        for name, number, message_id, ticket in aborted.taken:
            if name in self.subscriptions:
                self.subscriptions[name].add(number, message_id, ticket)
                touched.add(name)
        for name in touched:
            mine = self.subscriptions[name].unsettled
            for number in sorted(mine, key=int):
                mine.move_to_end(number)

    def _subscribe(self, headers: Mapping[str, str]) -> Subscribe:
        destination = self._needed("SUBSCRIBE", headers, "destination")
        name = headers.get("id")
        if name is None:
            if self.version is not Version.V10:
                raise ProtocolError("SUBSCRIBE needs the header 'id'")
            name = destination
        if name in self.subscriptions:
            raise ProtocolError(f"the subscription {name[:80]!r} exists already")
        if len(self.subscriptions) >= self._most_subscriptions:
            raise ProtocolError(f"a connection may have {self._most_subscriptions:,} subscriptions")
        ack = headers.get("ack", "auto")
        if ack not in _ACKS:
            raise ProtocolError(f"ack must be auto, client or client-individual, not {ack[:40]!r}")
        prefetch = self._prefetch
        for header in PREFETCH:
            text = headers.get(header)
            if text is not None:
                if not (text.isascii() and text.isdigit() and len(text) <= 9):
                    raise ProtocolError(f"{header} must be a number, not {text[:40]!r}")
                prefetch = min(int(text), MOST_PREFETCH) or prefetch
                break
        asked = Subscribe(name, destination, ack, prefetch, headers.get("selector", ""), headers)
        self.subscriptions[name] = Subscription(asked)
        return asked

    def _unsubscribe(self, headers: Mapping[str, str]) -> Unsubscribe[Ticket]:
        name = headers.get("id")
        if name is None:
            if self.version is not Version.V10:
                raise ProtocolError("UNSUBSCRIBE needs the header 'id'")
            name = self._needed("UNSUBSCRIBE", headers, "destination")
        found = self.subscriptions.pop(name, None)
        if found is None and durable.wanted(headers) and headers.get("destination"):
            return Unsubscribe(name, headers["destination"], headers, [])  # one of which nothing is delivered now
        if found is None:
            raise ProtocolError(f"there is no subscription {name[:80]!r}")
        return Unsubscribe(name, found.asked.destination, headers, found.tickets)

    def _settle(self, command: str, headers: Mapping[str, str]) -> Settle[Ticket] | Nothing:
        inside = self._transaction(command, headers)
        found, number = self._delivery(command, headers)
        numbers = [number]
        if found.asked.ack == "client":  # it, and all before it
            numbers = list(found.unsettled)
            numbers = numbers[: numbers.index(number) + 1]
        taken = [(one, *found.take(one)) for one in numbers]
        settle = Settle(command == "ACK", [ticket for _, _, ticket in taken], headers)
        if inside is None:
            return settle
        inside.taken += [(found.asked.id, *one) for one in taken]
        inside.settles.append(settle)
        return Nothing()

    def _delivery(self, command: str, headers: Mapping[str, str]) -> tuple[Subscription[Ticket], str]:
        if self.version is Version.V12:
            what = self._needed(command, headers, "id")
            found = [(one, what) for one in self.subscriptions.values() if what in one.unsettled]
        else:
            what, owner = self._needed(command, headers, "message-id"), headers.get("subscription")
            found = [
                (one, one.numbers[what])
                for name, one in self.subscriptions.items()
                if what in one.numbers and owner in {None, name}
            ]
        if not found:
            raise ProtocolError(f"{command} names {what[:120]!r}, which is not delivered here and waiting for it")
        return found[0]

    # ── out ──────────────────────────────────────────────────────────────────────────────────────

    def accept(self, heart_beat: str = "0,0", session: str = "") -> bytes:
        """The answer to `Connect`: welcome."""
        assert self._offered is not None
        self.version = self._offered
        headers = [("version", self.version.value), ("server", self._server)]
        headers += [("session", session)] if session else []
        headers += [("heart-beat", heart_beat)] if self.version is not Version.V10 else []
        return encode("CONNECTED", headers, version=self.version)

    def receipt(self, receipt: str | None) -> bytes:
        """The answer to a frame that asked for one; nothing for None."""
        return b"" if receipt is None else encode("RECEIPT", [("receipt-id", receipt)], version=self._speaks)

    def error(self, message: str, receipt: str | None = None, detail: str = "") -> bytes:
        """The last frame: what is wrong, and with what."""
        self.ended = True
        if self.version is None:  # the client may unescape it, or not
            message = message.replace("\\", "/")
        headers = [("message", message)]
        if self.version is None:
            headers.append(("version", ",".join(Version)))
        if receipt is not None:
            headers.append(("receipt-id", receipt))
        body = (detail or message).encode("utf-8", "replace")
        headers += [("content-type", "text/plain"), ("content-length", str(len(body)))]
        return encode("ERROR", headers, body, self._speaks)

    @property
    def _speaks(self) -> Version:
        return self.version or self._offered or Version.V10

    def credit(self, subscription: str) -> int:
        """How many more may be delivered on it now; 0 for one that is over."""
        found = self.subscriptions.get(subscription)
        return 0 if found is None else max(0, found.asked.prefetch - len(found.unsettled))

    def deliver(
        self, subscription: str, ticket: Ticket, message_id: str, headers: Iterable[tuple[str, str]], body: bytes
    ) -> bytes:
        """A MESSAGE frame. With ``ack:auto`` it counts as settled with that; else the ticket comes back in an event.

        ``headers``: all but subscription, message-id, ack and content-length.
        """
        found = self.subscriptions[subscription]
        own = [("message-id", message_id)]
        if self.version is not Version.V10 or "id" in found.asked.headers:
            own.append(("subscription", subscription))
        if found.asked.ack != "auto":
            self._deliveries += 1
            number = str(self._deliveries)
            found.add(number, message_id, ticket)
            if self.version is Version.V12:
                own.append(("ack", number))
        own += headers
        own.append(("content-length", str(len(body))))
        return encode("MESSAGE", own, body, self._speaks)
