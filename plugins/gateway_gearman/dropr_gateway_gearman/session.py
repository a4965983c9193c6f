"""One connection: what it says is read, given to its two halves, and answered in order.

Owns the loop and which packet goes where. A connection may be a client, a worker and an admin's at once.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from dropr_core.contracts.gateway import Desk, Line
from dropr_core.errors import BadName
from dropr_core.gateway_kit.conversation import Conversation
from dropr_gateway_gearman.administering import Admin
from dropr_gateway_gearman.client import Client
from dropr_gateway_gearman.hall import Hall
from dropr_gateway_gearman.outgoing import Outgoing
from dropr_gateway_gearman.packets import Event, Kind, Packet, Parser, TextLine, Unusable, encode
from dropr_gateway_gearman.requests import SUBMITS
from dropr_gateway_gearman.worker import Worker

GRABS = frozenset({Kind.GRAB_JOB, Kind.GRAB_JOB_UNIQ, Kind.GRAB_JOB_ALL})
MAX_ID = 128
_DRAINS = 0.05
"""Seconds between two looks at whether a draining connection has ended what it had begun."""


class Session(Conversation[Event]):
    """One connection from its beginning to its end."""

    def __init__(self, hall: Hall, line: Line, desk: Desk) -> None:
        super().__init__(line, Parser(hall.options.max_job).receive)
        self.number = hall.number()
        self.address = line.peer.rpartition(":")[0] or line.peer
        self._hall, self._desk = hall, desk
        self._outgoing = Outgoing(line, 2 * hall.options.max_job + (1 << 20))
        self._client = Client(hall, desk, self._outgoing)
        self._worker = Worker(hall, desk, self._outgoing)
        self._admin = Admin(hall, desk)
        self._each = False  # jobs that come next were refused together, and may be taken one by one

    @property
    def name(self) -> bytes:
        """See `Connected`."""
        return self._worker.name

    def functions(self) -> list[bytes]:
        """See `Connected`."""
        return self._worker.functions()

    def channels(self) -> list[str]:
        """See `Connected`."""
        return self._worker.channels()

    async def run(self) -> None:
        """Until the other side ends, or this one drains. Raises what the store raised."""
        loop = asyncio.get_running_loop()
        reading, draining = loop.create_task(self.converse()), loop.create_task(self._drain())
        self._hall.connected.append(self)
        ends = (reading, draining, self._outgoing.broken, self._worker.broken)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._line.stopping.is_set() and reading.done() and not reading.exception():
                # The host has ended the reading of a client that says nothing more; its results are still to come.
                await asyncio.wait(ends[1:], return_when=asyncio.FIRST_COMPLETED)
        finally:
            drained = draining.done()
            self._hall.connected.remove(self)
            for task in (reading, draining):
                task.cancel()
            await asyncio.wait((reading, draining))
            self._client.close()
            try:
                await self._worker.close(counted=not drained)
            finally:
                await self._outgoing.close()
        for one in ends[:2]:
            if not one.cancelled() and (error := one.exception()) is not None:
                raise error
        if self._worker.broken.done():
            self._worker.broken.result()

    async def _drain(self) -> None:
        await self._line.stopping.wait()
        while self._worker.holding or self._client.expects:  # noqa: ASYNC110 (bounded: the host cuts off after its time)
            await asyncio.sleep(_DRAINS)
        await self._outgoing.flush()

    # ── see `Conversation` ───────────────────────────────────────────────────────────────────────

    @property
    def holds(self) -> bool:
        """Who waits for results or has jobs is known to `_drain`; the host ends the reading."""
        return True

    @property
    def unsent(self) -> bool:
        """See `Conversation`. What others say to this client goes the same way as its answers."""
        return self._outgoing.waits

    async def flush(self) -> None:
        """See `Conversation`."""
        await self._outgoing.flush()

    async def carry_out(self) -> None:
        """See `Conversation`."""
        self._each = False
        if submits := self._submits():
            await self._client.submit(submits)
        elif not await self._handle(self._pending.popleft()):
            self._ended = True

    def begin(self) -> bool:
        """See `Conversation`: background jobs, grabbing and completing are short."""
        pending, told = self._pending, False
        while pending and isinstance(event := pending[0], Packet):
            if event.kind is Kind.WORK_COMPLETE:
                pending.popleft()
                self._worker.complete(*event.arguments)
                told = True
            elif self._begin(event):
                return True
            else:
                break
        if told:
            self._loop.call_soon(self.finish, ())
        return told

    def _begin(self, packet: Packet) -> bool:
        if packet.kind in GRABS and self._worker.grab_soon(packet.kind, partial(self.finish, ())):
            self._pending.popleft()
            return True
        if self._each or not (submits := self._submits()):
            return False
        begun = self._client.submit_soon(submits, partial(self._submitted, submits))
        if not begun:
            self._pending.extendleft(reversed(submits))
        return begun

    def _submitted(self, submits: Sequence[Packet], answered: bool) -> None:
        if not answered:
            self._each = True
            self._pending.extendleft(reversed(submits))
        self.finish(())

    def _submits(self) -> list[Packet]:
        """The jobs that come next."""
        pending = self._pending
        run: list[Packet] = []
        while pending and isinstance(event := pending[0], Packet) and event.kind in SUBMITS:
            run.append(event)
            pending.popleft()
        return run

    # ── one by one ───────────────────────────────────────────────────────────────────────────────

    async def _handle(self, event: Event) -> bool:
        """False: the connection ends."""
        if isinstance(event, Unusable):
            self._outgoing.push(encode(Kind.ERROR, "INVALID_PACKET", event.reason))
            return False
        if isinstance(event, TextLine):
            self._outgoing.push(await self._admin.answer(event.words))
            return True
        try:
            await self._packet(event.kind, event.arguments)
        except BadName as error:
            self._outgoing.push(encode(Kind.ERROR, "INVALID_ARGUMENTS", str(error)))
        return True

    async def _packet(self, kind: Kind, given: tuple[bytes, ...]) -> None:
        worker, client, push = self._worker, self._client, self._outgoing.push
        match kind:
            case Kind.GRAB_JOB | Kind.GRAB_JOB_UNIQ | Kind.GRAB_JOB_ALL:
                await worker.grab(kind)
            case Kind.WORK_COMPLETE:
                worker.complete(given[0], given[1])
            case Kind.WORK_DATA | Kind.WORK_WARNING:
                worker.say(kind, given[0], given[1])
            case Kind.WORK_STATUS:
                worker.status(*given)
            case Kind.WORK_FAIL:
                worker.fail(given[0])
            case Kind.WORK_EXCEPTION:
                worker.fail(given[0], given[1])
            case Kind.PRE_SLEEP:
                await worker.sleep()
            case Kind.CAN_DO:
                await worker.can_do(given[0])
            case Kind.CAN_DO_TIMEOUT:
                await worker.can_do(given[0], _seconds(given[1]))
            case Kind.CANT_DO:
                await worker.cant_do(given[0])
            case Kind.RESET_ABILITIES:
                await worker.reset()
            case Kind.SET_CLIENT_ID:
                worker.name = given[0].replace(b"\n", b" ")[:MAX_ID]
            case Kind.ECHO_REQ:
                push(encode(Kind.ECHO_RES, given[0]))
            case Kind.GET_STATUS:
                await client.status(given[0])
            case Kind.GET_STATUS_UNIQUE:
                await client.status_unique(given[0])
            case Kind.OPTION_REQ if given[0].lower() == b"exceptions":
                client.exceptions = True
                push(encode(Kind.OPTION_RES, given[0]))
            case Kind.OPTION_REQ:
                push(encode(Kind.ERROR, "UNKNOWN_OPTION", "Server does not recognize given option"))
            case _:
                push(encode(Kind.ERROR, "INVALID_COMMAND", "Command not expected"))


def _seconds(word: bytes) -> float | None:
    """A time of 0 is none."""
    return float(int(word)) or None if word.isdigit() and len(word) < 10 else None


__all__ = ["Session"]
