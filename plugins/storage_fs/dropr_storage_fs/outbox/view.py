"""Looking into the outbox.

Owns what people and the node ask for: list, counts, peers. Changes nothing.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Delivery, PeerState, Selection
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, StoreId
from dropr_core.model.states import ENDED
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.engine.run import NO_BODY
from dropr_storage_fs.files.layout import DUPLICATE, RECEIPT, Record
from dropr_storage_fs.files.segment import Place
from dropr_storage_fs.outbox.changes import flags_of
from dropr_storage_fs.outbox.lane_reader import LaneReader
from dropr_storage_fs.outbox.remembered import PastDeliveries, PastDelivery
from dropr_storage_fs.outbox.retention import Retention
from dropr_storage_fs.outbox.rows import DeliveryRecord, LaneState
from dropr_storage_fs.outbox.state import OutboxState

Cursor = tuple[int, int]
"""Lane and place."""
PAST = ENDED | {State.ACCEPTED}
"""States in which a delivery may stand in a run."""
_Row = tuple[int, Delivery, Place | None]
"""Place, what is shown, and where it stands in the log if it is queued."""


class OutboxView:
    """What does not change anything."""

    def __init__(
        self,
        engine: Engine[OutboxState],
        context: Context,
        lanes: LaneReader,
        retention: Retention,
        remembered: PastDeliveries,
    ) -> None:
        self._engine, self._context, self._lanes = engine, context, lanes
        self._retention, self._remembered = retention, remembered
        self._seen: dict[MessageId, tuple[int, Place]] = {}
        """Where the queued deliveries of the last page stand: who walks through all of them asks for each one's
        bytes."""

    def store_id(self) -> StoreId:
        """The id under which peers know this half now."""
        return self._engine.read(lambda state: state.store)

    # ── one message ──────────────────────────────────────────────────────────────────────────────

    def _show(self, state: OutboxState, known: DeliveryRecord, until: float | None = None) -> Delivery:
        lane = state.numbers[known.number]
        since = known.changed if known.over else known.born
        if until is None and known.over:
            until = self._retention.forgotten_at(lane, known)
        return Delivery(
            MessageId(known.id), lane.lane.peer, lane.lane.channel, lane.lane.priority, known.state,
            lane.sequence(known.place), max(0.0, self._context.clock.now() - since), known.size, known.reason,
            known.result, known.result_type, known.receipt, bool(known.flags & DUPLICATE), known.born, until,
        )  # fmt: skip

    def _show_past(self, state: OutboxState, past: PastDelivery) -> Delivery:
        return self._show(state, past.record, past.found.until)

    def _show_queued(self, state: OutboxState, lane: LaneState, record: Record) -> Delivery:
        flags = flags_of(lane, record)
        return Delivery(
            MessageId(record.id), lane.lane.peer, lane.lane.channel, lane.lane.priority, State.QUEUED,
            lane.sequence(record.sequence), max(0.0, self._context.clock.now() - record.born), len(record.envelope),
            receipt=bool(flags & RECEIPT), possible_duplicate=bool(flags & DUPLICATE), sent=record.born,
            until=state.due.get((lane.number, record.sequence)),
        )  # fmt: skip

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

        def job(state: OutboxState) -> bytes | None:
            for known in state.by_id.get(message_id, ()):
                if self._retention.body_is_kept(state.numbers[known.number], known):
                    record = self._engine.log(known.number).reader.record_at(known.at)
                    if record is not None:
                        return record.envelope
            for past in self._remembered.named(state, message_id):
                record = self._body(past)
                if record is not None:
                    return record.envelope
            seen = self._seen.get(message_id)
            if seen is not None and (lane := state.numbers.get(seen[0])) is not None:
                record = self._engine.log(seen[0]).reader.record_at(seen[1])
                if record is not None and record.id == message_id and lane.queued(record.sequence):
                    return record.envelope
            queued = self._lanes.find_queued(state, message_id)
            return next((record.envelope for _, record, _ in queued), None)

        return self._engine.read(job)

    def _body(self, past: PastDelivery) -> Record | None:
        at = past.record.at
        return None if at.segment == NO_BODY else self._engine.log(past.record.number).reader.record_at(at)

    # ── many ─────────────────────────────────────────────────────────────────────────────────────

    def chosen(self, state: OutboxState, selection: Selection) -> list[DeliveryRecord]:
        """The deliveries with a state of their own that are meant; inside a job."""
        if selection.ids:
            pool = [known for identity in selection.ids for known in state.by_id.get(identity, ())]
        else:
            pool = [known for lane in state.numbers.values() for known in lane.known.values()]
        return [known for known in pool if selection.means(self._show(state, known))]

    def chosen_past(self, state: OutboxState, selection: Selection) -> Iterator[PastDelivery]:
        """Those that are meant of the deliveries that are not in memory; inside a job."""
        pool: Iterable[PastDelivery]
        if selection.ids:
            pool = [one for identity in selection.ids for one in self._remembered.named(state, identity)]
        else:
            lanes = [state.numbers[number] for number in sorted(state.numbers)]
            pool = (one for lane in lanes for one in self._remembered.of_lane(state, lane, 0))
        return (one for one in pool if selection.means(self._show_past(state, one)))

    def scan(self, selection: Selection, after: Cursor, limit: int) -> list[tuple[Cursor, Delivery]]:
        """A page of deliveries and the cursor of each."""

        def job(state: OutboxState) -> list[tuple[Cursor, Delivery]]:
            if selection.ids:
                named = (row for row in self._named(state, selection) if row[0] > after)
                return list(itertools.islice(named, limit))
            out: list[tuple[Cursor, Delivery]] = []
            self._seen.clear()
            for number in sorted(state.numbers):
                if number < after[0] or len(out) >= limit:
                    continue
                lane = state.numbers[number]
                start = after[1] if number == after[0] else 0
                for place, delivery, where in self._all(state, lane, start, selection):
                    if selection.means(delivery):
                        out.append(((number, place), delivery))
                        if where is not None:
                            self._seen[delivery.id] = number, where
                        if len(out) >= limit:
                            break
            return out

        return self._engine.read(job)

    def _named(self, state: OutboxState, selection: Selection) -> list[tuple[Cursor, Delivery]]:
        """Those of the ids that a selection names, which are looked up."""
        out = []
        for identity in dict.fromkeys(selection.ids):
            for known in state.by_id.get(identity, ()):
                out.append(((known.number, known.place), self._show(state, known)))
            for past in self._remembered.named(state, identity):
                out.append(((past.record.number, past.record.place), self._show_past(state, past)))
            for lane, record, _ in self._lanes.find_queued(state, identity):
                out.append(((lane.number, record.sequence), self._show_queued(state, lane, record)))
        return sorted((row for row in out if selection.means(row[1])), key=lambda row: row[0])

    def _all(self, state: OutboxState, lane: LaneState, after: int, selection: Selection) -> Iterator[_Row]:
        """Every delivery of a lane beyond a place, in order."""
        if selection.channel not in {None, lane.lane.channel} or selection.peer not in {None, lane.lane.peer}:
            return
        sources = [self._in_memory(state, lane, after)]
        if not selection.live and (not selection.states or selection.states & PAST):
            sources.append(self._in_runs(state, lane, after))
        if (not selection.states or State.QUEUED in selection.states) and self._lanes.depth(lane)[0] > 0:
            sources.append(self._queued(state, lane, after))
        yield from heapq.merge(*sources, key=lambda row: row[0])

    def _in_memory(self, state: OutboxState, lane: LaneState, after: int) -> Iterator[_Row]:
        for place in sorted(place for place in lane.known if place > after):
            yield place, self._show(state, lane.known[place]), None

    def _in_runs(self, state: OutboxState, lane: LaneState, after: int) -> Iterator[_Row]:
        for past in self._remembered.of_lane(state, lane, after):
            yield past.record.place, self._show_past(state, past), None

    def _queued(self, state: OutboxState, lane: LaneState, after: int) -> Iterator[_Row]:
        for record, where in self._lanes.records(lane, max(after, lane.head)):
            if lane.queued(record.sequence):
                yield record.sequence, self._show_queued(state, lane, record), where

    def peers(self) -> Mapping[str, PeerState]:
        """Every peer that a delivery was ever sent to, or that is held."""

        def job(state: OutboxState) -> dict[str, PeerState]:
            sums = {name: [0, 0, 0] for name in state.peers}
            for lane in state.numbers.values():
                depth, size = self._lanes.depth(lane)
                mine = sums[lane.lane.peer]
                mine[0] += depth
                mine[1] += size
                mine[2] += lane.awaiting
            out = {}
            for name, peer in state.peers.items():
                waiting, size, awaiting = sums[name]
                out[name] = PeerState(peer.held, peer.reason, waiting, size, awaiting, peer.log, peer.cursor)
            return out

        return self._engine.read(job)

    def counts(self) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """(peer, channel) → state → number, and ``sent`` ever; kept, not counted."""

        def job(state: OutboxState) -> dict[tuple[str, str], Counter[str]]:
            out: dict[tuple[str, str], Counter[str]] = {}
            for lane in state.numbers.values():
                mine = out.setdefault((lane.lane.peer, lane.lane.channel), Counter())
                mine["sent"] += self._engine.end(lane.number).count - lane.redriven
                mine["queued"] += self._lanes.depth(lane)[0]
                for name, count in lane.tally.items():
                    mine[str(name)] += count
            return out

        return self._engine.read(job)
