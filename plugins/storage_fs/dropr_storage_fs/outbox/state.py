"""What the outbox knows in memory: lanes, and of deliveries only those that are not simply queued.

Owns these values and their counts. A delivery that just waits is nowhere but in its lane's log. Must not know files,
nor how a change is written down.
"""

from collections import Counter
from collections.abc import Iterable

from dropr_core.model.message import State
from dropr_core.model.names import Lane
from dropr_storage_fs.engine.run import Counts
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.outbox.retention import Retention
from dropr_storage_fs.outbox.rows import PLACE_BITS, DeliveryRecord, LaneState, OwnId, Peer


class OutboxState(HalfState):
    """See module."""

    def __init__(self, retention: Retention) -> None:
        super().__init__()
        self._retention = retention
        self.lanes: dict[Lane, LaneState] = {}
        self.numbers: dict[int, LaneState] = {}
        self.by_id: dict[bytes, list[DeliveryRecord]] = {}
        self.peers: dict[str, Peer] = {}
        self.own: dict[bytes, OwnId] = {}
        self.due: dict[tuple[int, int], float] = {}
        """(lane, place) → when a queued delivery expires."""
        self.staged: dict[str, int] = {}
        """Staging log → up to where it is taken in."""
        self.settled = self.settled_bytes = 0
        """Deliveries in memory that are over, and bytes of their results: they go into a run when there are many."""

    def logs(self) -> Iterable[int]:
        """The numbers of all lanes."""
        return list(self.numbers)

    def peer(self, name: str) -> Peer:
        """What is kept about a peer, from now on."""
        return self.peers.setdefault(name, Peer())

    def alive(self, number: int, place: int) -> bool:
        """Whether a delivery is queued, or awaited."""
        lane = self.numbers[number]
        record = lane.known.get(place)
        return lane.queued(place) if record is None else not record.over

    # ── deliveries with a state of their own ─────────────────────────────────────────────────────

    def add(self, record: DeliveryRecord) -> None:
        """A delivery has a state of its own from now on."""
        lane = self.numbers[record.number]
        self.remove(lane, record.place)
        lane.known[record.place] = record
        self.by_id.setdefault(record.id, []).append(record)
        self._count(lane, record, 1)
        lane.requeued.discard(record.place)
        lane.voids.discard(record.place)
        self.due.pop((record.number, record.place), None)

    def remove(self, lane: LaneState, place: int) -> DeliveryRecord | None:
        """It has none any more."""
        record = lane.known.pop(place, None)
        if record is not None:
            self._count(lane, record, -1)
            same = self.by_id[record.id]
            same.remove(record)
            if not same:
                del self.by_id[record.id]
        return record

    def change(
        self, record: DeliveryRecord, to: State, changed: float, reason: str, result: bytes | None, result_type: str
    ) -> None:
        """It has another one."""
        lane = self.numbers[record.number]
        self._count(lane, record, -1)
        record.state, record.changed, record.reason = to, changed, reason
        record.result, record.result_type = result, result_type
        self._count(lane, record, 1)

    def _count(self, lane: LaneState, record: DeliveryRecord, by: int) -> None:
        lane.tally[record.state] += by
        if record.over:
            self.settled += by
            self.settled_bytes += by * record.weight
        if record.state is State.ACCEPTED and record.receipt:
            lane.awaiting += by

    # ── what is remembered in files ──────────────────────────────────────────────────────────────

    def set_down(self, number: int, place: int) -> None:
        """A delivery stands in a run from now on."""
        lane = self.numbers[number]
        self.remove(lane, place)
        if place > lane.head:
            lane.voids.add(place)

    def count_run(self, counts: Counts, by: int, *, forgotten: bool) -> None:  # noqa: ARG002
        """They are counted with those in memory."""
        for number, state, count, _ in counts.states:
            self.numbers[number].tally[state] += by * count

    def remembered_until(self, moment: float) -> float:
        """Of what version 1 of a run has."""
        return self._retention.remembered_until(moment)

    def erase_processed(self, number: int, keys: Iterable[int]) -> None:
        """Some deliveries of a run are forgotten; all that version 1 of a run has were processed."""
        run = self.runs.get(number)
        mine = [] if run is None else list(set(keys) - run.gone)
        for lane, count in Counter(key >> PLACE_BITS for key in mine).items():
            self.erase(number, [key for key in mine if key >> PLACE_BITS == lane],
                       Counts([(lane, State.PROCESSED, count, 0)]), forgotten=True)  # fmt: skip
