"""A consumer that holds some messages ahead, and settles what is done together.

Owns `PrefetchingConsumer`: what is claimed stands on its lease sheet as held, what is handed out as begun, what was
handled as done; all that is done is settled in one commit at the flush interval, with the next claim, or with anything
that is settled at once. How many are held is decided in pace.py. Threads may share it: one for each process is enough.
Where there is no sheet (the storage has none, the disk has no room, or only one may be held) it holds one message at a
time and settles it at once. Must not know loops, nor handlers.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from dropr_core.api.consumer import Consumer, OnError, check_channels, make_plan
from dropr_core.api.pace import Pace
from dropr_core.api.receive_plan import Claim, ReceivePlan, Settle
from dropr_core.api.received import Received, acknowledge, settle
from dropr_core.api.runtime import Runtime
from dropr_core.api.send_options import Duration
from dropr_core.contracts.lease_sheets import LeaseSheet
from dropr_core.contracts.storage import Ack, Release, Settlement
from dropr_core.errors import Closed, LeaseLost, StoreError
from dropr_core.model.names import RUN_BYTE

MOST = 512
"""Messages held at most."""

TRY_AGAIN = 1.0
"""Seconds until a sheet is asked for again, after the disk had no room for one."""


class PrefetchingConsumer(Consumer):
    """See module."""

    def __init__(
        self,
        runtime: Runtime,
        channels: Sequence[str],
        *,
        on_error: OnError = "raise",
        label: str = "",
        prefetch: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``prefetch``: hold at most so many; None: as the channels say, else what is worth it. Raises UsageError,
        Closed, StoreError.
        """
        super().__init__(runtime, channels, on_error=on_error, label=label, ahead=True)
        self._clock = clock
        self._pace = Pace(_cap(runtime, self.channels, prefetch))
        self._keep = {channel: runtime.rules(channel).retention for channel in self.channels}
        self._mutex = threading.Lock()
        """For whatever touches the store, or the sheet's list of free lines."""
        self._held: deque[Received] = deque()
        """Claimed and not handed out; threads pop it, so a message goes to one of them."""
        self._done: deque[Received] = deque()
        """Noted as done and not settled."""
        self._acks: dict[int, Ack] = {}
        """Line → what is to be said besides of one that is done."""
        self._lost: list[str] = []
        """Ids of those whose lease had ended when they were to be settled."""
        self._claims, self._seen = 0, (0, 0)
        self._sheet: LeaseSheet | None = None
        self._next_try = 0.0
        runtime.settler.join(self)

    # ── handing out ──────────────────────────────────────────────────────────────────────────────

    def take(self, limit: int | None = None) -> Received | None:
        """The next message, begun; None if nothing is ready. ``limit``: claim at most so many.

        Raises LeaseLost if what was done before was not ours any more, StoreError.
        """
        if self._lost:
            self._tell_lost()
        return self.take_held() or self._refill(limit)

    def take_held(self) -> Received | None:
        """The next message that is held already, begun; asks nobody."""
        try:
            received = self._held.popleft()
        except IndexError:
            return None
        assert self._sheet is not None
        self._sheet.begin(received.line)
        return received

    def holds(self) -> bool:
        """Whether any message is held already."""
        return bool(self._held)

    def _refill(self, limit: int | None) -> Received | None:
        self._runtime.check()  # a forked child must not wait for a lock whose holder is not there
        with self._mutex:
            if (received := self.take_held()) is not None:  # another thread was faster
                return received
            self._settle_done()
            if self._lost:
                self._tell_lost()
            count = min(self._pace.ran_out(self._clock()), self._pace.cap if limit is None else limit)
            sheet = self._its_sheet()
            if sheet is None:
                found = self.claim(1)
                self._pace.claimed(0, self._clock())
                return found[0] if found else None
            count = min(count, sheet.room)
            if not count:
                return None
            sheet.claiming(begins=True)
            found = self.claim(count)
            if not found:
                sheet.claiming(begins=False)
                return None
            lines = sheet.hold([one.claim for one in found], self._keep)
            for received, line in zip(found, lines, strict=True):
                received.line, received.keeper = line, self
            sheet.claiming(begins=False)
            sheet.begin(found[0].line)
            self._held.extend(found[1:])
            self._claims += 1
            self._pace.claimed(len(found), self._clock())
            if len(found) > 1:
                self._runtime.settler.mark()
            return found[0]

    def _its_sheet(self) -> LeaseSheet | None:
        if self._sheet is None and self._pace.cap > 1 and self._clock() >= self._next_try:
            sheets = self._runtime.storage.inbox.sheets
            self._sheet = None if sheets is None else sheets.sheet(self._consumer)
            self._next_try = self._clock() + TRY_AGAIN if sheets is not None else float("inf")
        return self._sheet

    # ── settling ─────────────────────────────────────────────────────────────────────────────────

    def done(self, received: Received) -> None:
        """It was handled, and nothing is to be said but that."""
        sheet = self._sheet
        assert sheet is not None
        sheet.done(received.line)
        received.settled = True
        self._done.append(received)
        self._runtime.settler.mark()

    def settle_one(self, received: Received, change: Settlement) -> bool:
        """`Keeper`: what becomes of a message that was taken here."""
        self._runtime.check()
        if self.closed:
            return settle(self._runtime, [change])[0]
        if type(change) is Ack and change.keep == self._keep[received.channel]:
            if change.result is None and not change.reason:
                self.done(received)
                return True
            if self._note(received, change):
                return True
        with self._mutex:
            return self._settle_done(received, change)

    def _note(self, received: Received, ack: Ack) -> bool:
        with self._mutex:
            assert self._sheet is not None
            if not self._sheet.done_with(received.line, ack):
                return False
            self._acks[received.line] = ack
            self._done.append(received)
        self._runtime.settler.mark()
        return True

    def settle_now(self) -> None:
        """Settle everything that is done. Raises LeaseLost, StoreError, Closed."""
        self._runtime.check()
        with self._mutex:
            self._settle_done()
        if self._lost:
            self._tell_lost()

    def _settle_done(self, received: Received | None = None, change: Settlement | None = None) -> bool:
        """Settle what is done, and in the same commit ``change``; whether that one's lease held."""
        done = self._done
        batch = [done.popleft() for _ in range(len(done))]
        if not batch and change is None:
            return True
        try:
            held = self._commit(batch, change)
        except BaseException:
            done.extendleft(reversed(batch))
            raise
        assert self._sheet is not None
        if not all(held):
            lost = [one for one, good in zip(batch, held, strict=False) if not good]
            self._lost += [one.id for one in lost]
            self._remember(lost)
        lines = [one.line for one in batch]
        for line in lines if self._acks else ():
            self._acks.pop(line, None)
        if received is not None:
            lines.append(received.line)
        self._sheet.free(lines)
        return held[-1]

    def _commit(self, batch: list[Received], change: Settlement | None) -> list[bool]:
        if change is None and not self._acks and len(set(self._keep.values())) == 1:
            return acknowledge(self._runtime, [one.claim for one in batch], self._keep[self.channels[0]])
        changes: list[Settlement] = [self._ack_of(one) for one in batch]
        return settle(self._runtime, changes if change is None else [*changes, change])

    def _ack_of(self, done: Received) -> Ack:
        return self._acks.get(done.line) or Ack(done.claim, None, "", self._keep[done.claim.channel])

    def _remember(self, done: Sequence[Received]) -> None:
        """The store may have lost these leases with its last moments: what comes again by that is not handled again."""
        for one in done:
            self._runtime.unsettled.begun(one.claim, self._ack_of(one))

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, []
        raise LeaseLost(f"{len(lost)} leases of messages that were handled had ended, the first on message {lost[0]}")

    def withdraw(self, received: Received) -> None:
        """This process ends now, and with it the handling of a message that was taken here: when the process is gone
        the message is free, its attempt not counted. Where there is no sheet, the attempt counts.
        """
        if received.keeper is self and not received.settled and self._sheet is not None:
            self._sheet.withdraw(received.line)

    # ── what the settler does ────────────────────────────────────────────────────────────────────

    def tick(self) -> bool:
        """Settle what is done; give back what nobody came for within an interval. Whether some is held still."""
        with self._mutex:
            if self.closed:
                return False
            self._settle_done()
            seen = (self._claims, len(self._held))
            if self._held and seen == self._seen:
                self._give_back()
            self._seen = (self._claims, len(self._held))
            return bool(self._held)

    def _give_back(self) -> None:
        """Others may have what is held: those who take here are busy with long work."""
        unused: list[Received] = []
        try:
            while True:
                unused.append(self._held.pop())
        except IndexError:
            pass
        if unused:
            assert self._sheet is not None
            try:
                settle(self._runtime, [Release(one.claim, counted=False) for one in unused])
            except BaseException:
                self._held.extend(reversed(unused))
                raise
            self._sheet.free([one.line for one in unused])
        self._pace.stalled()

    # ── carrying out a plan ──────────────────────────────────────────────────────────────────────

    def look(self, step: Claim) -> list[Received]:
        """Carry out a `Claim` of a plan: the next message, if there is one."""
        if step.prepared:
            self.prepare()
        received = self.take(step.limit)
        return [] if received is None else [received]

    def pass_on(self, given: Sequence[Received]) -> list[Received]:
        """Note the one message that was given as done, and take the next that is held; nothing if there is none, or if
        more is to be told.
        """
        (received,) = given
        if received.keeper is None or self._lost:
            return []
        if not received.settled:
            if received.claim.id[6] == RUN_BYTE or received.pending:  # more is to be said than that it is done
                received.ack()
            else:
                self.done(received)
        try:
            received = self._held.popleft()
        except IndexError:
            return []
        self._sheet.begin(received.line)  # type: ignore[union-attr]
        return [received]

    def settle(self, step: Settle[Received]) -> None:
        """Carry out a `Settle` of a plan. Raises LeaseLost, StoreError."""
        for received in step.acknowledge:
            if received.keeper is None or received.claim.id[6] == RUN_BYTE or received.pending:
                received.ack()
            else:
                self.done(received)
        for unused in step.requeue:
            unused.requeue()

    def close(self) -> None:
        """Settle what is done, give back the rest uncounted; safe twice. What cannot be settled stays on the sheet."""
        if self.closed:
            return
        self._runtime.settler.leave(self)
        try:
            self.settle_now()
        except Closed:  # the store was closed first: it has read the sheet itself
            pass
        except (LeaseLost, StoreError) as error:
            self._runtime.log.warning("%s", error)
            self._remember(list(self._done))
        self._held.clear()
        super().close()


def _cap(runtime: Runtime, channels: Sequence[str], prefetch: int | None) -> int:
    check_channels(channels)
    said = [runtime.rules(channel).prefetch for channel in channels]
    return min([MOST, *(cap for cap in (prefetch, *said) if cap is not None)])


def batches(
    runtime: Runtime,
    channels: Sequence[str],
    size: int,
    limit: int | None,
    wait: Duration | None,
    timeout: Duration | None,
) -> tuple[Callable[[], Consumer], ReceivePlan[Received]]:
    """What makes the consumer of a loop over batches when the loop begins, and its plan. Raises UsageError, Closed: who
    would receive in vain is told at once.
    """
    check_channels(channels)
    runtime.check()
    return partial(Consumer, runtime, channels), make_plan(size, limit, wait, timeout, batches=True)


def singles(
    runtime: Runtime,
    channels: Sequence[str],
    prefetch: int | None,
    limit: int | None,
    wait: Duration | None,
    timeout: Duration | None,
    on_error: OnError,
) -> tuple[Callable[[], Consumer], ReceivePlan[Received]]:
    """The same for a loop over single messages."""
    check_channels(channels)
    sheets = runtime.inbox.sheets is not None
    plan = make_plan((MOST if sheets else 1) if prefetch is None else prefetch, limit, wait, timeout)
    if not sheets:
        return partial(Consumer, runtime, channels, on_error=on_error, ahead=True), plan
    return partial(PrefetchingConsumer, runtime, channels, on_error=on_error, prefetch=prefetch), plan
