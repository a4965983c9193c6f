"""Carries out the orders of one link: reads the outbox, asks the peer, applies what it means.

Owns the I/O between a `Link`, an `Outbox` and a `PeerClient`; decides nothing itself. What the store refuses rests by
itself (store_trouble.py): one lane, or the receipts of this peer, and nothing else of this link.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from dropr_core.api.store_trouble import READ, WRITE, StoreTrouble
from dropr_core.contracts.bodies import Bodies
from dropr_core.contracts.storage import Batch, LaneStats, Outbox, PeerState, Rejection
from dropr_core.delivery.body_upload import BodyUploads, UploadBudget
from dropr_core.delivery.late_receipts import LateReceipts
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.delivery.push_budget import PushBudget
from dropr_core.errors import Unanswered
from dropr_core.model import topics
from dropr_core.model.facts import FactsOf
from dropr_core.model.limits import FRAMING, MAX_BATCH_COUNT, MAX_WAIT, clip, max_request
from dropr_core.model.message import State
from dropr_core.model.names import Lane, StoreId
from dropr_core.protocol import greeting
from dropr_core.protocol import messages as wire
from dropr_core.protocol.batches import pack, taken_of
from dropr_core.protocol.link import Link
from dropr_core.protocol.orders import (
    ClearInFlight,
    Collect,
    Compare,
    DeadLetter,
    Effect,
    Greet,
    Order,
    PeerDown,
    PeerUp,
    Probe,
    Settle,
    Ship,
)
from dropr_core.protocol.outcomes import to_outcomes
from dropr_core.protocol.outside import OutsideSearch
from dropr_core.protocol.reconcile import Reconciler, awaited, lane_of
from dropr_core.protocol.rests import GENTLY
from dropr_core.system.clock import Clock
from dropr_core.system.line_rate import LineRate, besides
from dropr_core.system.log_fields import about

Event = Callable[[str, Mapping[str, object]], None]


class Pusher:
    """One peer's carrier. All methods are called by the daemon's one thread."""

    def __init__(
        self,
        link: Link,
        talk: PeerClient,
        outbox: Outbox,
        clock: Clock,
        *,
        node_id: bytes,
        on_reset: str,
        batch_bytes: int,
        notify: Callable[[str], None],
        event: Event,
        log: logging.Logger,
        bodies: Bodies | None = None,
        budget: UploadBudget | None = None,
        trouble: StoreTrouble | None = None,
        late: LateReceipts | None = None,
        room: PushBudget | None = None,
    ) -> None:
        self.link, self.peer = link, link.peer
        self._receipts_of = (WRITE, "receipts", link.peer)
        self._talk, self._outbox, self._clock = talk, outbox, clock
        self._node_id, self._on_reset, self._batch_bytes = node_id, on_reset, batch_bytes
        self._notify, self._event, self._log = notify, event, log
        self.in_flight = 0
        """Deliveries in pushes that are not answered yet."""
        self._bytes_in_flight = 0
        self._room = room or PushBudget()
        self._rate = LineRate(clock)
        self._cursor = (b"", 0)
        self._awaiting = False
        self._store: StoreId | None = None
        self._unasked = False
        """The other side began anew, and the lanes whose receipts are awaited have not been read since."""
        self._polled = (self._cursor, 0.0)
        """The cursor with which receipts were asked for last, and when."""
        self._trouble = trouble or StoreTrouble(clock, event, log)
        self._outside = OutsideSearch(outbox, link.peer, on_reset=on_reset, event=event)
        self._late = late or LateReceipts(outbox, clock, self._trouble)
        self._budget = budget or UploadBudget()
        self.uploads = None if bodies is None else BodyUploads(
            link.peer, talk, outbox, bodies, clock, self._budget, backoff=link.settings.backoff, event=event, log=log,
            trouble=self._trouble,
            unreachable=lambda error: self._apply(self.link.unreachable(error, self._clock.now())),
        )  # fmt: skip

    def turn(self, lanes: Sequence[LaneStats], state: PeerState, store: StoreId | None = None) -> float | None:
        """Do what can be done now; returns the node time at which to be called again at the latest.

        ``store``: the outbox's id, if it was read with the lanes.
        """
        self._store = store
        now = self._clock.now()
        self._cursor = (state.log or b"", state.cursor)
        self._awaiting = state.awaiting > 0
        if not self.link.answered:
            self.link.answered = self._awaiting or state.log is not None or any(one.head.sequence for one in lanes)
        if state.held:
            lanes = ()
        if self._outside.log is not None and not self._trouble.rests(self._receipts_of):
            self._receipts(wire.Outcomes(self._outside.log, 0, []))
        if self._unasked:
            self._doubt_awaited()
        ready = self._turn_uploads(now, lanes)
        if self.link.welcome is not None and (self.link.answers or self.link.shipping):
            lanes = ready  # before, any lane is a reason to greet or to probe: a body goes only to a peer that answers
        stored = not self._trouble.rests(self._receipts_of)
        searching, stored = stored and self._outside.log is not None, stored and self._outside.log is None
        late = stored and self._late.expected_from(self.peer)
        for order in self.link.orders(now, lanes, awaiting=self._awaiting and stored, late=late, resting=self._rests):
            self._carry(order)
        uploads = None if self.uploads is None else self.uploads.wakes_at(now)
        wakes = [self.link.wakes_at(now), self._trouble.wakes_at, uploads, now if searching else None]
        return min((wake for wake in wakes if wake is not None), default=None)

    def _rests(self, lane: Lane) -> bool:
        """Whether the store refused this lane a moment ago."""
        return self._trouble.rests((READ, lane)) or self._trouble.rests((WRITE, lane))

    def _turn_uploads(self, now: float, lanes: Sequence[LaneStats]) -> Sequence[LaneStats]:
        """Bring large bodies on their way; which lanes may be shipped now."""
        uploads = self.uploads
        if uploads is None:
            return lanes
        if uploads.quiet and not [stats for stats in lanes if stats.lane.large]:
            return lanes
        if uploads.new_session:
            uploads.new_session = False
            self.link.welcome = None
        link = self.link
        open_ = link.welcome is not None and link.answers and now >= link.rest_until
        ready = uploads.turn(now, lanes, open_=open_)
        return [*(stats for stats in lanes if not stats.lane.large), *ready]

    def _carry(self, order: Order) -> None:
        match order:
            case Greet():
                hello = greeting.hello(self._node_id)
                self._talk.session = b""
                self._talk.ask(wire.HELLO, hello, wire.Welcome, lambda answer: self._greeted(order, answer))
                self.link.begin(order)
            case Probe():
                self._probe(order)
            case Ship():
                self._ship(order)
            case Collect():
                self._polled = (self._cursor, self._clock.now())
                poll = wire.AskReceipts(wire.Cursor(*self._cursor), MAX_WAIT)
                self._talk.ask(
                    wire.RECEIPTS, poll, wire.Outcomes, lambda answer: self._collected(order, answer), wait=MAX_WAIT
                )
                self.link.begin(order)

    def _probe(self, probe: Probe) -> None:
        store = self._store_id()
        if store is not None:
            ask = wire.AskHeads(store, [(lane.channel, lane.priority) for lane in probe.lanes])
            self._talk.ask(wire.HEADS, ask, wire.HeadsAnswer, lambda answer: self._probed(probe, store, answer))
            self.link.begin(probe)

    def _store_id(self) -> StoreId | None:
        """Under which id the peer knows this outbox; None where the store cannot say it now."""
        with self._trouble.guard((READ, "store id")):
            return self._outbox.store_id
        return None

    def _ship(self, order: Ship) -> None:
        """Push what can be read; a lane that cannot be read rests, and the others go without it."""
        batches: list[Batch] = []
        welcome = self.link.welcome
        announced = self._batch_bytes if welcome is None else welcome.batch_bytes
        bytes_left = min(self._batch_bytes, announced, self._room.room(self._bytes_in_flight))
        most = max_request(announced) - FRAMING
        count_left = MAX_BATCH_COUNT if welcome is None else min(MAX_BATCH_COUNT, max(1, welcome.batch_count))
        # Before the lanes are read: a store that takes a new id numbers them anew.
        store = self._store or self._store_id()
        for lane, count in order.lanes if store is not None else ():
            if bytes_left <= 0 or count_left <= 0:
                break
            if self._rests(lane):
                continue  # all reading rests, since that of two lanes failed just now
            with self._trouble.guard((READ, lane)):
                # Of a lane of large bodies one: only that one's body is known to be there.
                batch = self._take(lane, 1 if lane.large else min(count, count_left), bytes_left, most)
                if batch is None:
                    continue
                if batches and batch.size > bytes_left:  # its first message goes beyond what the peer takes at once
                    self._outbox.clear_in_flight(lane)
                    break
                batches.append(batch)
                bytes_left -= batch.size
                count_left -= len(batch.entries)
        if batches and store is not None:
            self._push(store, batches)

    def _push(self, store: StoreId, batches: list[Batch]) -> None:
        order = Ship(tuple([(batch.lane, len(batch.entries)) for batch in batches]))
        # Receipts that could not be stored would come with each answer.
        cursor = None if self._trouble.rests(self._receipts_of) else wire.Cursor(*self._cursor)
        push = wire.Push(store, [pack(batch) for batch in batches], cursor)
        begun = self._clock.now()
        self._talk.ask(wire.PUSH, push, wire.Pushed, lambda answer: self._pushed(order, store, batches, answer, begun))
        self.link.begin(order)
        self._count(batches, 1)

    def _count(self, batches: Sequence[Batch], sign: int) -> None:
        """A push is under way, or was answered."""
        self.in_flight += sign * sum(len(batch.entries) for batch in batches)
        size = sign * sum(batch.size for batch in batches)
        self._bytes_in_flight += size
        self._room.under_way += size

    def _take(self, lane: Lane, count: int, room: int, most: int) -> Batch | None:
        """What follows in a lane, without the messages that the peer cannot take even alone: those are set aside.

        Nothing makes such a message today (`limits.inline_body` ends below what every node takes); a store of an
        earlier version may hold some.
        """
        while (batch := self._outbox.take(lane, count, room)) is not None and batch.size > most:
            first = batch.entries[0]
            self._outbox.clear_in_flight(lane)
            reason = f"its envelope has {len(first.envelope):,} bytes: {self.peer} takes {most:,}; send it again"
            self._set_aside(lane, first.sequence, reason)
        return batch

    # ── answers ──────────────────────────────────────────────────────────────────────────────────

    def _greeted(self, order: Greet, answer: wire.Welcome | Exception) -> None:
        if isinstance(answer, Exception):
            self._failed(order, (), answer)
            return
        self._talk.session = answer.session
        self._apply(self.link.greeted(answer))
        if answer.inbox != self._cursor[0]:
            self._receipts(wire.Outcomes(answer.inbox, 0, []))  # noted before anything of that log may be lost
        if self._awaiting:
            self._unasked = True
            self._doubt_awaited()

    def _doubt_awaited(self) -> None:
        """The other side began anew, maybe with an empty or an older store, and a lane without anything to ship would
        never find out that what it waits for is lost (docs/what-survives-what.md, fault 53).
        """
        thing = (READ, "awaited", self.peer)
        if self._trouble.rests(thing):
            return
        with self._trouble.guard(thing):
            self.link.doubt({lane_of(delivery) for delivery in awaited(self._outbox, self.peer)})
            self._unasked = False

    def _probed(self, order: Probe, store: StoreId, answer: wire.HeadsAnswer | Exception) -> None:
        if isinstance(answer, wire.HeadsAnswer) and len(answer.heads) != len(order.lanes):
            answer = Unanswered("heads for other lanes than were asked")
        if isinstance(answer, Exception):
            self._failed(order, (), answer)
            return
        self._apply(self.link.probed(order, answer.heads), store)

    def _pushed(
        self, order: Ship, store: StoreId, batches: list[Batch], answer: wire.Pushed | Exception, begun: float
    ) -> None:
        self._count(batches, -1)
        if isinstance(answer, wire.Pushed) and len(answer.verdicts) != len(batches):
            answer = Unanswered(f"{len(answer.verdicts)} verdicts for {len(batches)} lanes")
        if isinstance(answer, Exception):
            self._failed(order, batches, answer, store)
            return
        self._apply(self.link.pushed(order, batches, answer.verdicts, self._clock.now()), store)
        for batch, verdict in zip(batches, answer.verdicts, strict=True):
            if verdict.missing and self.uploads is not None:
                self.uploads.missing(batch.lane)
            elif verdict.later is not None:
                self._tell_postponed(batch.lane, verdict.reason)
        if taken := taken_of([batch.envelopes for batch in batches], answer.verdicts):
            told = {"side": "outbox", "peer": self.peer, "count": len(taken), "messages": FactsOf(taken),
                    "seconds": self._clock.now() - begun}  # fmt: skip
            self._event("batch_accepted", told)
        if answer.receipts is not None:
            self._receipts(answer.receipts)

    def _collected(self, order: Collect, answer: wire.Outcomes | Exception) -> None:
        if isinstance(answer, Exception):
            self._failed(order, (), answer)
            return
        asked, at = self._polled
        news = (answer.log, answer.upto) != asked
        if answer.rows or news:
            self._receipts(answer)
        if not self._awaiting:
            self._late.look_again()
        # A page that moves nothing would come again at once, and so would an empty one of a peer that does not wait.
        early = not news and (bool(answer.rows) or self._clock.now() < at + GENTLY)
        self._apply(self.link.collected(self._clock.now(), gently=early))

    def _receipts(self, page: wire.Outcomes) -> None:
        self._trouble.attempt(self._receipts_of, partial(self._store_receipts, page))

    def _store_receipts(self, page: wire.Outcomes) -> None:
        warn = partial(self._log.warning, "%s: %s", self.peer, extra=about(peer=self.peer))
        rows = to_outcomes(page.rows, warn)
        if any(row.state is State.FAILED for row in rows):
            self._late.failed(self.peer)
        log = StoreId(page.log)
        if self._outside.is_over(self._cursor[0], log) and self._outbox.receipts(self.peer, log, rows, page.upto):
            self._notify(topics.RECEIPTS)

    def _failed(self, order: Order, batches: Sequence[Batch], error: Exception, store: StoreId | None = None) -> None:
        self._log.debug("%s: %s: %s", self.peer, type(order).__name__, error, extra=about(peer=self.peer))
        self._apply(self.link.failed(order, batches, error, self._clock.now()), store)

    # ── effects ──────────────────────────────────────────────────────────────────────────────────

    def _apply(self, effects: Sequence[Effect], store: StoreId | None = None) -> None:
        """What one answer, or its lack, means. ``store``: the id under which was asked, if numbers were."""
        heads = Reconciler(self._outbox, self.peer, on_reset=self._on_reset, event=self._event)
        heads.stale = store is not None and store != self._store_id()
        for effect in effects:
            if isinstance(effect, PeerUp | PeerDown):
                self._tell(effect)
            elif heads.stale and not isinstance(effect, ClearInFlight):
                # This store took new numbers since, in which all is sent again that the peer had not settled.
                self.link.doubt({effect.lane})
            elif not self._trouble.attempt((WRITE, effect.lane), partial(self._apply_one, effect, heads)):
                # Nothing is lost: the peer is asked for its head again, which tells all that this answer told.
                self.link.doubt({effect.lane})

    def _tell(self, effect: PeerUp | PeerDown) -> None:
        if isinstance(effect, PeerDown):
            self._log.warning("%s: down: %s", self.peer, effect.reason, extra=about(peer=self.peer))
            self._event("peer_down", {"peer": self.peer, "reason": effect.reason})
        else:
            self._log.info("%s: up", self.peer, extra=about(peer=self.peer))
            self._event("peer_up", {"peer": self.peer})

    def _apply_one(self, effect: Settle | Compare | ClearInFlight | DeadLetter, heads: Reconciler) -> None:
        match effect:
            case Settle(lane, head, rejected):
                self._outbox.settle(lane, head, rejected)
                self._budget.settled |= lane.large
                self._notify(topics.RECEIPTS)
                self._tell_refused(lane, rejected)
            case Compare(lane, head):
                heads.apply(lane, head)
                self._notify(topics.RECEIPTS)
            case ClearInFlight(lane):
                self._outbox.clear_in_flight(lane)
            case DeadLetter(lane, sequence, reason):
                self._set_aside(lane, sequence, reason)

    def _tell_refused(self, lane: Lane, rejected: Sequence[Rejection]) -> None:
        """One line for each reason, and not for each message; `dropr list` and `show` have them all."""
        counts = Counter(rejection.code for rejection in rejected)
        for rejection in rejected:
            count = counts.pop(rejection.code, 0)
            if count and (more := self._rate.note((lane, rejection.code), count)) is not None:
                self._log.warning("%s refused %s #%d: %s: %s%s", self.peer, lane, rejection.sequence,
                                  rejection.code, rejection.reason, besides(more), extra=about(lane=lane))  # fmt: skip

    def _tell_postponed(self, lane: Lane, reason: str) -> None:
        if (more := self._rate.note((lane, "later", reason.partition(":")[0]))) is not None:
            self._log.warning("%s: %s waits here, for the peer does not take it now: %s%s", self.peer, lane, reason,
                              besides(more), extra=about(lane=lane))  # fmt: skip

    def _set_aside(self, lane: Lane, sequence: int, reason: str) -> None:
        if (more := self._rate.note((lane, "dead"))) is not None:
            self._log.error(
                "%s: delivery #%d of %s is set aside as dead: %s%s", self.peer, sequence, lane, reason, besides(more),
                extra=about(lane=lane),
            )  # fmt: skip
        self._outbox.dead_letter(lane, sequence, clip(reason))
        self._notify(topics.RECEIPTS)

    def close(self) -> None:
        """Give up what is under way; safe twice."""
        if self.uploads is not None:
            self.uploads.close()
        self._talk.close()
