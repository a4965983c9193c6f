"""One connection: what its session wants, done at the desk; what the desk gives, delivered.

Owns the tasks of a connection and how they end. The protocol is `session.py`'s, the queues are the desk's; what is sent
is stored by `storing.py`, what is subscribed to is fetched by `subscribing.py`.
"""

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from dropr_core.contracts.gateway import Change, Desk
from dropr_core.errors import DroprError
from dropr_gateway_stomp import events
from dropr_gateway_stomp.frames import Limits, ProtocolError
from dropr_gateway_stomp.heartbeats import HeartBeats, parse
from dropr_gateway_stomp.options import Options
from dropr_gateway_stomp.session import Session
from dropr_gateway_stomp.storing import Storing
from dropr_gateway_stomp.subscribing import Subscribing, give_back
from dropr_gateway_stomp.topics import Published, Ticket, Topics
from dropr_gateway_stomp.websocket import Bytes

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
        self._line, self._desk, self._options = line, desk, options
        self._log, self._peer, self._stopping = log, peer, stopping
        self.id = secrets.token_hex(8)
        self.session: Session[Ticket] = Session(
            Limits(body=options.max_body), prefetch=options.prefetch, transaction_bytes=options.max_transaction
        )
        self._now = asyncio.get_running_loop().time
        self._beats = HeartBeats((0, 0), (0, 0), self._now())
        self._beats_known = asyncio.Event()
        self._lock, self._settled = asyncio.Lock(), asyncio.Event()
        self._storing = Storing(desk, topics, self.id, wall)
        self._subscribing = Subscribing(self, desk, self._storing, topics, wall, options.max_behind)
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
            for channel in self._storing.temporary:
                await self._desk.purge(channel)
        except DroprError as error:
            self._log.warning("%s left, and what it had could not be given back at once: %s", self._peer, error)

    async def _stop(self) -> NoReturn:
        await self._stopping.wait()
        self._subscribing.stop()
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
                (await self._storing.store(sends, run[-1].receipt))()
            case events.Settle():
                await self._settle([one.what for one in run if isinstance(one.what, events.Settle)])
            case events.Commit():
                publish = await self._storing.store(what.sends, run[0].receipt)
                await self._settle(what.settles)
                publish()
            case events.Subscribe():
                await self._subscribing.subscribe(what, run[0].receipt, self._group, stopping=self._stopping.is_set())
            case events.Unsubscribe():
                await self._subscribing.unsubscribe(what, run[0].receipt)
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
        self._subscribing.client_id = asked.headers.get("client-id", "")
        least = round(self._options.heart_beat * 1000)
        beats = parse(self.session.heart_beat)
        self._beats = HeartBeats(beats, (least, least), self._now())
        self._beats_known.set()
        await self.write(self.session.accept(f"{least},{least}", self.id))

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
        self._subscribing.more()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
