"""One memcache connection at the desk of a node: what each request does with its queues.

Owns the reads that a connection has open (Kestrel), and putting together what came together: neighbouring sets are one
commit, neighbouring gets of the same queue are one claim. Must not know how a request was worded.
"""

import contextlib
import hmac
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeGuard

from dropr_core.contracts.gateway import Desk, Held, Line, Parcel, Placed
from dropr_core.errors import DroprError, UsageError
from dropr_core.gateway_kit.conversation import Conversation
from dropr_gateway_memcache import figures
from dropr_gateway_memcache.reader import Reader
from dropr_gateway_memcache.requests import (
    Answers,
    Drop,
    Item,
    Login,
    Put,
    Read,
    Request,
    Say,
    Stats,
    Take,
    expires_in,
)

FLAGS = "x-memcache-flags"
"""The header in which a message keeps the flags with which it was set, unless they are 0."""
_TOGETHER = 256
"""Most neighbouring requests that are done as one."""


class Session(Conversation[Request]):
    """From the first byte to the last."""

    def __init__(self, line: Line, desk: Desk, reader: Reader, *, users: Mapping[str, str], open_reads: int) -> None:
        super().__init__(line, reader.feed)
        self._desk, self._reader = desk, reader
        self._users, self._most_open = users, open_reads
        self._open: dict[str, list[Held]] = {}
        self._each = False  # what comes next was refused together, and may be accepted one by one

    async def run(self) -> None:
        """Until either side ends it. Open reads go back to their queues with the desk."""
        if not self._reader.locked or await self._let_in():
            await self.converse()

    async def _let_in(self) -> bool:
        """Answer until a login is right; False when the connection is over."""
        while data := await self._line.read():
            requests = iter(self._reader.feed(data))
            for request in requests:  # a login is judged before what follows it is read
                self._pending.append(request)
                await self.carry_out()
                if not self._reader.locked:
                    self._pending.extend(requests)
                    return True
                if self._ended:
                    break
            await self.flush()
            if self._ended:
                break
        return False

    @property
    def holds(self) -> bool:
        """See `Conversation`."""
        return bool(self._open)

    def _run_of_puts(self) -> list[Put]:
        pending = self._pending
        run: list[Put] = []
        while len(run) < _TOGETHER and pending and isinstance(first := pending[0], Put):
            run.append(first)
            pending.popleft()
        return run

    def _run_of_takes(self, take: Take) -> list[Take]:
        """The next one, and those behind it that want the same."""
        pending, run = self._pending, [take]
        pending.popleft()
        while len(run) < _TOGETHER and pending:
            other = pending[0]
            if not _alike(other, take):
                break
            run.append(other)
            pending.popleft()
        return run

    def _by_task(self, requests: Sequence[Request]) -> None:
        """They are to be done again, by the task."""
        self._each = True
        self._pending.extendleft(reversed(requests))
        self.finish([])

    async def carry_out(self) -> None:
        """See `Conversation`."""
        request, self._each = self._pending[0], False
        if isinstance(request, Put):
            await self.say(await self._put(self._run_of_puts()))
        elif isinstance(request, Take):
            takes = self._run_of_takes(request)
            await self.say(await (self._take(request) if len(takes) == 1 else self._take_together(takes)))
        else:
            self._pending.popleft()
            await self.say(await self._other(request))
            self._ended |= isinstance(request, Say) and request.hang_up

    # ── without the task ─────────────────────────────────────────────────────────────────────────

    def begin(self) -> bool:
        """See `Conversation`: puts, and gets of what is there, are short."""
        request = self._pending[0]
        if self._each:
            return False
        if isinstance(request, Put):
            return self._put_soon(self._run_of_puts())
        if not isinstance(request, Take) or not _alike(request, request) or self._open.get(request.reads[0].queue):
            return False
        self._take_soon(self._run_of_takes(request))
        return True

    def _put_soon(self, puts: Sequence[Put]) -> bool:
        wanted = _living(puts)
        parcels = [_parcel(put, expires) for put, expires in wanted if expires is None or expires > 0]

        def stored(placed: Any) -> None:
            if not isinstance(placed, BaseException):
                self.finish([_stored(wanted, placed)])
            elif len(puts) == 1 and isinstance(placed, DroprError):
                self.finish([_refused(puts[0].answers, placed)])
            else:
                self._by_task(puts)

        begun = False
        with contextlib.suppress(DroprError):
            begun = bool(parcels) and self._desk.put_soon(parcels, stored)
        if not begun:
            self._pending.extendleft(reversed(puts))
        return begun

    def _take_soon(self, takes: Sequence[Take]) -> None:
        def taken(got: Any) -> None:
            if isinstance(got, DroprError):
                self.finish([_not_taken(takes, got)])
            elif isinstance(got, BaseException):
                self._by_task(takes)
            elif got:
                self._desk.settle_soon([held.acked() for held in got], partial(self._taken, takes, got))
            else:
                self.finish([_given(takes, [])])

        self._desk.reserve_soon([takes[0].reads[0].queue], len(takes), taken)

    def _taken(self, takes: Sequence[Take], got: Sequence[Held], done: Any) -> None:
        if isinstance(done, DroprError):
            self.finish([_not_taken(takes, done)])
        elif isinstance(done, BaseException):
            self._by_task(takes)
        else:
            self.finish([_given(takes, got)])

    # ── by the task ──────────────────────────────────────────────────────────────────────────────

    async def _other(self, request: Request) -> bytes:
        if isinstance(request, Say):
            return request.answer
        if isinstance(request, Login):
            return self._login(request)
        try:
            if isinstance(request, Drop):
                return request.answers.deleted(found=await self._desk.purge(request.queue) > 0)
            if isinstance(request, Stats):
                return await figures.answer(self._desk, request)
        except DroprError as error:
            return _refused(request.answers, error)
        raise AssertionError(f"{request} belongs elsewhere")

    def _login(self, request: Login) -> bytes:
        known = self._users.get(request.user, "")
        right = hmac.compare_digest(known.encode(), request.password.encode("utf-8", "surrogateescape"))
        if right and known:
            self._reader.locked = False
            return request.answers.stored(0)
        return request.answers.refused("client", "authentication failure")

    async def _put(self, puts: Sequence[Put]) -> bytes:
        wanted = _living(puts)
        parcels = [_parcel(put, expires) for put, expires in wanted if expires is None or expires > 0]
        try:
            placed = await self._desk.put(*parcels) if parcels else []
        except DroprError as error:
            if len(puts) == 1:
                return _refused(puts[0].answers, error)
            # Nothing was stored; one by one each gets the answer that is its own.
            return b"".join([await self._put([put]) for put in puts])
        return _stored(wanted, placed)

    async def _take(self, take: Take) -> bytes:
        """One message from each queue. What was taken is acknowledged before it is sent: at most once."""
        answer = b""
        for read in take.reads:
            try:
                item = await self._read_one(read)
            except DroprError as error:
                return answer + _refused(take.answers, error)
            answer += take.answers.miss(read.key) if item is None else take.answers.value(read.key, item)
        return answer + take.answers.end()

    async def _take_together(self, takes: Sequence[Take]) -> bytes:
        """Many gets of one queue, sent without waiting for answers: one claim, one commit."""
        read = takes[0].reads[0]
        try:
            self._may_take(read)
            got = await self._desk.reserve([read.queue], limit=len(takes))
            await self._desk.settle(*[held.acked() for held in got])
        except DroprError as error:
            return _not_taken(takes, error)
        return _given(takes, got)

    def _may_take(self, read: Read) -> None:
        opened = len(self._open.get(read.queue, ()))
        if opened and not read.open:
            raise UsageError(
                f"a read of {read.queue} is open on this connection: end it with get {read.queue}/close or /abort first"
            )
        if opened >= self._most_open:
            raise UsageError(
                f"{opened} reads of {read.queue} are open on this connection, and no more may be (open_reads)"
            )

    async def _read_one(self, read: Read) -> Item | None:
        if read.peek:
            seen = await self._desk.peek(read.queue)
            return None if seen is None else Item(seen.body, _flags(seen.headers), seen.number)
        if read.abort:
            if held := self._first_open(read.queue):
                await held.release(reason="aborted by its memcache client")
            return None
        if read.close:
            if held := self._first_open(read.queue):
                await held.ack()
            if not read.open:
                return None
        self._may_take(read)
        got = await self._reserve(read)
        if not got:
            return None
        held = got[0]
        if read.open:
            self._open.setdefault(read.queue, []).append(held)
        else:
            await held.ack()
        return _item(held)

    def _first_open(self, queue: str) -> Held | None:
        held = self._open.get(queue)
        if not held:
            return None
        first = held.pop(0)
        if not held:
            del self._open[queue]
        return first

    async def _reserve(self, read: Read) -> Sequence[Held]:
        """Wait for a message as long as somebody is there to get it."""
        if not read.wait:
            return await self._desk.reserve([read.queue])
        await self.flush()
        got = await self.meanwhile_reading(self._desk.reserve([read.queue], wait=read.wait))
        if got is None:
            raise ConnectionResetError("the client has gone while its get waited")
        return got


def _alike(other: Request, first: Take) -> TypeGuard[Take]:
    """Whether both take from the same queue, one message each, at once and for good."""
    return (
        isinstance(other, Take)
        and len(first.reads) == len(other.reads) == 1
        and first.reads[0].plain
        and first.reads == other.reads
    )


def _parcel(put: Put, expires: float | None) -> Parcel:
    headers = {FLAGS: str(put.flags)} if put.flags else {}
    return Parcel(channel=put.queue, body=put.body, headers=headers, expires_in=expires)


def _living(puts: Sequence[Put]) -> list[tuple[Put, float | None]]:
    """Each with the seconds that its message lives."""
    now = time.time()
    return [(put, expires_in(put.exptime, now)) for put in puts]


def _stored(wanted: Sequence[tuple[Put, float | None]], placed: Sequence[Placed]) -> bytes:
    numbers = iter([one.number for one in placed])
    # What has expired already is kept by memcached as long as it takes to look: not at all.
    return b"".join(
        [put.answers.stored(next(numbers) if expires is None or expires > 0 else 0) for put, expires in wanted]
    )


def _given(takes: Sequence[Take], got: Sequence[Held]) -> bytes:
    """Answers to gets of one queue: first those that got something."""
    out = [
        take.answers.value(take.reads[0].key, _item(held)) + take.answers.end()
        for take, held in zip(takes, got, strict=False)
    ]
    out += [take.answers.miss(take.reads[0].key) + take.answers.end() for take in takes[len(got) :]]
    return b"".join(out)


def _not_taken(takes: Sequence[Take], error: DroprError) -> bytes:
    return b"".join([_refused(take.answers, error) for take in takes])


def _flags(headers: Mapping[str, str]) -> int:
    found = headers.get(FLAGS, "0")
    return int(found) if found.isdigit() and len(found) <= 10 else 0


def _item(held: Held) -> Item:
    return Item(held.body, _flags(held.headers), held.number)


def _refused(answers: Answers, error: DroprError) -> bytes:
    """What cannot work as it stands is the client's to mend; the rest may pass."""
    return answers.refused("client" if isinstance(error, UsageError) else "server", str(error))


__all__ = ["FLAGS", "Session"]
