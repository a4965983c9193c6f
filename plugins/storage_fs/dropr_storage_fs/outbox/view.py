"""Looking into the outbox.

Owns what people and the node ask for: status, list, counts, peers. Changes nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Delivery, PeerState, Selection
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, StoreId
from dropr_core.model.states import ENDED
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.files.layout import DUPLICATE, RECEIPT, Record
from dropr_storage_fs.files.log_recovery import Place
from dropr_storage_fs.outbox.rows import Known, LaneState
from dropr_storage_fs.outbox.ship import mark
from dropr_storage_fs.outbox.state import OutboxState


class ViewPart:
    """What does not change anything."""

    _half: Half
    _context: Context
    records: Any
    depth: Any
    _queued_by_id: Any
    _seen: dict[MessageId, tuple[int, Place]]
    """Where the queued deliveries of the last page stand: who walks through all of them asks for each one's bytes."""

    @property
    def store_id(self) -> StoreId:
        """The id under which peers know this half now."""
        return self._half.look(lambda: StoreId(self._half.state.store))

    def _show(self, known: Known) -> Delivery:
        lane = self._half.state.numbers[known.number]
        since = known.changed if known.state in ENDED else known.born
        return Delivery(
            MessageId(known.id), lane.lane.peer, lane.lane.channel, lane.lane.priority, known.state,
            lane.sequence(known.place),
            max(0.0, self._context.clock.now() - since), known.size, known.reason, known.result, known.result_type,
            known.receipt, bool(known.flags & DUPLICATE),
        )  # fmt: skip

    def _show_queued(self, lane: LaneState, record: Record) -> Delivery:
        flags = mark(lane, record)
        return Delivery(
            MessageId(record.id), lane.lane.peer, lane.lane.channel, lane.lane.priority, State.QUEUED,
            lane.sequence(record.sequence), max(0.0, self._context.clock.now() - record.born), len(record.envelope),
            receipt=bool(flags & RECEIPT),
            possible_duplicate=bool(flags & DUPLICATE),
        )  # fmt: skip

    def chosen(self, selection: Selection) -> list[Known]:
        """The known deliveries that are meant."""
        state: OutboxState = self._half.state
        if selection.ids:
            pool = [known for identity in selection.ids for known in state.by_id.get(identity, ())]
        else:
            pool = [known for lane in state.numbers.values() for known in lane.known.values()]
        return [known for known in pool if meant(selection, self._show(known))]

    def status(self, message_id: MessageId) -> list[Delivery]:
        """All that is known of a message's deliveries."""

        def job() -> list[Delivery]:
            found = [self._show(known) for known in self._half.state.by_id.get(message_id, ())]
            found += [self._show_queued(lane, record) for lane, record, _ in self._queued_by_id(message_id)]
            return sorted(found, key=lambda delivery: delivery.peer)

        return self._half.look(job)

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

        def job() -> bytes | None:
            for known in self._half.state.by_id.get(message_id, ()):
                record = self._half.log(known.number).record_at(known.at)
                if record is not None:
                    return record.envelope
            seen = self._seen.get(message_id)
            if seen is not None and (lane := self._half.state.numbers.get(seen[0])) is not None:
                record = self._half.log(seen[0]).record_at(seen[1])
                if record is not None and record.id == message_id and lane.queued(record.sequence):
                    return record.envelope
            return next((record.envelope for _, record, _ in self._queued_by_id(message_id)), None)

        return self._half.look(job)

    def scan(
        self, selection: Selection, after: tuple[int, int] = (0, 0), limit: int = 100
    ) -> list[tuple[tuple[int, int], Delivery]]:
        """A page of deliveries and the cursor of each, by lane and place."""

        def job() -> list[tuple[tuple[int, int], Delivery]]:
            out: list[tuple[tuple[int, int], Delivery]] = []
            state: OutboxState = self._half.state
            self._seen.clear()
            for number in sorted(state.numbers):
                if number < after[0] or len(out) >= limit:
                    continue
                lane = state.numbers[number]
                start = after[1] if number == after[0] else 0
                for place, delivery, where in self._all(lane, start, selection):
                    if meant(selection, delivery):
                        out.append(((number, place), delivery))
                        if where is not None:
                            self._seen[delivery.id] = number, where
                        if len(out) >= limit:
                            break
            return out

        return self._half.look(job)

    def _all(self, lane: LaneState, after: int, selection: Selection) -> Iterator[tuple[int, Delivery, Place | None]]:
        """Every delivery of a lane beyond a place, in order."""
        if selection.channel not in {None, lane.lane.channel} or selection.peer not in {None, lane.lane.peer}:
            return
        places = sorted(place for place in lane.known if place > after)
        at = 0
        if (not selection.states or State.QUEUED in selection.states) and self.depth(lane)[0] > 0:
            for record, where in self.records(lane, max(after, lane.head), self._half.log(lane.number).end):
                while at < len(places) and places[at] <= record.sequence:
                    yield places[at], self._show(lane.known[places[at]]), None
                    at += 1
                if lane.queued(record.sequence):
                    yield record.sequence, self._show_queued(lane, record), where
        for place in places[at:]:
            yield place, self._show(lane.known[place]), None

    def peers(self) -> Mapping[str, PeerState]:
        """Every peer that a delivery was ever sent to, or that is held."""

        def job() -> dict[str, PeerState]:
            state: OutboxState = self._half.state
            sums = {name: [0, 0, 0] for name in state.peers}
            for lane in state.numbers.values():
                depth, size = self.depth(lane)
                mine = sums[lane.lane.peer]
                mine[0] += depth
                mine[1] += size
                mine[2] += lane.awaiting
            out = {}
            for name, peer in state.peers.items():
                waiting, size, awaiting = sums[name]
                out[name] = PeerState(peer.held, peer.reason, waiting, size, awaiting, peer.log, peer.cursor)
            return out

        return self._half.look(job)

    def counts(self) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """(peer, channel) → state → number, and ``sent`` ever; kept, not counted."""

        def job() -> dict[tuple[str, str], Counter[str]]:
            out: dict[tuple[str, str], Counter[str]] = {}
            state: OutboxState = self._half.state
            for lane in state.numbers.values():
                mine = out.setdefault((lane.lane.peer, lane.lane.channel), Counter())
                mine["sent"] += self._half.log(lane.number).end.count - lane.redriven
                mine["queued"] += self.depth(lane)[0]
                for name, count in lane.tally.items():
                    mine[str(name)] += count
            return out

        return self._half.look(job)


def meant(selection: Selection, delivery: Delivery) -> bool:
    """Whether a delivery is of a selection."""
    return (
        (not selection.ids or delivery.id in selection.ids)
        and (not selection.states or delivery.state in selection.states)
        and selection.channel in {None, delivery.channel}
        and selection.peer in {None, delivery.peer}
        and (selection.older_than is None or delivery.age >= selection.older_than)
    )
