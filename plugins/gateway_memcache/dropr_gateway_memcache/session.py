"""One memcache connection at the desk of a node: what each request does with its queues.

Owns the reads that a connection has open (Kestrel), and putting together what came together: neighbouring sets are one
commit, neighbouring gets of the same queue are one claim. Must not know how a request was worded.
"""

import asyncio
import hmac
import time
from collections.abc import Mapping, Sequence

from dropr_core.contracts.gateway import Desk, Held, Line, Parcel
from dropr_core.errors import DroprError, UsageError
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


class Session:
    """From the first byte to the last."""

    def __init__(self, line: Line, desk: Desk, reader: Reader, *, users: Mapping[str, str], open_reads: int) -> None:
        self._line, self._desk, self._reader = line, desk, reader
        self._users, self._most_open = users, open_reads
        self._open: dict[str, list[Held]] = {}
        self._ahead = b""
        """Read while a get waited."""

    async def run(self) -> None:
        """Until either side ends it. Open reads go back to their queues with the desk."""
        while data := await self._next():
            requests = self._reader.feed(data)
            waiting = list(requests) if not self._reader.locked else None
            if waiting is None:  # a login is judged before what follows it is read
                for request in requests:
                    if not await self._answer([request]):
                        return
            elif not await self._answer(waiting):
                return

    async def _next(self) -> bytes:
        """What arrives next; nothing when the connection is over. (When the gateway drains, the host ends it.)"""
        ahead, self._ahead = self._ahead, b""
        return ahead or await self._line.read()

    async def _answer(self, requests: Sequence[Request]) -> bool:
        """Do them in their order; False after one that hangs up."""
        at = 0
        while at < len(requests):
            request = requests[at]
            same = 1
            if isinstance(request, Put):
                while same < _TOGETHER and at + same < len(requests) and isinstance(requests[at + same], Put):
                    same += 1
                answer = await self._put([one for one in requests[at : at + same] if isinstance(one, Put)])
            elif isinstance(request, Take):
                while same < _TOGETHER and at + same < len(requests) and _alike(request, requests[at + same]):
                    same += 1
                takes = [one for one in requests[at : at + same] if isinstance(one, Take)]
                answer = await (self._take(request) if same == 1 else self._take_together(takes))
            else:
                answer = await self._other(request)
            if answer:
                await self._line.write(answer)
            if isinstance(request, Say) and request.hang_up:
                return False
            at += same
        return True

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
        now = time.time()
        wanted = [(put, expires_in(put.exptime, now)) for put in puts]
        parcels = [_parcel(put, expires) for put, expires in wanted if expires is None or expires > 0]
        try:
            numbers = iter([placed.number for placed in await self._desk.put(*parcels)] if parcels else [])
        except DroprError as error:
            if len(puts) == 1:
                return _refused(puts[0].answers, error)
            # Nothing was stored; one by one each gets the answer that is its own.
            return b"".join([await self._put([put]) for put in puts])
        # What has expired already is kept by memcached as long as it takes to look: not at all.
        return b"".join(
            put.answers.stored(next(numbers) if expires is None or expires > 0 else 0) for put, expires in wanted
        )

    async def _take(self, take: Take) -> bytes:
        """One message from each queue. What was taken is acknowledged before it is sent: at most once."""
        answer = b""
        for read in take.reads:
            try:
                item = await self._read(read)
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
            return b"".join(_refused(take.answers, error) for take in takes)
        out = [take.answers.value(read.key, _item(held)) for take, held in zip(takes, got, strict=False)]
        out = [value + take.answers.end() for take, value in zip(takes, out, strict=False)]
        rest = [take.answers.miss(read.key) + take.answers.end() for take in takes[len(got) :]]
        return b"".join([*out, *rest])

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

    async def _read(self, read: Read) -> Item | None:
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
        taking = asyncio.ensure_future(self._desk.reserve([read.queue], wait=read.wait))
        try:
            while not taking.done() and len(self._ahead) < self._reader.most_ahead:
                reading = asyncio.ensure_future(self._line.read())
                try:
                    await asyncio.wait({taking, reading}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not reading.done():
                        reading.cancel()
                if not reading.done():
                    await asyncio.wait({reading})
                if reading.cancelled():
                    continue
                data = reading.result()
                if not data:
                    raise ConnectionResetError("the client has gone while its get waited")
                self._ahead += data
            return await taking
        finally:
            if not taking.done():
                taking.cancel()
                await asyncio.wait({taking})


def _alike(first: Take, other: Request) -> bool:
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


def _flags(headers: Mapping[str, str]) -> int:
    found = headers.get(FLAGS, "0")
    return int(found) if found.isdigit() and len(found) <= 10 else 0


def _item(held: Held) -> Item:
    return Item(held.body, _flags(held.headers), held.number)


def _refused(answers: Answers, error: DroprError) -> bytes:
    """What cannot work as it stands is the client's to mend; the rest may pass."""
    return answers.refused("client" if isinstance(error, UsageError) else "server", str(error))


__all__ = ["FLAGS", "Session"]
