"""One leased message in a consumer's hands, and how it is settled.

Owns `Received` and how changes are settled. Must not know how messages are claimed (consumer.py),
peers, transports or handlers.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import msgspec

from dropr_core.api.failures import describe, text_of
from dropr_core.api.runtime import Runtime
from dropr_core.api.send_options import Duration, as_seconds
from dropr_core.api.unsettled import Keeper, Taker, counts
from dropr_core.contracts.storage import Ack, Bury, Claim, Release, Settlement
from dropr_core.errors import AlreadyProcessed, DroprError, LeaseLost, StoreError, TooBig, UsageError
from dropr_core.model import envelope, topics
from dropr_core.model.limits import MAX_RESULT, clip
from dropr_core.model.message import Message, by_proven_sender
from dropr_core.model.names import format_id, keep_of
from dropr_core.system.loading import unforked
from dropr_core.system.log_fields import about

if TYPE_CHECKING:
    from dropr_core.api.effects import Pending

NOT_COMMITTED = "its transaction was not committed by the end of its handling"


class Received(msgspec.Struct, eq=False, gc=False):
    """A leased message. Acknowledge, release or bury it; as a context manager it does so by itself:
    leaving the block acknowledges, an exception releases with backoff.
    """

    # A Struct, and not looked at for cycles, because thousands are made a second.
    _runtime: Runtime
    claim: Claim
    _swallow: bool
    _taker: Taker | None = None
    settled: bool = False
    _message: Message | None = None
    _body: bytes | None = None
    _refused: tuple[Settlement, str] | None = None
    keeper: Keeper | None = None
    """Of a message that was taken ahead (prefetching.py)."""
    line: int = -1
    """Its line on the keeper's lease sheet."""
    pending: "Pending | None" = None
    """Set while it takes effect with a transaction of the user's."""

    def __repr__(self) -> str:
        return f"<message {self.id}>"

    @property
    def message(self) -> Message:
        """The facts that the sender fixed; read when first asked for. Its `sender` is the one that proved to be it."""
        if self._message is None:
            self._message = by_proven_sender(envelope.header_of(self.claim.envelope), self.claim.sender)
        return self._message

    @property
    def claimed_sender(self) -> str | None:
        """Another name that the envelope says, which nobody has proven: that of a node before it was renamed, or a lie.

        None where the envelope says what was proven. Decide nothing by it.
        """
        claimed = envelope.header_of(self.claim.envelope).sender
        return None if claimed == self.claim.sender else claimed

    @property
    def body(self) -> bytes:
        """The body as it was sent, whole in memory; a large one is better taken with `open`.

        A large body goes when its message is settled: read it before.
        """
        if self._reference is None:
            return envelope.body_of(self.claim.envelope)
        if self._body is None:
            with self.open() as file:
                self._body = file.read()
        return self._body

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return envelope.body_size(self.claim.envelope)

    @property
    def large(self) -> bool:
        """Whether the body is a file of its own, better taken with `open`."""
        return self._reference is not None

    def loads(self, body: bytes) -> Any:
        """What `value` makes of a body."""
        return self._runtime.serialization.load(self.message, body)

    def open(self) -> BinaryIO:
        """The body as a binary file to read, at its beginning; whatever its size, nothing is loaded.

        To be closed by the caller. Raises StoreCorrupt if a large body is damaged or gone.
        """
        if self._reference is None:
            return io.BytesIO(self.body)
        return self._runtime.bodies.open_received(self.claim.sender, self.claim.id, self._reference)

    @property
    def _reference(self) -> envelope.Reference | None:
        return envelope.reference_of(self.claim.envelope)

    @property
    def id(self) -> str:
        """The message's id as text."""
        return format_id(self.claim.id)

    @property
    def value(self) -> Any:
        """The body through the serializer of its content type; raises ProtocolError if it does not fit."""
        return self._runtime.serialization.load(self.message, self.body)

    @property
    def channel(self) -> str:
        """The channel it came on."""
        return self.claim.channel

    @property
    def priority(self) -> int:
        """0 (first) to 9 (last)."""
        return self.claim.priority

    @property
    def sender(self) -> str:
        """The peer that brought it, by the name that it proved; nothing in the message can change it."""
        return self.claim.sender

    @property
    def headers(self) -> Mapping[str, str]:
        """The sender's headers."""
        return self.message.headers

    @property
    def attempt(self) -> int:
        """1 at the first try."""
        return self.claim.attempt

    @property
    def possible_duplicate(self) -> bool:
        """Whether it may have been given out before (a store was rolled back, wiped or cloned)."""
        return self.claim.possible_duplicate

    @property
    def age(self) -> float:
        """Seconds since it entered this node's queue."""
        return self._runtime.clock.now() - self.claim.arrived

    @property
    def lease_holds(self) -> bool:
        """Whether the message is still ours to settle."""
        return self._runtime.storage.inbox.holds(self.claim)

    def ack(self, result: Any = None, *, connection: Any = None) -> None:
        """Done. ``result`` (up to 64 KiB once encoded) goes home with the receipt.

        ``connection``: of a database under `outboxes:`. Then the message is done if and when the transaction of this
        connection is committed, which has to be before its loop body or handler ends; what else the transaction does
        takes effect once. Raises AlreadyProcessed if it did so before: the exception is to roll the transaction back.

        When it returns the death of any process changes nothing; a power cut within the flush
        interval (20 ms) may bring the message back. Others see that it is done within that time, too. Raises
        UsageError (TooBig) for a result that cannot travel, nothing has changed then; LeaseLost, StoreError. Of a
        message of a loop the loop raises LeaseLost with one of its next steps.
        """
        if connection is None:
            self._settle(self.make_ack(result) if self.pending is None else self.conclude())
        else:
            self._check_free()
            self._noted(self._runtime.effects.note(self.make_ack(result), connection))

    async def aack(self, result: Any, connection: Any) -> None:
        """`ack` with a connection of asyncio."""
        self._check_free()
        self._noted(await self._runtime.effects.anote(self.make_ack(result), connection))

    @contextlib.contextmanager
    def transaction(self, database: Any) -> Iterator[Any]:
        """A transaction with which the message takes effect, once: committed when the block is left, rolled back if it
        raises. ``database``: what your library has of one of the databases under `outboxes:`: an engine, a session, a
        pool, a connection. Gives the connection or session. Raises AlreadyProcessed, UsageError, StoreError.
        """
        with unforked:
            from dropr_core.transactions.beginning import begin

        with begin(database) as connection:
            self.ack(connection=connection)
            yield connection
        assert self.pending is not None
        self.pending.committed = True

    def _check_free(self) -> None:
        if self.settled or self.pending is not None:
            raise LeaseLost(f"message {self.id} was settled before")

    def _noted(self, pending: "Pending") -> None:
        self.pending = pending
        if pending.before:
            with unforked:
                from dropr_core.api.effects import already

            raise already(self.claim)

    def took_effect(self) -> bool:
        """Whether its transaction is committed, as far as others see it now. Raises StoreError, PluginError."""
        return self.pending is not None and self._runtime.effects.holds(self.pending)

    def conclude(self) -> Settlement:
        """How it is settled now that its loop body or handler has ended: done, if its transaction is committed. Raises
        StoreError, PluginError: the database cannot be asked.
        """
        assert self.pending is not None
        if self.took_effect():
            return self.pending.ack
        change = self.make_failure(None, NOT_COMMITTED)
        self._runtime.log.warning("%s on %s: %s; %s", self.id, self.channel, NOT_COMMITTED, self.outlook(change),
                                  extra=about(message=self.id, channel=self.channel))  # fmt: skip
        return change

    def make_ack(self, result: Any = None) -> Ack:
        """The change that `ack` makes, for settling many at once. Raises UsageError (TooBig)."""
        data, content_type = (None, "") if result is None else self._encode(result)
        return Ack(self.claim, data, content_type, keep_of(self.claim.id, self._runtime.rules(self.channel).retention))

    def make_done(self, reason: str) -> Ack:
        """An `Ack` without a result; ``reason``: what the receipt says about that."""
        keep = keep_of(self.claim.id, self._runtime.rules(self.channel).retention)
        return Ack(self.claim, None, "", keep, reason)

    def _encode(self, result: Any) -> tuple[bytes, str]:
        try:
            data, content_type = self._runtime.serialization.dump_result(result)
        except UsageError:
            raise
        except Exception as error:  # the result is the user's: its methods may do anything
            raise UsageError(f"the result cannot be encoded: {describe(error)}") from error
        if len(data) > MAX_RESULT:
            raise TooBig(f"a result of {len(data)} bytes: the limit is {MAX_RESULT}; send a message instead")
        return data, content_type

    def release(self, delay: Duration | None = None, reason: str = "") -> None:
        """Give it back, to be ready again after ``delay`` (None: the channel's backoff).

        Raises UsageError for what is no duration, LeaseLost, StoreError.
        """
        self._settle(self.make_failure(as_seconds(delay, "delay"), reason))

    def make_failure(
        self, delay: float | None = None, reason: str = "", error: BaseException | None = None
    ) -> Release | Bury:
        """The change after a failed attempt: back with backoff, or buried when attempts are used up. ``error``: what
        was raised; the channel may have a rule for it.
        """
        attempts, backoff = self._runtime.rules(self.channel).after(error)
        if self.attempt >= attempts:
            return Bury(self.claim, reason or f"{self.attempt} attempts")
        return Release(self.claim, backoff.fixed(self.attempt) if delay is None else delay, reason)

    def outlook(self, change: Release | Bury, error: BaseException | None = None) -> str:
        """For the log: which attempt that was, and what comes next."""
        attempts, _ = self._runtime.rules(self.channel).after(error)
        count = f"attempt {self.attempt} of {attempts}" if attempts else f"attempt {self.attempt}"
        if isinstance(change, Bury):
            return f"{count}, buried: see 'dropr show {self.id}', then 'dropr kick'"
        return f"{count}, next try in {change.delay:.3g} s"

    def bury(self, reason: str = "") -> None:
        """Into the dead-letter list; a sender that asked for a receipt learns that it failed."""
        self._settle(Bury(self.claim, reason))

    def apply(self, change: Settlement) -> None:
        """Settle with a change made before by `make_ack` or `make_failure`. Raises LeaseLost, StoreError."""
        self._settle(change)

    def requeue(self) -> None:
        """Back to the queue, at once and the attempt not counted: it was never really tried.

        After a settlement that the store refused it counts, and backs off: else a message that can never be settled
        would come again as the first attempt for ever. Raises StoreError.
        """
        if self.settled:
            return
        change: Settlement = Release(self.claim, counted=False)
        if self.pending is not None:
            with contextlib.suppress(DroprError):  # else it is recognised when it comes again
                if self.took_effect():
                    change = self.pending.ack
        if self._refused is not None:
            change, error = self._refused
            if isinstance(change, Ack):
                change = self.make_failure(None, f"done, but could not be acknowledged: {error}")
        with contextlib.suppress(LeaseLost):
            self._settle(change)

    def note_refused(self, change: Settlement, error: StoreError) -> None:
        """The store has refused a settlement: `requeue` will count the attempt, and so will its consumer's closing."""
        if not counts(change):
            return
        self._refused = (change, text_of(error))
        self._runtime.unsettled.begun(self.claim)
        if self._taker is not None:
            self._taker.refused(self)

    def _settle(self, change: Settlement) -> None:
        if self.settled:
            raise LeaseLost(f"message {self.id} was settled before")
        try:
            keeper = self.keeper
            held = settle(self._runtime, [change])[0] if keeper is None else keeper.settle_one(self, change)
        except StoreError as error:
            self.note_refused(change, error)
            raise
        self.settled = True
        if not held:
            if counts(change) and self._taker is not None and not self._taker.closed:
                self._runtime.unsettled.begun(self.claim)
            raise LeaseLost(f"message {self.id}: the lease ended, another consumer may have it; nothing was changed")
        if self._refused is not None:
            self._runtime.unsettled.settled(self.claim)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self.settled:
            return False
        if error is None:
            self.ack()
            return False
        if self.pending is not None:
            with contextlib.suppress(DroprError):
                if self.took_effect():  # whatever went wrong afterwards
                    self._settle(self.pending.ack)
                    return isinstance(error, AlreadyProcessed)
        if not isinstance(error, Exception):  # KeyboardInterrupt, SystemExit: not the message's fault
            self.requeue()
            return False
        what = describe(error)
        change = self.make_failure(None, what, error)
        self._runtime.log.warning("%s on %s failed: %s; %s", self.id, self.channel, what, self.outlook(change, error),
                                  extra=about(message=self.id, channel=self.channel))  # fmt: skip
        self._settle(change)
        return self._swallow


def settle(runtime: Runtime, changes: Sequence[Settlement]) -> list[bool]:
    """Settle changes in one commit, then notify for who waits for their effects."""
    # Here every error text of a handler, a consumer or a person passes: whatever it says, it can be stored and sent.
    changes = [change._replace(reason=clip(change.reason)) if change.reason else change for change in changes]
    done = runtime.storage.inbox.settle(changes)
    if runtime.limits is not None:
        runtime.limits.settled(change.claim for change in changes)
    ready, senders = set(), set()
    for change, good in zip(changes, done, strict=True):
        if good:
            claim = change.claim
            if isinstance(change, Release):
                ready.add(claim.channel)
            else:
                senders.add(claim.sender)
                if type(change) is Ack and not change.keep and (large := envelope.reference_of(claim.envelope)):
                    runtime.bodies.drop_received(claim.sender, claim.id, large)
            if runtime.observed:
                outcome = type(change).__name__.lower()
                runtime.event("message_settled", {"id": claim.id, "channel": claim.channel, "outcome": outcome})
    for channel in ready:
        runtime.notifier.notify(topics.inbox(channel))
    for sender in senders:
        runtime.notifier.notify(topics.outcomes(sender))
    return done


def acknowledge(runtime: Runtime, claims: Sequence[Claim], keep: float) -> list[bool]:
    """`settle` with an `Ack` without a result for each claim."""
    if runtime.observed:
        return settle(runtime, [Ack(claim, None, "", keep) for claim in claims])
    done = runtime.storage.inbox.acknowledge(claims, keep)
    if runtime.limits is not None:
        runtime.limits.settled(claims)
    mine = claims if all(done) else [claim for claim, good in zip(claims, done, strict=True) if good]
    if not keep:
        for claim in [claim for claim in mine if claim.envelope[1] & envelope.OUTSIDE]:
            large = envelope.reference_of(claim.envelope)
            assert large is not None
            runtime.bodies.drop_received(claim.sender, claim.id, large)
    for sender in {claim.sender for claim in mine}:
        runtime.notifier.notify(topics.outcomes(sender))
    return done
