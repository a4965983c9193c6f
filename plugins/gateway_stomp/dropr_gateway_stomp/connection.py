"""One connection: what its session wants, done at the desk; what the desk gives, delivered.

Owns the tasks of a connection and how they end. The protocol is `session.py`'s, the queues are the desk's.
"""

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn, TypeAlias

import attrs

from dropr_core.contracts.gateway import Change, Desk, Held, Parcel
from dropr_core.errors import DroprError
from dropr_gateway_stomp import durable, events
from dropr_gateway_stomp.deliveries import DurablePump, Pump, QueuePump, SelectingPump, TopicPump
from dropr_gateway_stomp.frames import Limits, ProtocolError
from dropr_gateway_stomp.heartbeats import HeartBeats, parse
from dropr_gateway_stomp.mapping import (
    TEMPORARY,
    Destination,
    home_of,
    parse_destination,
    rank_of,
    temporary_channel,
    to_parcel,
)
from dropr_gateway_stomp.options import Options
from dropr_gateway_stomp.selectors import BadSelector, compile_selector
from dropr_gateway_stomp.session import Session
from dropr_gateway_stomp.topics import Published, Topics, new_id
from dropr_gateway_stomp.websocket import Bytes

Ticket: TypeAlias = Held | Published

_MOST_TEMPORARY = 100
"""Temporary queues of a connection."""
_ANSWER_LIFE = 86_400.0
"""Seconds after which what was sent to a temporary queue, and never read, is dropped."""
_GOOD_BYE = 5.0
"""Seconds that a client has to acknowledge what it has, when the gateway stops."""
_MOST_SENDS = 1000
"""SENDs that are put in one call: what a client writes without waiting is committed together."""


class _Ended(Exception):
    """Nothing more is to be done on this connection."""


class Connection:
    """Run it once."""

    def __init__(
        self, line: Bytes, desk: Desk, options: Options, topics: Topics, log: logging.Logger, *,
        peer: str, stopping: asyncio.Event, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._line, self._desk, self._options, self._topics = line, desk, options, topics
        self._log, self._peer, self._stopping, self._wall = log, peer, stopping, wall
        self.id, self._client_id = secrets.token_hex(8), ""
        self.session: Session[Ticket] = Session(
            Limits(body=options.max_body), prefetch=options.prefetch, transaction_bytes=options.max_transaction
        )
        self._now = asyncio.get_running_loop().time
        self._beats = HeartBeats((0, 0), (0, 0), self._now())
        self._beats_known = asyncio.Event()
        self._lock, self._settled = asyncio.Lock(), asyncio.Event()
        self._pumps: dict[str, Pump] = {}
        self._temporary: set[str] = set()
        self._group = asyncio.TaskGroup()

    # ── its life ─────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Until the client leaves, or must. What it held is back in the queues when this returns."""
        try:
            error = await self._live()
            if error is not None:
                text, receipt = str(error), getattr(error, "receipt", None)
                self._log.info("%s is sent away: %s", self._peer, text)
                async with asyncio.timeout(_GOOD_BYE):
                    await self.write(self.session.error(text, receipt))
        except (OSError, TimeoutError):
            pass
        finally:
            await self._leave()

    async def _live(self) -> BaseException | None:
        """What the client must be told at its end."""
        try:
            async with self._group as group:
                group.create_task(self._read())
                group.create_task(self._beat())
                group.create_task(self._stop())
        except BaseExceptionGroup as several:
            ends, rest = several.split((_Ended, ConnectionError, ProtocolError, DroprError))
            if rest is not None or ends is None:
                raise
            return next((one for one in _leaves(ends) if not isinstance(one, (_Ended, ConnectionError))), None)
        return None

    async def _leave(self) -> None:
        changes = [
            change for one in self.session.subscriptions.values() for change in give_back(one.tickets)
        ]  # fmt: skip
        try:
            if changes:
                await self._desk.settle(*changes)
            for channel in self._temporary:
                await self._desk.purge(channel)
        except DroprError as error:
            self._log.warning("%s left, and what it had could not be given back at once: %s", self._peer, error)

    async def _stop(self) -> NoReturn:
        await self._stopping.wait()
        for pump in self._pumps.values():
            pump.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOOD_BYE):
                while any(one.unsettled for one in self.session.subscriptions.values()):
                    self._settled.clear()
                    await self._settled.wait()
        raise ProtocolError("this gateway is being stopped; connect again")

    async def _beat(self) -> NoReturn:
        try:
            async with asyncio.timeout(self._options.connect):
                await self._beats_known.wait()
        except TimeoutError:
            raise ProtocolError(f"no CONNECT frame within {self._options.connect:g} s") from None
        while True:
            now = self._now()
            if self._beats.dead(now):
                raise ProtocolError("nothing was heard for more than twice the interval of your heart-beats")
            if self._beats.due(now):
                await self.write(b"\n")
                continue
            wait = self._beats.next() - now
            await asyncio.sleep(min(wait, 3600.0))

    async def write(self, data: bytes) -> None:
        """To the client, one after the other."""
        if data:
            async with self._lock:
                await self._line.write(data)
            self._beats.sent(self._now())

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    async def _read(self) -> NoReturn:
        session = self.session
        while data := await self._line.read():
            self._beats.received(self._now())
            session.feed(data)
            failure: ProtocolError | None = None
            found: list[events.Event[Ticket]] = []
            while failure is None:
                try:
                    event = session.next()
                except ProtocolError as error:
                    failure, event = error, None  # what came before it is done first
                if event is not None:
                    found.append(event)
                if found and (event is None or len(found) >= _MOST_SENDS or isinstance(event.what, events.Connect)):
                    await self._do(found)
                    found = []
                if event is None:
                    break
            if failure is not None:
                raise failure
        raise _Ended

    async def _do(self, found: Sequence[events.Event[Ticket]]) -> None:
        """In the order in which they came; what stands together and is alike is one commit."""
        at = 0
        while at < len(found):
            kind = type(found[at].what)
            run = [found[at]]
            if kind in {events.Send, events.Settle, events.Nothing}:
                while at + len(run) < len(found) and type(found[at + len(run)].what) is kind:
                    run.append(found[at + len(run)])
            await self._do_alike(run)
            at += len(run)

    async def _do_alike(self, run: Sequence[events.Event[Ticket]]) -> None:
        what = run[0].what
        match what:
            case events.Connect():
                await self._connect(what)
            case events.Send():
                sends = [one.what for one in run if isinstance(one.what, events.Send)]
                (await self._store(sends, run[-1].receipt))()
            case events.Settle():
                await self._settle([one.what for one in run if isinstance(one.what, events.Settle)])
            case events.Commit():
                publish = await self._store(what.sends, run[0].receipt)
                await self._settle(what.settles)
                publish()
            case events.Subscribe():
                await self._subscribe(what, run[0].receipt)
            case events.Unsubscribe():
                await self._unsubscribe(what, run[0].receipt)
        await self.write(b"".join(self.session.receipt(one.receipt) for one in run))
        if isinstance(what, events.Disconnect):
            raise _Ended

    async def _connect(self, asked: events.Connect) -> None:
        users = self._options.users
        if users:
            known = users.get(asked.login)
            # Compared also where there is nobody of that name: the time tells nothing.
            right = hmac.compare_digest((known or "").encode(), asked.passcode.encode("utf-8", "replace"))
            if known is None or not right:
                self._log.warning("%s was refused: wrong login or passcode for %.60r", self._peer, asked.login)
                raise ProtocolError("login or passcode is wrong")
        self._client_id = asked.headers.get("client-id", "")
        least = round(self._options.heart_beat * 1000)
        beats = parse(self.session.heart_beat)
        self._beats = HeartBeats(beats, (least, least), self._now())
        self._beats_known.set()
        await self.write(self.session.accept(f"{least},{least}", self.id))

    # ── putting ──────────────────────────────────────────────────────────────────────────────────

    async def _store(self, sends: Sequence[events.Send], receipt: str | None) -> Callable[[], None]:
        """Put what is for queues, and for topics that others subscribe to durably, all of it or nothing; what is
        returned publishes to those who listen in this process.
        """
        parcels, topics, published = [], list[tuple[str, Published]](), list[Parcel]()
        try:
            for one in sends:
                target, headers = parse_destination(one.destination), self._with_reply_to(one.headers)
                if target.kind == "topic":
                    published.append(to_parcel(target.name, headers, one.body, self._wall()))
                    topics.append((target.name, self._published(headers, published[-1])))
                else:
                    parcels.append(self._addressed(to_parcel(self._channel(target), headers, one.body, self._wall())))
            if published:
                known = await self._desk.topics(*{one.channel for one in published})
                # What a topic has copied it forgets: a duplicate would be told from others for a while only.
                parcels += [attrs.evolve(one, dedup=None) for one in published if one.channel in known]
            if parcels:
                await self._desk.put(*parcels)
        except DroprError as error:
            raise ProtocolError(f"nothing was stored: {error}", receipt) from None
        except ProtocolError as error:
            error.receipt = error.receipt or receipt
            raise

        def publish() -> None:
            for topic, message in topics:
                self._topics.publish(topic, message)

        return publish

    def _published(self, headers: Mapping[str, str], parcel: Parcel) -> Published:
        if parcel.delay:
            raise ProtocolError("AMQ_SCHEDULED_DELAY works on queues only")
        rank = rank_of(headers)
        return Published(new_id(), parcel.headers, parcel.content_type, parcel.body,
                         rank_of({"priority": "4"}) or 0 if rank is None else rank, self._wall())  # fmt: skip

    def _channel(self, target: Destination) -> str:
        return temporary_channel(self._desk.node, self.id, target.name) if target.kind == "temp-queue" else target.name

    @staticmethod
    def _addressed(parcel: Parcel) -> Parcel:
        """An answer goes to the node of the temporary queue, and not for ever: who asked may have left."""
        home = home_of(parcel.channel)
        if home is None:
            return parcel
        life = (parcel.delay or 0.0) + _ANSWER_LIFE if parcel.expires_in is None else parcel.expires_in
        return attrs.evolve(parcel, to=home, expires_in=life)

    def _with_reply_to(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """A temporary queue is known to its own connection by that name; to others by its channel."""
        text = headers.get("reply-to", "")
        if not text.startswith("/temp-queue/"):
            return headers
        return {**headers, "reply-to": f"/queue/{self._own_temporary(parse_destination(text))}"}

    def _own_temporary(self, target: Destination) -> str:
        channel = self._channel(target)
        self._temporary.add(channel)
        if len(self._temporary) > _MOST_TEMPORARY:
            raise ProtocolError(f"a connection may have {_MOST_TEMPORARY} temporary queues")
        return channel

    # ── settling ─────────────────────────────────────────────────────────────────────────────────

    async def _settle(self, settles: Sequence[events.Settle[Ticket]]) -> None:
        changes: list[Change] = []
        for one in settles:
            for ticket in one.tickets:
                if isinstance(ticket, Published):
                    continue
                if one.good:
                    changes.append(ticket.acked())
                    continue
                reason = one.headers.get("message") or one.headers.get("reason") or "NACK"
                if one.headers.get("requeue", "true").lower() == "false":
                    changes.append(ticket.buried(reason))
                else:
                    changes.append(ticket.released(None, reason=reason))
        if changes:
            await self._desk.settle(*changes)
        self._settled.set()
        for pump in self._pumps.values():
            pump.more()

    # ── subscriptions ────────────────────────────────────────────────────────────────────────────

    async def _subscribe(self, asked: events.Subscribe, receipt: str | None) -> None:
        try:
            wanted = compile_selector(asked.selector) if asked.selector.strip() else None
        except BadSelector as error:
            raise ProtocolError(str(error), receipt) from None
        target = parse_destination(asked.destination)
        pump: Pump
        if target.kind == "topic":
            if durable.wanted(asked.headers):
                name = self._durable_name(asked.headers, receipt)
                with _told(receipt):
                    channel = await self._desk.subscribe(target.name, name)
                pump = DurablePump(self, asked, self._desk, channel, self._wall, wanted)
            else:
                pump = TopicPump(self, asked, wanted, self._topics, target.name, self._options.max_behind)
        else:
            if target.name.startswith(TEMPORARY):
                raise ProtocolError("a temporary queue is read by the connection that made it", receipt)
            channel = self._own_temporary(target) if target.kind == "temp-queue" else target.name
            if wanted is None:
                pump = QueuePump(self, asked, self._desk, channel, self._wall)
            else:
                pump = SelectingPump(self, asked, self._desk, channel, self._wall, wanted)
        self._pumps[asked.id] = pump
        pump.start(self._group)
        if self._stopping.is_set():
            pump.stop()

    def _durable_name(self, headers: Mapping[str, str], receipt: str | None) -> str:
        with _told(receipt):
            return durable.subscription_name(headers, self._client_id)

    async def _unsubscribe(self, asked: events.Unsubscribe[Ticket], receipt: str | None) -> None:
        if asked.id in self._pumps:
            await self._pumps.pop(asked.id).close()
        over = asked.destination.startswith("/topic/") and durable.wanted(asked.headers)
        if over:  # for good, with all that it has not read
            changes = [one.acked() for one in asked.unsettled if not isinstance(one, Published) and not one.settled]
        else:
            changes = give_back(asked.unsettled)
        if changes:
            await self._desk.settle(*changes)
        if over:
            with _told(receipt):
                name = self._durable_name(asked.headers, receipt)
                await self._desk.unsubscribe(parse_destination(asked.destination).name, name)


@contextlib.contextmanager
def _told(receipt: str | None) -> Iterator[None]:
    """What is wrong with a frame is told with the receipt that it asked for."""
    try:
        yield
    except DroprError as error:
        raise ProtocolError(str(error), receipt) from None
    except ProtocolError as error:
        error.receipt = error.receipt or receipt
        raise


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def give_back(tickets: Sequence[Ticket]) -> list[Change]:
    """What was delivered and never settled goes back at once. The attempt counts for the oldest, on which the client
    was at work; to those behind it nothing has happened. One that ends so again and again gets the channel's backoff,
    and is buried in the end.
    """
    held = [one for one in tickets if not isinstance(one, Published) and not one.settled]
    changes = [one.released(counted=False) for one in held[1:]]
    for one in held[:1]:
        delay = 0.0 if one.attempt == 1 else None
        changes.append(one.released(delay, reason="the connection of its consumer ended before it was acknowledged"))
    return changes
