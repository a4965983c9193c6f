"""Contract tests of the two tiers: what a storage overrides says and does what the default says and does.

Owns one store with something of everything in it, and the comparison of each method of the second tier: the answers
on the same store, the changes on two stores that were led through the same life. Must not know any storage by name.
"""

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from dropr_core.contracts.storage import (
    Ack,
    Bury,
    Claim,
    Delivery,
    DeliveryMove,
    JobInfo,
    JobMove,
    Rejection,
    Release,
    Selection,
    Storage,
)
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import MessageId, StoreId, first_rank
from dropr_core.system.clock import FakeClock
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import CHANNEL, LANE, PEER, Source, Worker, job, outgoing, taken
from dropr_core.testing.essentials import Essentials
from dropr_core.testing.id_lists import named

LOG = StoreId(b"log----1")
LIFE = 1000.0
ATTEMPTS = {CHANNEL: 2}
LOOKS = 5
"""Sweeps after which nothing may be due at once."""
Change = Callable[["World", Storage], Any]


def identity(number: int) -> MessageId:
    """The same ids in every store."""
    return MessageId(number.to_bytes(16, "big"))


def only(*states: State) -> Selection:
    """What stands in one of these states."""
    return Selection(states=frozenset(states))


class World:
    """The same life in several stores: deliveries and messages in every state there is."""

    def __init__(self, storages: list[Storage], clock: FakeClock) -> None:
        self.storages, self.clock = storages, clock
        self.claims: dict[int, list[Claim]] = {}
        self.workers: dict[int, list[Worker]] = {}
        for storage in storages:
            self._send(storage)
        clock.advance(10)
        for storage in storages:
            self._end(storage)
            self._arrive(storage)
        clock.advance(10)
        for storage in storages:
            self._consume(storage)
        clock.advance(5)

    def _send(self, storage: Storage) -> None:
        receipts = [outgoing(b"receipt %d" % n, id=identity(n), receipt=True) for n in range(1, 9)]
        dated = [outgoing(b"dated", id=identity(n), expires_in=20.0 + 40 * (n % 2)) for n in range(9, 13)]
        others = [outgoing(b"both", id=identity(20), peers=(PEER, "other"), receipt=True), outgoing(id=identity(21)),
                  outgoing(id=identity(22), channel="b", fingerprint=b"own", receipt=True),
                  outgoing(id=identity(23), peers=("held",))]  # fmt: skip
        storage.outbox.append([*receipts, *dated, *others])
        storage.outbox.hold("held", "moving house")

    def _end(self, storage: Storage) -> None:
        outbox, after = storage.outbox, taken(storage.outbox, count=5).upto
        outbox.settle(LANE, after, [Rejection(2, "not_allowed", "no")])
        outbox.receipts(PEER, LOG, [Outcome(1, identity(1), State.PROCESSED)], 1)
        waiting = {delivery.id: delivery for _, delivery in outbox.scan(only(State.QUEUED), limit=1000)}
        ends = [(7, State.DEAD), (8, State.CANCELLED), (11, State.EXPIRED), (6, State.DEAD)]
        moves = [DeliveryMove(waiting[identity(number)], to, "by hand") for number, to in ends]
        assert outbox.move(moves) == [True] * len(moves)
        taken(outbox, count=1)  # under way

    def _arrive(self, storage: Storage) -> None:
        keys = ["k", "k", "k"] if "ordering_key" in storage.abilities else [None] * 3
        jobs = [job(b"job %d" % n, id=identity(n), receipt=True) for n in range(30, 38)]
        jobs += [job(b"keyed", id=identity(38 + n), key=key) for n, key in enumerate(keys)]
        Source(storage.inbox).push(*jobs)
        late = [job(id=identity(50), due_in=30.0), job(id=identity(51), due_in=200.0, rank=first_rank(3) + 1),
                job(id=identity(52))]  # fmt: skip
        dated = [job(id=identity(60 + n), expires_in=20.0 + 40 * n, receipt=True) for n in range(3)]
        Source(storage.inbox, "b", 3).push(*late, *dated)

    def _consume(self, storage: Storage) -> None:
        stays, dies = Worker(storage.inbox), Worker(storage.inbox)
        done, buried, back, again, *_kept = mine = stays.claim(5)
        storage.inbox.settle([Ack(done, keep=60.0), Bury(buried, "bad"), Release(back, 40.0, "error"), Release(again)])
        self.workers[id(storage)] = [stays, dies]
        self.claims[id(storage)] = [*mine, *dies.claim(2)]

    def halves(self, storage: Storage) -> tuple[Worker, Worker, list[Claim]]:
        """The consumer that stays, the one that may die, and what was given to them."""
        stays, dies = self.workers[id(storage)]
        return stays, dies, self.claims[id(storage)]


def seen(storage: Storage) -> list[object]:
    """Everything that a store shows, without the words of reasons and the names that differ by chance."""
    sent = [attrs.evolve(d, reason="") for _, d in storage.outbox.scan(Selection(), limit=1000)]
    came = [attrs.evolve(i, reason="", token=b"", consumer="") for i in storage.inbox.scan(Selection(), limit=1000)]
    lanes = sorted(storage.outbox.lanes(), key=lambda stats: stats.lane)
    return [*sorted(sent, key=_delivery), *sorted(came, key=_job), *lanes, dict(storage.outbox.peers())]


def _delivery(one: Delivery) -> Any:
    return (one.id, one.peer, one.channel)


def _job(one: JobInfo) -> int:
    return one.number


def told(counts: Any) -> dict[Any, dict[str, int]]:
    """Counts without zeros, and without what only grows: a storage need not keep it."""
    ever = {"sent", "processed"}
    shown = {at: {name: n for name, n in each.items() if n and name not in ever} for at, each in counts.items()}
    return {at: each for at, each in shown.items() if each}


def due(world: World, storage: Storage, names: list[str]) -> float | None:
    """When somebody has to look; that it was long ago makes no difference."""
    found = storage.inbox.next_due(names)
    return None if found is None else max(found, world.clock.now())


ANSWERS: dict[str, Change] = {
    "status": lambda _, s: [
        sorted(s.outbox.status(identity(n)), key=_delivery) for n in (1, 2, 6, 9, 11, 20, 22, 23, 99)
    ],
    "outbox counts": lambda _, s: told(s.outbox.counts()),
    "job status": lambda _, s: [s.inbox.status(identity(n)) for n in (30, 31, 32, 33, 34, 38, 39, 50, 60, 99)],
    "holds": lambda world, s: [s.inbox.holds(claim) for claim in world.claims[id(world.storages[0])]],
    "next_due": lambda w, s: [due(w, s, names) for names in ([CHANNEL], ["b"], [CHANNEL, "b"], ["none"], [])],
    "find": lambda _, s: [s.inbox.find(n) for n in range(20)],
    "peek": lambda _, s: [
        s.inbox.peek(channel, state) for channel in (CHANNEL, "b", "none")
        for state in (State.READY, State.DELAYED, State.BURIED)
    ],
    "inbox counts": lambda _, s: told(s.inbox.counts()),
    "oldest": lambda _, s: dict(s.inbox.oldest()),
    "urgent": lambda _, s: dict(s.inbox.urgent()),
}  # fmt: skip
"""What changes nothing: the storage's answer and the default's, on the same store."""


def _sweeps(world: World, storage: Storage) -> Iterator[Any]:
    for _ in range(3):
        yield _swept(world, storage)


def _swept(world: World, storage: Storage) -> Any:
    """What ended, and when something is due next. A half that says "now" is asked again, as a node does: what it looked
    at may have gone by itself (out of memory, when it was flushed in the background) before it was moved.
    """
    now, ended = world.clock.now(), list[MessageId]()
    due: float | None = now
    due_inbox: float | None = now
    for _ in range(LOOKS):
        if due is not None and due <= now:
            more, due = storage.outbox.sweep(LIFE)
            ended += more
        if due_inbox is not None and due_inbox <= now:
            due_inbox = storage.inbox.sweep()
    return sorted(ended), due, due_inbox


def _reaped(world: World, storage: Storage) -> Any:
    inner = storage.inner if isinstance(storage, Essentials) else storage
    storage.inbox.consumers.release(world.halves(inner)[1].name)
    return storage.inbox.reap(ATTEMPTS)[1], storage.inbox.reap(ATTEMPTS)


def _retired(world: World, storage: Storage) -> None:
    inner = storage.inner if isinstance(storage, Essentials) else storage
    for worker in world.halves(inner)[:2]:
        storage.inbox.retire(worker.name)


def _not_offered(_: World, storage: Storage) -> Any:
    storage.outbox.clear_in_flight(LANE)
    storage.outbox.clear_in_flight(LANE._replace(peer="stranger"))
    return storage.outbox.cancel(taken(storage.outbox, mark_in_flight=False).entries[0].id)


def _released(_: World, storage: Storage) -> None:
    storage.outbox.release("held")
    storage.outbox.release("stranger")


def _dead_lettered(_: World, storage: Storage) -> None:
    for sequence in (3, 9, 10, 99):
        storage.outbox.dead_letter(LANE, sequence, "poison")


def _acknowledged(world: World, storage: Storage) -> Any:
    inner = storage.inner if isinstance(storage, Essentials) else storage
    return storage.inbox.acknowledge(world.halves(inner)[2], 30.0)


CHANGES: dict[str, Change] = {
    "clear_in_flight": _not_offered,
    "release": _released,
    "dead_letter": _dead_lettered,
    "cancel": lambda _, s: [s.outbox.cancel(identity(n)) for n in (1, 2, 5, 8, 9, 12, 20, 21, 99)],
    "cancel for a peer": lambda _, s: s.outbox.cancel(identity(20), ["other"]),
    "redrive": lambda _, s: s.outbox.redrive(Selection()),
    "redrive some": lambda _, s: s.outbox.redrive(only(State.DEAD, State.QUEUED)),
    "redrive what lives": lambda _, s: s.outbox.redrive(only(State.QUEUED)),
    "wipe": lambda _, s: (s.outbox.wipe(Selection()), s.inbox.wipe(Selection())),
    "wipe some": lambda _, s: (s.outbox.wipe(only(State.DEAD)), s.inbox.wipe(only(State.BURIED))),
    "wipe what lives": lambda _, s: (s.outbox.wipe(only(State.QUEUED)), s.inbox.wipe(only(State.READY))),
    "sweep": lambda world, s: list(_sweeps(world, s)),
    "acknowledge": _acknowledged,
    "retire": _retired,
    "reap": _reaped,
    "kick": lambda _, s: s.inbox.kick(Selection()),
    "kick some": lambda _, s: s.inbox.kick(only(State.BURIED, State.READY)),
    "kick what is ready": lambda _, s: s.inbox.kick(only(State.READY)),
    "bury": lambda _, s: [s.inbox.bury(identity(n), "no") for n in (30, 33, 34, 35, 39, 50, 60, 99)],
}
"""What changes something: by the storage in one store, by the default in another; results and stores are equal."""
MOMENTS = [(what, later) for what in CHANGES for later in ((0.0, 20.0, 2000.0) if what == "sweep" else (0.0,))]
"""Each of them, and how many seconds later; what a sweep does depends on it."""


class StorageTiersContract(StorageTests):
    """What a storage overrides of the second tier must do."""

    @pytest.mark.parametrize("what", ANSWERS)
    def test_an_override_answers_as_the_default(self, bench: Bench, what: str) -> None:
        """What a storage tells faster is what `scan` tells."""
        storage = bench.open("one", keep_sent={CHANNEL: 50.0})
        world = World([storage], bench.clock)
        for _ in range(3):
            assert ANSWERS[what](world, storage) == ANSWERS[what](world, Essentials(storage))
            bench.clock.advance(20)

    @pytest.mark.parametrize(("what", "later"), MOMENTS)
    def test_an_override_changes_what_the_default_changes(self, bench: Bench, what: str, later: float) -> None:
        """What a storage does faster is what `scan` and `move` do."""
        one, two = bench.open("one", keep_sent={CHANNEL: 50.0}), bench.open("two", keep_sent={CHANNEL: 50.0})
        world = World([one, two], bench.clock)
        assert seen(one) == seen(two)
        bench.clock.advance(later)
        assert CHANGES[what](world, one) == CHANGES[what](world, Essentials(two))
        assert seen(one) == seen(two)

    @pytest.mark.parametrize("tier", [1, 2])
    def test_what_expires_with_others_of_its_key_ends_too(self, storage: Storage, bench: Bench, tier: int) -> None:
        """One sweep ends all of a key that are due, though the end of the first makes the next one ready."""
        if "ordering_key" not in storage.abilities:
            pytest.skip("this storage has no ordering keys, and says so")
        Source(storage.inbox).push(*(job(key="k", expires_in=10.0, receipt=True) for _ in range(3)))
        bench.clock.advance(11)
        (storage if tier == 2 else Essentials(storage)).inbox.sweep()
        left = [info.id for info in storage.inbox.scan(Selection()) if info.state is not State.EXPIRED]
        assert not left, f"expired, and still waiting after a sweep: {named(left)}"

    def test_a_move_of_what_stands_otherwise_is_refused(self, storage: Storage, bench: Bench) -> None:
        """A delivery or message that changed since it was seen, or may not go there, stays as it is."""
        world = World([storage], bench.clock)
        before = {d.id: d for _, d in storage.outbox.scan(Selection(peer=PEER), limit=1000)}
        jobs = {info.id: info for info in storage.inbox.scan(Selection(), limit=1000)}
        storage.outbox.settle(LANE, taken(storage.outbox).upto)
        world.halves(storage)[0].claim(1)
        shown = seen(storage)
        stale = [DeliveryMove(before[identity(n)], State.DEAD) for n in (9, 10, 20)]
        wrong = [DeliveryMove(before[identity(4)], None), DeliveryMove(before[identity(4)], State.CANCELLED),
                 DeliveryMove(before[identity(8)], State.QUEUED), DeliveryMove(before[identity(1)], State.QUEUED),
                 ]  # fmt: skip
        assert storage.outbox.move([*stale, *wrong]) == [False] * 7
        leased = [info for info in storage.inbox.scan(only(State.LEASED)) if jobs[info.id].state is State.READY]
        moves = [JobMove(jobs[leased[0].id], State.BURIED), JobMove(leased[0], None),
                 JobMove(jobs[identity(30)], State.READY), JobMove(leased[0], State.EXPIRED)]  # fmt: skip
        assert storage.inbox.move(moves) == [False] * 4
        assert seen(storage) == shown


__all__ = ["StorageTiersContract"]
