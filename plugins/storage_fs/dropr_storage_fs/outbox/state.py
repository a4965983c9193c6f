"""What the outbox knows in memory: lanes, and of deliveries only those that are not simply queued.

Owns these values and their counts. A delivery that just waits is nowhere but in its lane's log. Must not know files,
nor how a change is written down.
"""

from collections.abc import Iterable

from dropr_core.model.message import State
from dropr_core.model.names import Lane
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.outbox.retention import Retention
from dropr_storage_fs.outbox.rows import DeliveryRecord, LaneState, OwnId, Peer, Run


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
        self.runs: dict[int, Run] = {}
        """What is remembered in files, by their numbers."""
        self.settled = 0
        """Deliveries in memory that are merely remembered: they go into a run when there are many."""

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
        if record.state is State.PROCESSED and self._retention.merely_remembered(lane, record):
            self.settled += by
        if record.state is State.ACCEPTED and record.receipt:
            lane.awaiting += by

    # ── what is remembered in files ──────────────────────────────────────────────────────────────

    def set_down(self, record: DeliveryRecord) -> None:
        """A delivery stands in a run from now on."""
        lane = self.numbers[record.number]
        self.remove(lane, record.place)
        if record.place > lane.head:
            lane.voids.add(record.place)

    def use_run(self, run: Run) -> None:
        """A run belongs to what is known."""
        self.runs[run.number] = run
        for number, count in run.processed.items():
            self.numbers[number].tally[State.PROCESSED] += count

    def drop_run(self, number: int) -> None:
        """It does not any more."""
        run = self.runs.pop(number, None)
        if run is not None:
            for lane, count in run.processed.items():
                self.numbers[lane].tally[State.PROCESSED] -= count

    def erase(self, number: int, keys: Iterable[int]) -> None:
        """Some deliveries of a run are forgotten."""
        run = self.runs.get(number)
        if run is not None:
            for key in set(keys) - run.gone:
                run.gone.add(key)
                run.processed[key >> 48] -= 1
                self.numbers[key >> 48].tally[State.PROCESSED] -= 1
