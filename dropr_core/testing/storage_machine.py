"""A state machine that leads a storage and the reference model through the same random life.

Owns the rules: what a node and its peer may do to a store (storage_life.py judges). The peer of this node
is the node itself: what leaves the outbox enters the inbox of the same storage, by log matching.
Must not know any storage by name.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from dropr_core.contracts.storage import Ack, Arrival, Bury, Job, NewMessage, Release, Selection
from dropr_core.errors import Conflict
from dropr_core.model.message import State
from dropr_core.model.names import START, Lane, MessageId, SourceLane, first_rank
from dropr_core.protocol.log_matching import HeadRelation, compare_heads
from dropr_core.testing.builders import PEER, SENDER
from dropr_core.testing.checker import digest
from dropr_core.testing.contract import shut
from dropr_core.testing.storage_life import (
    CHANNELS,
    LANES,
    LIFE,
    Fact,
    Kill,
    Lease,
    Open,
    StorageLife,
    machine_settings,
    ready_in,
)

HOW = ["ack", "ack", "keep", "release", "delay", "uncounted", "bury", "sooner", "later"]
SOON, LATE = first_rank(1) + 5, first_rank(5) + 5
ATTEMPTS = {"orders": 3, "b/2": 2}

_spec = st.tuples(
    st.sampled_from(LANES), st.sampled_from([None, None, "k", "m"]), st.booleans(), st.sampled_from([None, None, 30.0]),
    st.sampled_from([None, None, 20.0]), st.booleans(), st.binary(max_size=20), st.sampled_from([None, None, 0, 3, 9]),
)  # fmt: skip
_pick = st.integers(0, 50)


class StorageMachine(StorageLife):
    """Subclass with ``open_storage`` (and ``kill``), or use `run_machine`."""

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    @rule(specs=st.lists(_spec, min_size=1, max_size=4))
    def append(self, specs: list[Any]) -> None:
        """Send some messages in one call."""
        self.calls += 1
        facts = []
        for lane, key, receipt, life, delay, own, body, rank in specs:
            identity = MessageId(len(self.order).to_bytes(16, "big"))
            self.order.append(identity)
            # An own id always asks for a receipt: how long an accepted plain one is kept, and so may be
            # located, is the storage's choice.
            message = NewMessage(
                identity, lane.channel, lane.priority, (PEER,), identity + body, receipt or own, life,
                delay is not None, b"same" if own else None,
            )  # fmt: skip
            facts.append(Fact(message, key, delay, None if rank is None else first_rank(lane.priority) + rank))
        for fact in facts:
            self.facts[fact.message.id] = fact
            self._note("attempted", fact.message.id, digest=digest(fact.message.envelope), batch=self.calls)
        self.same("append", lambda s: s.outbox.append([fact.message for fact in facts]))
        for fact in facts:
            self._note("acknowledged", fact.message.id, batch=self.calls)

    @precondition(lambda self: self.order)
    @rule(pick=_pick, conflict=st.booleans())
    def append_again(self, pick: int, conflict: bool) -> None:
        """Repeat a call with an id of the caller's own, with equal or with other content."""
        fact = self.facts[self.order[pick % len(self.order)]]
        if fact.message.fingerprint is None:
            return
        again = fact.message._replace(fingerprint=b"other") if conflict else fact.message
        fresh = NewMessage(MessageId(b"never" + bytes(11)), "orders", 5, (PEER,), b"never")
        for storage in self.both:
            if not conflict:
                continue
            try:
                storage.outbox.append([fresh, again])
            except Conflict:
                assert storage.outbox.status(fresh.id) == []
            else:
                raise AssertionError("other content under the same id was taken")
        if not conflict:
            assert self.same("append again", lambda s: s.outbox.append([again]))[0].existed

    @precondition(lambda self: self.order)
    @rule(pick=_pick)
    def cancel(self, pick: int) -> None:
        """Take a message back."""
        identity = self.order[pick % len(self.order)]
        self.same("cancel", lambda s: s.outbox.cancel(identity)[0])

    # ── shipping ─────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.model.outbox.lanes())
    @rule(pick=_pick, count=st.integers(1, 5), lost=st.sampled_from([False, False, True]))
    def ship(self, pick: int, count: int, lost: bool) -> None:
        """Push what follows a head; ``lost``: the answer does not come back."""
        lanes = sorted(stats.lane for stats in self.model.outbox.lanes())
        self._ship(lanes[pick % len(lanes)], count, lost=lost)

    @rule(specs=st.lists(_spec, min_size=1, max_size=4), again=st.booleans())
    def send_all(self, specs: list[Any], again: bool) -> None:
        """Send some messages and ship every lane; ``again``: the peer is believed to have lost them."""
        self.append(specs)
        for lane in LANES:
            self._ship(lane, 10, lost=False)
            if again:
                self.rewind(lane)

    def _ship(self, lane: Lane, count: int, *, lost: bool) -> None:
        batch = self.same("take", lambda s: s.outbox.take(lane, count, 10_000))
        if batch is None:
            return
        jobs = []
        ended = {State.BURIED, State.EXPIRED}
        here = {info.id for info in self.model.inbox.scan(Selection(), limit=10_000) if info.state not in ended}
        for entry in batch.entries:
            fact = self.facts[entry.id]
            due, life = fact.delay, fact.message.expires_in
            jobs.append(
                Job(entry.id, entry.envelope, entry.sequence, fact.key, fact.message.receipt,
                    None if due is None else due - entry.age, None if life is None else life - entry.age,
                    entry.possible_duplicate, fact.rank)
            )  # fmt: skip
        arrivals = [
            Arrival(SourceLane(SENDER, s.outbox.store_id, lane.channel, lane.priority), batch.after, batch.upto, jobs)
            for s in self.both
        ]
        self.pushes.append((arrivals[0], arrivals[1]))
        words = [s.inbox.accept([arrival])[0] for s, arrival in zip(self.both, arrivals, strict=True)]
        assert words[0] == words[1], f"accept: storage {words[0]}, model {words[1]}"
        if words[0].taken:
            for job in jobs:
                if job.possible_duplicate and job.id in here:
                    continue  # it stands here and is not queued once more
                self._entered(lane, job.id, job.sequence, flagged=job.possible_duplicate)
        if lost:
            return
        if words[0].taken:
            for storage in self.both:
                storage.outbox.settle(lane, words[0].head)
        else:
            self._compare(lane)

    def _compare(self, lane: Lane) -> None:
        """The heads differ: judge them, and do what the sender's side does."""
        for storage in self.both:
            stats = next((stats for stats in storage.outbox.lanes(PEER) if stats.lane == lane), None)
            if stats is None:
                continue
            source = SourceLane(SENDER, storage.outbox.store_id, lane.channel, lane.priority)
            theirs = storage.inbox.heads(SENDER, storage.outbox.store_id).get(source, START)
            located = storage.outbox.locate(lane, theirs.sequence)
            meaning = compare_heads(theirs, stats.head, stats.last, located)
            if meaning is HeadRelation.AHEAD:
                storage.outbox.settle(lane, theirs)
            elif meaning is HeadRelation.LOST:
                storage.outbox.rewind(lane, theirs)
            elif meaning is HeadRelation.FOREIGN:
                storage.outbox.renumber()

    @precondition(lambda self: self.pushes)
    @rule(pick=_pick)
    def replay(self, pick: int) -> None:
        """A push of the past comes once more: a receiver that has it takes nothing."""
        pair = self.pushes[pick % len(self.pushes)]
        words = [s.inbox.accept([arrival])[0] for s, arrival in zip(self.both, pair, strict=True)]
        assert [word.taken for word in words] == [False, False], "a push was taken twice"

    @rule(lane=st.sampled_from(LANES))
    def probe(self, lane: Lane) -> None:
        """Ask for the peer's head, after a lost answer or without one."""
        self._compare(lane)

    @rule(lane=st.sampled_from(LANES))
    def rewind(self, lane: Lane) -> None:
        """Somebody believes that the peer lost everything of a lane."""
        kept = [d for _, d in self.model.outbox.scan(Selection(channel=lane.channel), limit=10_000)]
        if any(delivery.priority == lane.priority for delivery in kept):
            self.same("rewind", lambda s: s.outbox.rewind(lane, START))

    @rule(really=st.sampled_from([True, False, False, False]))
    def renumber(self, really: bool) -> None:
        """This half believes that it was cloned."""
        for storage in self.both if really else ():
            storage.outbox.renumber()

    @rule(forget=st.booleans())
    def receipts(self, forget: bool) -> None:
        """Fetch the outcomes; ``forget``: from the beginning, as if the cursor were of another log."""
        ended = []
        for storage in self.both:
            state = storage.outbox.peers().get(PEER)
            log, cursor = (None, 0) if forget or state is None else (state.log, state.cursor)
            own, rows = storage.inbox.outcomes(SENDER, log, cursor, 100)
            if rows:
                ended.append(sorted(storage.outbox.receipts(PEER, own, rows, rows[-1].number)))
                if storage is self.storage:
                    for row in rows:
                        self._note("receipted", row.id, state=str(row.state))
        assert ended == [] or ended[0] == ended[-1], f"receipts: storage {ended[0]}, model {ended[-1]}"

    # ── consuming ────────────────────────────────────────────────────────────────────────────────

    @rule(pick=_pick, limit=st.integers(1, 4), channels=st.sampled_from([CHANNELS, CHANNELS[:1], CHANNELS[1:]]))
    def claim(self, pick: int, limit: int, channels: list[str]) -> None:
        """A consumer takes some messages."""
        self._sweep()
        worker = pick % len(self.workers)
        names = self.workers[worker]
        real = self.storage.inbox.claim(channels, limit, names[0])
        modelled = self.model.inbox.claim(channels, limit, names[1])
        facts = [[(c.number, c.id, c.attempt, c.priority, c.rank) for c in claims] for claims in (real, modelled)]
        assert facts[0] == facts[1], "other messages were given"
        for pair in zip(real, modelled, strict=True):
            self.leases.append(Lease(pair, worker))
            self._note("given", pair[0].id, who=names[0], digest=digest(pair[0].envelope))

    @rule(pick=_pick, number=st.integers(0, 60))
    def claim_number(self, pick: int, number: int) -> None:
        """A consumer asks for one given message."""
        self._sweep()
        worker = pick % len(self.workers)
        names = self.workers[worker]
        real = self.storage.inbox.claim_number(number, names[0])
        modelled = self.model.inbox.claim_number(number, names[1])
        facts = [claim and (claim.number, claim.id, claim.attempt, claim.rank) for claim in (real, modelled)]
        assert facts[0] == facts[1], "another message was given"
        if real is not None and modelled is not None:
            self.seen.pop(number, None)
            self.leases.append(Lease((real, modelled), worker))
            self._note("given", real.id, who=names[0], digest=digest(real.envelope))

    @rule(number=st.integers(0, 60), channel=st.sampled_from(CHANNELS))
    def peek(self, number: int, channel: str) -> None:
        """Somebody looks at one message, and at the next of a channel in each state."""
        self._sweep()
        for state in (None, State.READY, State.DELAYED, State.BURIED):
            found = [s.inbox.find(number) if state is None else s.inbox.peek(channel, state) for s in self.both]
            seen = [one and (one.number, one.id, one.state, one.priority, one.rank) for one in found]
            assert seen[0] == seen[1], f"seen: storage {seen[0]}, model {seen[1]}"

    @precondition(lambda self: self.leases)
    @rule(pick=_pick, how=st.sampled_from(HOW))
    def settle(self, pick: int, how: str) -> None:
        """A consumer is done with a message, one way or another."""
        lease = self.leases.pop(pick % len(self.leases))
        self.old.append(lease)
        for storage, claim in zip(self.both, lease.claims, strict=True):
            change = {
                "ack": Ack(claim, b"result", "text/plain"), "keep": Ack(claim, keep=100.0), "bury": Bury(claim, "bad"),
                "release": Release(claim), "delay": Release(claim, 15.0, "error"),
                "uncounted": Release(claim, counted=False), "sooner": Release(claim, rank=SOON),
                "later": Release(claim, rank=LATE),
            }[how]  # fmt: skip
            assert storage.inbox.holds(claim)
            assert storage.inbox.settle([change]) == [True]  # type: ignore[list-item]
            assert not storage.inbox.holds(claim)
        kind = "acked" if how in {"ack", "keep"} else "buried" if how == "bury" else "returned"
        self._note(kind, lease.claims[0].id, who=self.workers[lease.worker][0])
        if how == "bury":
            self.seen[lease.claims[0].number] = State.BURIED

    @precondition(lambda self: self.old)
    @rule(pick=_pick)
    def settle_stale(self, pick: int) -> None:
        """A consumer settles what is no longer its own: nothing changes."""
        lease = self.old[pick % len(self.old)]
        for storage, claim in zip(self.both, lease.claims, strict=True):
            assert storage.inbox.settle([Ack(claim), Bury(claim), Release(claim)]) == [False] * 3

    @rule(specs=st.lists(_spec, min_size=1, max_size=3), how=st.sampled_from(HOW))
    def work(self, specs: list[Any], how: str) -> None:
        """Messages come, a consumer takes some, and settles half of them."""
        self.send_all(specs, again=False)
        self.claim(0, 4, CHANNELS)
        for _ in range((len(self.leases) + 1) // 2):
            self.settle(0, how)

    @precondition(lambda self: self.leases)
    @rule(pick=_pick)
    def take_over(self, pick: int) -> None:
        """A lease ends, another consumer gets the message, and the first one comes back to settle it."""
        lease = self.leases.pop(pick % len(self.leases))
        self.old.append(lease)
        for storage, claim in zip(self.both, lease.claims, strict=True):
            assert storage.inbox.settle([Release(claim)]) == [True]
        self._note("returned", lease.claims[0].id, who=self.workers[lease.worker][0])
        self.claim(lease.worker + 1, 50, CHANNELS)
        self.settle_stale(len(self.old) - 1)

    @rule(pick=_pick, dies=st.booleans())
    def leave(self, pick: int, dies: bool) -> None:
        """A consumer retires, or dies and is reaped."""
        index = pick % len(self.workers)
        self._leave(index, dies=dies and type(self).kill is not None)

    def _leave(self, index: int, *, dies: bool) -> None:
        names = self.workers[index]
        for storage, name in zip(self.both, names, strict=True):
            if not dies:
                storage.inbox.retire(name)
            elif storage is self.model:
                self.model.inbox.consumers.release(name)
            else:
                assert type(self).kill is not None
                type(self).kill(storage, name)  # type: ignore[misc]
        if dies:
            for storage in self.both:
                before = ready_in(storage)
                freed = storage.inbox.reap(ATTEMPTS)[0]
                assert {channel for _, channel in ready_in(storage) - before} <= set(freed), "nobody is told of them"
        states = {info.number: info.state for info in self.storage.inbox.scan(Selection(), limit=10_000)}
        for lease in [lease for lease in self.leases if lease.worker == index]:
            claim = lease.claims[0]
            buried = states.get(claim.number) is State.BURIED
            self._note("buried" if buried else "returned", claim.id, who=names[0])
            if buried:
                self.seen[claim.number] = State.BURIED
            self.leases.remove(lease)
            self.old.append(lease)
        self.workers[index] = (self.storage.inbox.register("w"), self.model.inbox.register("w"))

    # ── care ─────────────────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([1.0, 16.0, 31.0, 101.0, 2000.0]), wall=st.sampled_from([0.0, -86400.0, 3e7]))
    def wait(self, seconds: float, wall: float) -> None:
        """Time passes, and the wall clock does what it likes."""
        self.clock.advance(seconds)
        self.clock.step_wall(wall)
        self._sweep()

    def _sweep(self) -> None:
        self.same("sweep", lambda s: sorted(s.outbox.sweep(LIFE)[0]))
        for storage in self.both:
            storage.inbox.sweep()
        self.look()

    @rule(states=st.sampled_from([frozenset(), frozenset({State.DEAD}), frozenset({State.BURIED, State.DONE})]))
    def wipe(self, states: frozenset[State]) -> None:
        """Forget what ended."""
        before = self._listed()
        for storage in self.both:
            storage.outbox.wipe(Selection(states=states))
        self.same("wipe inbox", lambda s: s.inbox.wipe(Selection(states=states)))
        for identity in before - self._listed():
            self._note("wiped", identity)

    @rule(channel=st.sampled_from([None, *CHANNELS]))
    def mend(self, channel: str | None) -> None:
        """Send the dead again, and kick the buried."""
        self.same("redrive", lambda s: s.outbox.redrive(Selection(channel=channel)))
        self.same("kick", lambda s: s.inbox.kick(Selection(channel=channel, states=frozenset({State.BURIED}))))

    @rule(lane=st.sampled_from(LANES))
    def give_up(self, lane: Lane) -> None:
        """The first delivery of a lane is poison."""
        batch = self.model.outbox.take(lane, 1, 1, mark_in_flight=False)
        if batch is not None:
            for storage in self.both:
                storage.outbox.dead_letter(lane, batch.upto.sequence, "poison")

    @precondition(lambda self: "durable" in self.storage.abilities)
    @rule()
    def reopen(self) -> None:
        """Close, and open again: nothing that was promised may be missing."""
        for index in range(len(self.workers)):
            self._leave(index, dies=False)
        store = self.storage.outbox.store_id
        for storage in self.both:
            for lane in LANES:
                storage.outbox.clear_in_flight(lane)
        shut(self.storage)
        self.storage = type(self).open_storage(self.directory / "data", self.clock)
        assert self.storage.outbox.store_id == store
        self.workers = [(self.storage.inbox.register("w"), names[1]) for names in self.workers]


def run_machine(
    open_storage: Open, kill: Kill | None = None, *, shrink: bool = True, strength: int = 1, examples: int = 30
) -> None:
    """Run the machine over a storage. ``kill``: end a consumer as the death of its process would.

    ``shrink``: look for the shortest life that fails, which takes its time.
    """
    members = {"open_storage": staticmethod(open_storage), "kill": staticmethod(kill) if kill else None}
    machine = type("Machine", (StorageMachine,), members)
    run_state_machine_as_test(machine, settings=machine_settings(shrink=shrink, strength=strength, examples=examples))


__all__ = ["StorageMachine", "machine_settings", "run_machine"]
