"""The sending side of the protocol for one peer: a state machine without I/O.

Owns what to ask a peer next and what its answer, its silence or its refusal means; the orders and effects themselves
stand in orders.py. Reads no clock and no store that it is not given: `pusher.py` carries the orders out,
and the simulation runs the very same code. An order is under way from `begin` on, which is said after it was asked:
whatever fails between the decision and the question leaves nothing behind that somebody would have to give back.

Rest: after a failure the *peer* rests (full jitter, 1 s doubling to 60 s), then one small probe. A peer that
has never answered rests for 5 s at most: it is being set up.
Up again is a peer when what it refused works again: one whose store fails answers probes all the same.
Doubt: after an unanswered push, the lanes' heads are asked before anything is sent again.
Bisection: a push that keeps failing at a peer that answers probes is halved until one delivery
stands alone; if that one fails while others are accepted, it becomes a dead letter.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence

import attrs

from dropr_core.contracts.storage import Batch, LaneStats
from dropr_core.errors import Refused, Unreachable
from dropr_core.model.backoff import Backoff
from dropr_core.model.limits import MAX_LANES, PUSH_LANES
from dropr_core.model.names import Head, Lane, MessageId
from dropr_core.protocol import rests
from dropr_core.protocol.messages import PushResult, Welcome
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
    rejections,
)


def _no_lane(_lane: Lane) -> bool:
    return False


@attrs.frozen
class LinkSettings:
    """Limits of one link."""

    backoff: Backoff = attrs.field(factory=Backoff)
    parallel: int = 4
    """Pushes under way at once to one peer, of different lanes."""
    first_count: int = 500
    """Deliveries in a lane's first push; grows with success to the limit."""
    max_count: int = 10_000


@attrs.define
class _Shape:
    """How a lane is shipped at present."""

    count: int
    rest_until: float = 0.0
    suspect: bool = False
    """A push that held this lane failed at a peer that was reached: it goes in a push of its own."""
    alone: int = -1
    """Sequence of the delivery that is tried alone."""
    tries: int = 0
    proof: int = 0
    """Pushes accepted by the peer when it was first tried alone."""


class Link:
    """The state of one peer as seen by its sender."""

    def __init__(self, peer: str, settings: LinkSettings, rng: random.Random) -> None:
        self.peer = peer
        self.settings = settings
        self.welcome: Welcome | None = None
        self.down_reason: str | None = None
        self.failures, self._failing_since = 0, 0.0
        self.rest_until = 0.0
        self.accepted = 0
        self.idle = True
        """Whether nothing waits to be said to the peer or by it."""
        self.answered = False
        """Whether this peer has ever answered, today or in an earlier life of this process."""
        self._rng = rng
        self._busy: set[Lane] = set()
        self._doubtful: set[Lane] = set()
        self._shapes: dict[Lane, _Shape] = {}
        self._small = False  # a greeting or probe is under way
        self._refused_kind: type[Order] | None = None
        """What the peer refused when it went down, Ship or Collect: an answer to anything else proves little then."""
        self._tested = False
        """A probe was answered since the last failure: what was refused may be tried again."""
        self._announcing = False
        self._collecting = False
        self._collect_at = 0.0
        """When the next long poll for receipts may begin; no answer to anything else makes it earlier."""
        self._late_at = 0.0
        """When a peer that is down is asked again of which nothing but a late receipt may come."""
        self._only_late = False
        self._greetings = 0
        """Greetings in a row after which no other question was answered."""
        self._turn = 0
        self._pushes = 0

    # ── what next ────────────────────────────────────────────────────────────────────────────────

    def orders(
        self, now: float, lanes: Sequence[LaneStats], *, awaiting: bool, late: bool = False,
        resting: Callable[[Lane], bool] = _no_lane,
    ) -> list[Order]:  # fmt: skip
        """What to ask now. Nothing is under way by it: whoever has asked says `begin`.

        ``awaiting``: receipts are to come. ``late``: one may yet come of what has failed. ``resting``: lanes that can
        be neither read nor settled at present; they are left alone, the others go on.
        """
        if now < self.rest_until or self._small:
            return []
        self.idle = idle = not lanes and not awaiting and not late
        self._only_late = late and not lanes and not awaiting
        # Nothing to say: an idle pair of nodes stays silent, also when one of them is away.
        if not self._announcing and (idle or (self._only_late and now < self._late_at)):
            return []
        awaiting = awaiting or late
        if (self._refused_kind is Ship and not lanes) or (self._refused_kind is Collect and not awaiting):
            self._refused_kind, self._tested = None, False  # nothing is left to prove it with
        if self.welcome is None:
            return [Greet(courtesy=idle)]
        doubtful: tuple[Lane, ...] = ()
        if self._doubtful:
            doubtful = tuple(sorted(lane for lane in self._doubtful - self._busy if not resting(lane))[:MAX_LANES])
        if doubtful or self._announcing or self._probing_needed():
            return [Probe(doubtful, courtesy=idle and not doubtful)]
        free = [
            stats for stats in lanes
            if stats.lane not in self._busy and stats.lane not in self._doubtful
            and self._shape(stats.lane).rest_until <= now and not resting(stats.lane)
        ]  # fmt: skip
        out: list[Order] = []
        for _ in range(self.settings.parallel - self._pushes):
            if not free:
                break
            ship = self._ship(free)
            chosen = {lane for lane, _ in ship.lanes}
            free = [stats for stats in free if stats.lane not in chosen] if len(chosen) < len(free) else []
            out.append(ship)
        if awaiting and not self._collecting and now >= self._collect_at:
            out.append(Collect())
        return out

    def begin(self, order: Order) -> None:
        """It was asked: it is under way until its answer or failure is told."""
        match order:
            case Ship(lanes):
                self._busy.update(lane for lane, _ in lanes)
                self._pushes += 1
            case Collect():
                self._collecting = True
            case Greet() | Probe():
                self._small, self._announcing = True, False

    def wakes_at(self, now: float) -> float | None:
        """When `orders` may have something new by the passing of time alone."""
        if self.rest_until > now:
            return self.rest_until
        rests = [self._collect_at, self._late_at, *(shape.rest_until for shape in self._shapes.values())]
        return min((rest for rest in rests if rest > now), default=None)

    @property
    def next_try(self) -> float:
        """When a peer that is down is asked again (node time)."""
        return max(self.rest_until, self._late_at) if self._only_late else self.rest_until

    @property
    def shipping(self) -> bool:
        """Whether a push is under way."""
        return self._pushes > 0

    def reset_backoff(self) -> None:
        """The peer talked to us, or a person asked to retry: end its rest."""
        self.rest_until = self._late_at = 0.0
        for shape in self._shapes.values():
            shape.rest_until = 0.0

    def announce(self) -> None:
        """Talk to the peer once though there is nothing to say: it may be waiting to try this node again."""
        self._announcing = True

    def _probing_needed(self) -> bool:
        return not self.answers and not self._busy

    @property
    def answers(self) -> bool:
        """Whether the peer is there as far as we know, though it may have refused something."""
        return self.down_reason is None or self._tested

    def _ship(self, free: list[LaneStats]) -> Ship:
        """The next push of some of these lanes."""
        self._turn += 1
        # Urgent first; one push in eight begins with the lane that has waited longest.
        if self._turn % 8 == 0:
            free.sort(key=lambda stats: -stats.oldest)
        else:
            free.sort(key=lambda stats: (stats.lane.priority, -stats.oldest))
        room = self.settings.max_count
        if self.welcome is not None:
            room = max(1, min(room, self.welcome.batch_count))
        chosen: list[tuple[Lane, int]] = []
        for stats in free:
            shape = self._shape(stats.lane)
            if shape.suspect and chosen:
                continue
            count = min(shape.count, room)
            chosen.append((stats.lane, count))
            room -= min(count, stats.depth)
            if shape.suspect or room <= 0 or len(chosen) == PUSH_LANES:
                break
        return Ship(tuple(chosen))

    def _shape(self, lane: Lane) -> _Shape:
        shape = self._shapes.get(lane)
        if shape is None:
            shape = self._shapes[lane] = _Shape(self.settings.first_count)
        return shape

    # ── what it means ────────────────────────────────────────────────────────────────────────────

    def greeted(self, welcome: Welcome) -> list[Effect]:
        """The answer to Greet."""
        self._small, self.welcome, self.answered = False, welcome, True
        self._greetings += 1
        return []

    def doubt(self, lanes: Iterable[Lane]) -> None:
        """Ask for the heads of these lanes before anything else."""
        self._doubtful.update(lanes)

    def probed(self, probe: Probe, heads: Sequence[tuple[int, bytes]]) -> list[Effect]:
        """The answer to Probe: one head for each lane asked."""
        self._small = False
        self._doubtful.difference_update(probe.lanes)
        effects: list[Effect] = [
            Compare(lane, Head(sequence, MessageId(identity)))
            for lane, (sequence, identity) in zip(probe.lanes, heads, strict=True)
        ]
        return effects + self._alive(Probe)

    def pushed(self, ship: Ship, batches: Sequence[Batch], verdicts: Sequence[PushResult], now: float) -> list[Effect]:
        """The answer to Ship: one verdict for each batch that was sent."""
        self._landed(ship)
        effects: list[Effect] = []
        for batch, verdict in zip(batches, verdicts, strict=True):
            effects.extend(self._verdict(batch, verdict, now))
        return effects + self._alive(Ship)

    def collected(self, now: float, *, gently: bool = False) -> list[Effect]:
        """The answer to Collect came (what it said is the pusher's business).

        ``gently``: it brought nothing that could be used, and came before its time: the next question waits a little.
        """
        self._collecting = False
        if gently:
            self._collect_at = now + rests.GENTLY
        return self._alive(Collect)

    def failed(self, order: Order, batches: Sequence[Batch], error: Exception, now: float) -> list[Effect]:
        """No usable answer. ``batches``: what a Ship really sent."""
        if isinstance(order, Ship):
            self._landed(order)
        elif isinstance(order, Collect):
            self._collecting = False
        else:
            self._small = False
            if order.courtesy:
                self.welcome = None
                return []  # it did not matter: no rest, and nobody is told
        if isinstance(error, Refused):
            self.answered |= error.signed
            return self._refused(order, batches, error, now)
        effects: list[Effect] = []
        if isinstance(error, Unreachable):
            effects.extend(ClearInFlight(batch.lane) for batch in batches if batch.lane not in self._doubtful)
        elif isinstance(order, Ship):
            self._doubtful.update(batch.lane for batch in batches)
            effects.extend(self._suspect(batches, str(error)))
        if isinstance(order, Collect) and not isinstance(error, Unreachable) and self.down_reason is None:
            # A broken long poll says little about a peer that is otherwise up: ask again, gently.
            self._collect_at = now + rests.GENTLY
            return effects
        return effects + self._down(str(error), now)

    # ── parts ────────────────────────────────────────────────────────────────────────────────────

    def _verdict(self, batch: Batch, verdict: PushResult, now: float) -> Iterable[Effect]:
        shape = self._shape(batch.lane)
        head = Head(verdict.head[0], MessageId(verdict.head[1]))
        if verdict.later is not None:
            # Never below a second: a hot loop against a full peer helps nobody.
            shape.rest_until = now + max(1.0, min(verdict.later, self.settings.backoff.cap))
            shape.count = 1  # asked again soon, and with one message: nobody sends megabytes again and again for a no
            yield ClearInFlight(batch.lane)
        elif verdict.taken and head == batch.upto:
            self.accepted += 1
            self.failures = 0
            shape.alone, shape.tries, shape.suspect = -1, 0, False
            shape.count = min(self.settings.max_count, max(shape.count * 2, self.settings.first_count // 8))
            yield Settle(batch.lane, head, tuple(rejections(batch, verdict)))
        else:
            yield Compare(batch.lane, head)

    def _refused(self, order: Order, batches: Sequence[Batch], error: Refused, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if error.signed:
            effects.extend(ClearInFlight(batch.lane) for batch in batches if batch.lane not in self._doubtful)
            if error.code == rests.OLD_SESSION:
                return effects
            if error.code == rests.NEW_SESSION:
                self.welcome = None
                if self._greetings < rests.GREETINGS:
                    return effects
                # It forgets each session at once: two processes answer in turn, or it dies of what is asked.
        else:
            # Somebody on the way may have said it: the peer can have taken the push all the same.
            self._doubtful.update(batch.lane for batch in batches)
        if error.code in rests.ABOUT_CONTENT and isinstance(order, Ship):
            effects.extend(self._suspect(batches, str(error), certain=error.signed))
            if error.signed:
                return effects
        if error.code in rests.MISCONFIGURED:  # straight to the cap: only a person mends it
            self.failures, self._failing_since = max(self.failures, 10), -math.inf
        elif error.code == "busy":
            for batch in batches:
                self._shape(batch.lane).count = 1  # nobody sends megabytes again and again for a no
        return effects + self._down(str(error), now, refused=type(order), most=rests.longest_rest(error))

    def _suspect(self, batches: Sequence[Batch], reason: str, *, certain: bool = False) -> list[Effect]:
        """A push failed at a peer that was reached: close in on what may be poison."""
        for batch in batches:
            self._shape(batch.lane).suspect = True
        if len(batches) != 1:
            return []
        batch = batches[0]
        shape = self._shape(batch.lane)
        if len(batch.entries) > 1:
            shape.count = max(1, len(batch.entries) // 2)
            return []
        sequence = batch.entries[0].sequence
        if shape.alone != sequence:
            shape.alone, shape.tries, shape.proof = sequence, 0, self.accepted
        shape.tries += 1
        if certain or (shape.tries >= 3 and self.accepted > shape.proof):
            shape.alone, shape.tries = -1, 0
            return [DeadLetter(batch.lane, sequence, f"the peer fails on this message alone: {reason}")]
        return []

    def _landed(self, ship: Ship) -> None:
        self._pushes -= 1
        self._busy.difference_update(lane for lane, _ in ship.lanes)

    def _alive(self, answered: type[Order]) -> list[Effect]:
        self.rest_until, self._late_at, self._greetings = 0.0, 0.0, 0
        if self.down_reason is None:
            return []
        if self._refused_kind not in (None, answered):
            self._tested = True
            return []
        self.down_reason, self._refused_kind = None, None
        return [PeerUp()]

    def _down(
        self, reason: str, now: float, *, refused: type[Order] | None = None, most: float = math.inf
    ) -> list[Effect]:
        self._failing_since = self._failing_since if self.failures else now
        self.failures += 1
        self._tested = False
        self._refused_kind = refused if refused in (Ship, Collect) else None
        backoff = self.settings.backoff if self.answered else self.settings.backoff.before_contact()
        rest = min(backoff.delay(self.failures, self._rng, now - self._failing_since), most)
        if any(1 < shape.count < self.settings.first_count // 8 for shape in self._shapes.values()):
            rest = min(rest, self.settings.backoff.first)  # closing in on a poisonous delivery
        self.rest_until = max(self.rest_until, now + rest)
        self._late_at = max(self.rest_until, now + rests.LATE)
        known, self.down_reason = self.down_reason, reason
        return [] if known is not None else [PeerDown(reason)]

    def unreachable(self, error: Exception, now: float) -> list[Effect]:
        """Something asked beside the orders did not reach the peer."""
        return self._down(str(error), now)


__all__ = ["Link", "LinkSettings"]
