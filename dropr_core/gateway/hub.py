"""What all connections of a gateway process share.

Owns the workers at the store, the leases in hand and their deadlines, and who waits. Lives in the event loop; desks are
made of it. Must not know sockets or dialects.
"""

import asyncio
import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, BinaryIO, cast

from dropr_core.api.runtime import Runtime
from dropr_core.api.sender import Sender
from dropr_core.contracts.desk import Change
from dropr_core.contracts.parcels import Parcel, Placed
from dropr_core.contracts.storage import Ack, Bury, Claim, Release, Settlement
from dropr_core.errors import Closed, DroprError, StoreError
from dropr_core.gateway.claiming import Claimer, Wanted
from dropr_core.gateway.held import HeldMessage
from dropr_core.gateway.looking import Looking, Meddling
from dropr_core.gateway.placing import Local, Outgoing, Placer, outgoing_number
from dropr_core.gateway.receipts import Receipts
from dropr_core.gateway.topics import Topics
from dropr_core.gateway.turns import QUICK_ORDERS, InboxTurns, Order, Puts, Settles, attempt
from dropr_core.gateway.uploads import SpooledUpload, spooled
from dropr_core.gateway.waiting import Waiting
from dropr_core.gateway.writer import StoreWorker, call_each, settle_future
from dropr_core.model import envelope
from dropr_core.model.names import format_id, is_of_key, keep_of
from dropr_core.system.space import check_free

KEYS_REMEMBERED = 600.0
"""Seconds for which a message put with a dedup text is known after its end: a second put is a duplicate then."""

TRY_AGAIN = 1.0
"""Seconds after which leases are ended anew that the store refused to end."""


class Hub:
    """Of one process."""

    def __init__(
        self, runtime: Runtime, loop: asyncio.AbstractEventLoop, log: logging.Logger, max_body: int,
        copy: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """``copy``: sees to it that what is published is copied from now on, if there are topics."""
        self.runtime, self.loop, self.log = runtime, loop, log
        self.stopping = asyncio.Event()
        self.placer = Placer(runtime)
        self.looking = Looking(runtime)
        self.claimer = Claimer(runtime, max_body, log)
        self.meddling = Meddling(runtime, lambda: self.claimer.consumer)
        self._sender = Sender(runtime)
        self.held: dict[int, HeldMessage] = {}
        turns = InboxTurns(runtime, self.claimer, self.held.__len__)
        self._inbox_work: StoreWorker[Order] = StoreWorker(
            "dropr-gateway-inbox", loop, turns.turn, quick=lambda order: isinstance(order, QUICK_ORDERS),
            last=lambda order: isinstance(order, Wanted),
        )  # fmt: skip
        self._outbox_work: StoreWorker[list[Outgoing]] = StoreWorker(
            "dropr-gateway-outbox", loop, self._send, quick=lambda _: True
        )
        self._reader: StoreWorker[Callable[[], Any]] = StoreWorker("dropr-gateway-reader", loop, call_each)
        self.waiting: Waiting[HeldMessage] = Waiting(
            loop, self._inbox_work.submit, self._hand_out, self.give_back, self.undo
        )
        self.topics = Topics(runtime, self._sender, copy)
        self.receipts = Receipts(runtime, loop, self.read)
        self._background: set[asyncio.Task[Any]] = set()

    def now(self) -> float:
        """Node time."""
        return self.runtime.clock.now()

    def open_body(self, claim: Claim) -> BinaryIO:
        """The body of a claim as a file."""
        reference = envelope.reference_of(claim.envelope)
        if reference is None:
            return io.BytesIO(envelope.body_of(claim.envelope))
        return self.runtime.bodies.open_received(claim.sender, claim.id, reference)

    def upload(self) -> AbstractAsyncContextManager[SpooledUpload]:
        """A large body on its way in."""
        runtime = self.runtime
        place = runtime.config.data / "uploads"
        limits = runtime.config.limits
        return spooled(place, limits.max_body, lambda more: check_free(place, more, limits.min_free))

    async def read(self, call: Callable[[], Any]) -> Any:
        """Something that only reads."""
        return await self._reader.do(call)

    async def change(self, call: Callable[[], Any]) -> Any:
        """Something at the inbox, by itself among the turns there."""
        return await self._inbox_work.do(call)

    # ── putting ──────────────────────────────────────────────────────────────────────────────────

    async def put(self, parcels: Sequence[Parcel], who: object = None) -> list[Placed]:
        """Store all or none of the parcels for one half of the store; the inbox comes first where both are meant."""
        placer = self.placer
        for parcel in parcels:
            if isinstance(parcel.large, SpooledUpload):
                await parcel.large.flush()
        if any(map(placer.is_large, parcels)):
            composed = await asyncio.to_thread(lambda: [placer.compose(parcel) for parcel in parcels])
        else:
            composed = [placer.compose(parcel) for parcel in parcels]
        local = [one for one in composed if isinstance(one, Local)]
        outgoing = [one for one in composed if isinstance(one, Outgoing)]
        placed: dict[int, Placed] = {}
        if local:
            placed.update(zip(map(id, local), await self._told(self._put_here, local, who), strict=True))
        if outgoing:
            placed.update(zip(map(id, outgoing), await self._told(self._put_away, outgoing, who), strict=True))
        return [placed[id(one)] for one in composed]

    def put_soon(self, parcels: Sequence[Parcel], done: Callable[[Any], None], who: object = None) -> bool:
        """`put`, told by a call. False: some are large, or both halves of the store are meant."""
        placer = self.placer
        if any(map(placer.is_large, parcels)):
            return False
        composed = [placer.compose(parcel) for parcel in parcels]
        here = [one for one in composed if type(one) is Local]
        if len(here) == len(composed):
            self._put_here(here, done, who)
        elif not here:
            self._put_away([one for one in composed if type(one) is Outgoing], done, who)
        else:
            return False
        return True

    async def _told(self, begin: Callable[..., None], given: Any, *more: Any) -> Any:
        """The result of something that tells it by a call."""
        future = self.loop.create_future()
        begin(given, lambda result: settle_future(future, result), *more)
        return await future

    def _put_here(self, local: list[Local], done: Callable[[Any], None], who: object) -> None:
        def stored(numbers: Any) -> None:
            if isinstance(numbers, BaseException):
                done(numbers)
                return
            for channel in {one.channel for one in local}:
                self.waiting.news(channel)
            done([
                Placed(format_id(one.job.id), number, duplicate)
                for one, (number, duplicate) in zip(local, numbers, strict=True)
            ])  # fmt: skip

        self._inbox_work.submit(Puts(local), stored, who)

    def _put_away(self, outgoing: list[Outgoing], done: Callable[[Any], None], who: object) -> None:
        def stored(results: Any) -> None:
            if isinstance(results, BaseException):
                done(results)
                return
            done([
                Placed(format_id(one.id), outgoing_number(one.id), one.existed, local=False) for one in results
            ])  # fmt: skip

        self._outbox_work.submit(outgoing, stored, who)

    def _send(self, orders: list[list[Outgoing]]) -> list[Any]:
        """A turn at the outbox: one commit for all, or each by itself if that fails."""

        def store(messages: list[Outgoing]) -> Sequence[Any]:
            written = [one.written for one in messages if one.written is not None]
            return self._sender.store([one.message for one in messages], 0.0, written)

        if len(orders) > 1:
            with contextlib.suppress(DroprError):
                placed = iter(store([one for order in orders for one in order]))
                return [[next(placed) for _ in order] for order in orders]
        return [attempt(partial(store, order)) for order in orders]

    def comes(self, who: object) -> None:
        """A desk asks for messages."""
        self._inbox_work.comes(who)

    # ── leases ───────────────────────────────────────────────────────────────────────────────────

    def _hand_out(self, owner: Any, claim: Claim, body: bytes | None) -> HeldMessage:
        held = HeldMessage(self, owner, claim, body)
        self.held[claim.number] = held
        owner.takes(held)
        return held

    async def claim_for(self, owner: Any, claim: Callable[[], Any]) -> HeldMessage | None:
        """What a call at the inbox claims, in the hands of a desk. If whoever asked has gone meanwhile, it
        goes back.
        """
        future: asyncio.Future[HeldMessage | None] = self.loop.create_future()

        def done(ready: Any) -> None:
            if ready is None or isinstance(ready, BaseException):
                settle_future(future, ready)
            elif future.done() or owner.closed:
                self.give_back([ready[0]])
                settle_future(future, Closed("the connection of this desk has ended"))
            else:
                future.set_result(self._hand_out(owner, *ready))

        self._inbox_work.submit(claim, done)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None and (held := future.result()) is not None:
                self.undo([held])
            raise

    def _drop(self, held: HeldMessage) -> None:
        if self.held.get(held.number) is held:
            del self.held[held.number]
        cast("Any", held.holder).lost(held)

    async def settle(self, changes: Sequence[Change]) -> list[bool]:
        """Apply changes in one commit, shared with others'; False where a lease had ended."""
        done: list[bool] = await self._told(self.settle_soon, changes)
        return done

    def settle_soon(self, changes: Sequence[Change], done: Callable[[Any], None]) -> None:
        """`settle`, told by a call."""
        mine: list[tuple[int, HeldMessage, Settlement]] = []
        for at, change in enumerate(changes):
            held = cast("HeldMessage", change.held)
            if not held.settled:
                held.settled = True
                held.stop_clock()
                mine.append((at, held, self._settlement(held.claim, change)))
        results = [False] * len(changes)
        if not mine:
            self.loop.call_soon(done, results)
            return

        def settled(good: Any) -> None:
            if isinstance(good, BaseException):
                for _, held, _ in mine:
                    held.settled = False
                    held.begin(held.hold)
                done(good)
            else:
                self._settled(mine, good, results)
                done(results)

        self._inbox_work.submit(Settles([one for _, _, one in mine]), settled, mine[0][1].holder)

    def _settled(
        self, mine: list[tuple[int, HeldMessage, Settlement]], done: Sequence[bool], results: list[bool]
    ) -> None:
        channels = set[str]()
        for (at, held, one), good in zip(mine, done, strict=True):
            results[at] = good
            self._drop(held)
            if isinstance(one, Release):
                channels.add(held.channel)
        for channel in channels:
            self.waiting.news(channel)

    def _settlement(self, claim: Claim, change: Change) -> Settlement:
        rules = self.runtime.rules(claim.channel)
        if change.kind == "ack":
            keep = rules.retention
            if is_of_key(claim.id):  # whoever put it may not have heard that it is stored, and put it again
                keep = keep_of(claim.id, max(keep, KEYS_REMEMBERED))
            return Ack(claim, change.result, change.result_type, keep, change.reason)
        if change.kind == "bury":
            return Bury(claim, change.reason, change.rank)
        delay = change.delay
        if delay is None:
            if claim.attempt >= rules.attempts:
                return Bury(claim, change.reason or f"{claim.attempt} attempts")
            delay = rules.backoff.fixed(claim.attempt)
        return Release(claim, delay, change.reason, change.counted, change.rank)

    def overdue(self, held: HeldMessage) -> None:
        """The time of a lease is over."""
        self.spawn(self.settle((held.released(reason=f"attempt {held.attempt}: its time was over"),)))

    def undo(self, messages: list[HeldMessage]) -> None:
        """They were handed out to somebody who never saw them."""
        self.spawn(self.insist([held.released(counted=False) for held in messages]))

    def give_back(self, claims: list[Claim]) -> None:
        """Claims that nobody wants any more."""
        changes: list[Settlement] = [Release(claim, counted=False) for claim in claims]
        channels = {claim.channel for claim in claims}

        def done(result: Any) -> None:
            if isinstance(result, StoreError) and not self.stopping.is_set():
                self.log.debug("%d messages cannot be given back, tried again: %s", len(claims), result)
                self.loop.call_later(TRY_AGAIN, self.give_back, claims)
            for channel in channels:
                self.waiting.news(channel)

        self._inbox_work.submit(Settles(changes), done)

    async def insist(self, changes: Sequence[Change]) -> None:
        """`settle`, again and again while the store refuses it: nobody else can end these leases but the process."""
        while not self.stopping.is_set():
            try:
                await self.settle(changes)
            except StoreError as error:
                self.log.debug("%d leases cannot be ended, tried again: %s", len(changes), error)
                await asyncio.sleep(TRY_AGAIN)
            else:
                return

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def spawn(self, work: Any) -> None:
        """Do something that nobody waits for; what fails is logged."""
        task = self.loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.warning("a lease could not be ended, it ends with this process: %s", error)

    def stop(self) -> None:
        """Nothing new is taken; whoever waits for messages is told that there are none."""
        self.stopping.set()
        self.waiting.stop()

    async def close(self) -> None:
        """Do what was begun, give back what is held, end the threads."""
        self.waiting.close()
        self.receipts.close()
        while self._background:
            await asyncio.wait(list(self._background))
        with contextlib.suppress(DroprError):
            await self._inbox_work.do(self.claimer.close)
        for work in (self._inbox_work, self._outbox_work, self._reader):
            await work.close()
