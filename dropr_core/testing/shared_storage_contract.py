"""Contract tests of a storage that several machines share: data directories of their own, one store.

Owns one test for each promise that such a storage makes on top of the contract of storages: nothing of it is kept by
what machines do not share. A machine is a process with a data directory of its own. Must not know any storage by name.
"""

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Arrival, Bury, Claim, Release, Selection, Storage
from dropr_core.model.message import State
from dropr_core.model.names import START, Head
from dropr_core.system.clock import SystemClock
from dropr_core.testing.builders import CHANNEL, LANE, Source, Worker, job, make_context, new_id, outgoing, taken
from dropr_core.testing.contract import Contract, shut
from dropr_core.testing.forks import Child, Say
from dropr_core.testing.likeness import strayed

MANY = 60
SOON = 30.0
"""Seconds within which what a dead consumer held must be ready again. Never a pause."""


@attrs.frozen
class SharedStorageCase:
    """What the tests need to know about such a storage."""

    make: Callable[[Context], Storage]
    """Opens the store, from whichever data directory: all of a test's are the same store, empty at first."""
    session: Callable[[Storage], Any] | None = None
    """Names what keeps the consumers of this process alive at the store's end, by something that JSON can carry."""
    lose: Callable[[Any], None] | None = None
    """Ends what ``session`` named, as a restart of the store would. Without these two some tests are skipped."""

    def drop(self, storage: Storage) -> None:
        """Both in one. Skips the test where the case cannot do it."""
        if self.session is None or self.lose is None:
            pytest.skip("the case cannot end what keeps a consumer alive")
        self.lose(self.session(storage))


class SharedStorageContract(Contract):
    """What a storage that machines share must do. Subclass it and write the fixture `shared_storage_case`."""

    @pytest.fixture
    def shared_storage_case(self) -> SharedStorageCase:
        """Give the tests your storage."""
        raise NotImplementedError("give this class a fixture shared_storage_case")

    @pytest.fixture
    def machine(self, shared_storage_case: SharedStorageCase, tmp_path: Path) -> Any:
        """Opens the store as the machine of a name, also in a child, which need not close it."""
        opened: list[Storage] = []

        def open_as(name: str) -> Storage:
            directory = tmp_path / name
            directory.mkdir(mode=0o700, exist_ok=True)
            storage = shared_storage_case.make(make_context(directory, SystemClock()))
            opened.append(storage)
            return storage

        yield open_as
        for storage in opened:
            shut(storage, self.patience)

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def test_two_machines_number_one_lane(self, machine: Callable[[str], Storage]) -> None:
        """Machines that send into one lane at once share its numbers: no gap, none twice, nothing lost."""

        def work(name: str) -> Callable[[Say], None]:
            def send(say: Say) -> None:
                storage = machine(name)
                for _ in range(MANY):
                    message = outgoing()
                    storage.outbox.append([message])
                    say(message.id.hex())

            return send

        said = _both([work("b"), work("c")])
        entries = taken(machine("a").outbox, LANE, count=100_000).entries
        assert [entry.sequence for entry in entries] == list(range(1, 2 * MANY + 1))
        wrong = strayed(sorted(entry.id.hex() for entry in entries), sorted(said))
        assert not wrong, f"what stands in the lane: {wrong}"

    # ── arriving ─────────────────────────────────────────────────────────────────────────────────

    def test_pushes_of_one_lane_to_two_machines_enter_once(self, machine: Callable[[str], Storage]) -> None:
        """The same parts of a lane, pushed to two machines at once, are queued once, and both know the same head."""
        source = Source(machine("a").inbox)
        arrivals = []
        for _ in range(20):
            arrivals.append(source.arrival(job(), job()))
            source.head = arrivals[-1].upto

        def work(name: str) -> Callable[[Say], None]:
            def push(say: Say) -> None:
                inbox = machine(name).inbox
                for arrival in arrivals:
                    word = inbox.accept([arrival])[0]
                    say([arrival.upto.sequence, word.taken, word.head.sequence >= arrival.upto.sequence])

            return push

        said = _both([work("b"), work("c")])
        unknown = [upto for upto, _, known in said if not known]
        assert not unknown, f"a machine did not know the head of what the other one had taken, up to: {unknown}"
        once = sorted(upto for upto, took, _ in said if took)
        assert not (wrong := strayed(once, [one.upto.sequence for one in arrivals])), f"parts that were taken: {wrong}"
        inbox = machine("a").inbox
        assert inbox.heads("shop") == {source.lane: source.head}
        stored = [info.id for info in inbox.scan(Selection(), limit=1000)]
        assert not (wrong := strayed(stored, [entry.id for one in arrivals for entry in one.entries])), wrong

    def test_what_arrives_together_on_one_of_two_machines_is_whole(self, machine: Callable[[str], Storage]) -> None:
        """Machines that follow the head of one lane at once, each with a lane of its own besides: of those that follow
        the same head one is taken, with both of its lanes; of the others nothing is.
        """
        lane = Source(machine("a").inbox).lane

        def work(name: str) -> Callable[[Say], None]:
            def push(say: Say) -> None:
                inbox = machine(name).inbox
                for number in range(MANY):
                    head = inbox.heads(lane.sender).get(lane, START) if number % 4 else START
                    own = Source(inbox, f"{name}/{number}").arrival(job())
                    shared = Arrival(lane, head, Head(head.sequence + 1, new_id()), [job()])
                    words = inbox.accept_together([own, shared])
                    say([own.source.channel, *(word.taken for word in words)])

            return push

        said = _both([work("b"), work("c")])
        assert not (halves := [name for name, *taken in said if len(set(taken)) > 1]), f"half taken: {halves}"
        whole = [name for name, *taken in said if all(taken)]
        inbox = machine("a").inbox
        heads = inbox.heads(lane.sender)
        assert heads.pop(lane).sequence == len(whole) > 0
        assert not (wrong := strayed(sorted(one.channel for one in heads), sorted(whole))), f"lanes: {wrong}"
        stored = [one.channel for one in inbox.all(Selection()) if one.channel != lane.channel]
        assert not (wrong := strayed(sorted(stored), sorted(whole))), f"messages: {wrong}"

    def test_what_arrives_on_several_machines_is_all_given(self, machine: Callable[[str], Storage]) -> None:
        """Messages that arrive by several machines at once, while others claim, are each given once: none is passed
        over because a later one was stored first.
        """

        def push(name: str) -> Callable[[Say], None]:
            def work(say: Say) -> None:
                source = Source(machine(name).inbox, sender=name)
                for _ in range(MANY):
                    say([one.hex() for one in source.fill(2)])

            return work

        one = machine("a")
        worker, got, said = Worker(one.inbox), list[str](), list[str]()
        children = [Child(push("b")), Child(push("c"))]
        try:
            for child in children:
                child.go()
            running = set(children)
            while running:
                for child in list(running):
                    word = child.hear()
                    if word is None:
                        running.discard(child)
                    else:
                        said += word
                got += _take(one, worker)
        finally:
            for child in children:
                child.close()
        while more := _take(one, worker):
            got += more
        assert not (wrong := strayed(sorted(got), sorted(said))), f"what was given: {wrong}"

    # ── consuming ────────────────────────────────────────────────────────────────────────────────

    def test_machines_share_a_queue(self, machine: Callable[[str], Storage]) -> None:
        """Consumers on two machines get each message once, and their settlements hold."""
        ids = [one.hex() for one in Source(machine("a").inbox).fill(4 * MANY)]

        def work(name: str) -> Callable[[Say], None]:
            def consume(say: Say) -> None:
                storage = machine(name)
                worker = Worker(storage.inbox)
                while claims := worker.claim(3):
                    storage.inbox.reap({})  # who lives elsewhere is left alone
                    say([claim.id.hex() for claim in claims])
                    assert storage.inbox.settle([Ack(claim) for claim in claims]) == [True] * len(claims)

            return consume

        got = [identity for each in _both([work("b"), work("c")]) for identity in each]
        assert not (wrong := strayed(sorted(got), sorted(ids))), f"what the two machines got together: {wrong}"
        assert machine("a").inbox.counts()[CHANNEL]["processed"] == 4 * MANY

    def test_ordering_keys_hold_over_machines(self, machine: Callable[[str], Storage]) -> None:
        """Never two messages of a key at once, whichever machines they are on, and in the order of arrival."""
        jobs = [job(key=str(number % 3)) for number in range(MANY)]
        Source(machine("a").inbox).push(*jobs)
        order = {entry.id.hex(): at for at, entry in enumerate(jobs)}

        def work(name: str) -> Callable[[Say], None]:
            def consume(say: Say) -> None:
                storage = machine(name)
                worker, idle = Worker(storage.inbox), 0
                while idle < 200:
                    claims = worker.claim(2)
                    idle = 0 if claims else idle + 1
                    begun = time.monotonic()
                    time.sleep(0.001)
                    for claim in claims:
                        say([order[claim.id.hex()], begun, time.monotonic()])
                        storage.inbox.settle([Ack(claim)])

            return consume

        spans = sorted(_both([work("b"), work("c")]))
        assert [at for at, *_ in spans] == list(range(MANY))
        for key in range(3):
            mine = spans[key::3]
            wrong = [(one, two) for one, two in itertools.pairwise(mine) if two[1] < one[2]]
            assert not wrong, f"two messages of one key at once, or not in order: {wrong}"

    @pytest.mark.parametrize("attempts", [1, 10])
    def test_leases_of_a_dead_machine_come_back(self, machine: Callable[[str], Storage], attempts: int) -> None:
        """What a killed process of another machine held is ready again, one attempt further, or is buried; the living
        keep theirs.
        """

        def work(say: Say) -> None:
            claims = Worker(machine("b").inbox).claim(3)
            say([claim.id.hex() for claim in claims])
            while True:
                time.sleep(1)

        with Child(work) as child:
            storage = machine("a")
            ids = [one.hex() for one in Source(storage.inbox).fill(4)]
            kept = Worker(storage.inbox).one()
            assert child.go().hear() == ids[1:]
            assert storage.inbox.reap({}) == ([], True)
            child.kill()
            ended = State.BURIED if attempts == 1 else State.READY
            states = _until(lambda: storage.inbox.reap({CHANNEL: attempts}) and
                            [info for info in storage.inbox.scan(Selection()) if info.state is ended], 3)  # fmt: skip
        assert [(info.id.hex(), info.attempts) for info in states] == [(identity, 1) for identity in ids[1:]]
        assert storage.inbox.holds(kept)
        assert storage.inbox.settle([Ack(kept)]) == [True]

    def test_a_machine_that_was_taken_for_dead_learns_it(
        self, machine: Callable[[str], Storage], shared_storage_case: SharedStorageCase
    ) -> None:
        """A process stands still while its session is ended: another machine gets its message. When it goes on, its
        settlement changes nothing, and its consumer claims again without being asked to.
        """
        name, lose = shared_storage_case.session, shared_storage_case.lose
        if name is None or lose is None:
            pytest.skip("the case cannot end what keeps a consumer alive")

        def work(say: Say) -> None:
            storage = machine("b")
            worker = Worker(storage.inbox)
            claim = worker.one()
            say([claim.id.hex(), name(storage)])
            os.kill(os.getpid(), signal.SIGSTOP)
            say([storage.inbox.holds(claim), *storage.inbox.settle([Ack(claim)])])
            again = worker.one()
            say([again.id.hex(), *storage.inbox.settle([Ack(again)])])

        with Child(work) as child:
            storage = machine("a")
            first, second = (one.hex() for one in Source(storage.inbox).fill(2))
            held, session = child.go().hear()
            assert held == first
            os.waitpid(child.pid, os.WUNTRACED)  # it stands still
            lose(session)
            mine = Worker(storage.inbox)
            _until(lambda: storage.inbox.reap({})[0], 1)
            claim = mine.one()
            assert (claim.id.hex(), claim.attempt) == (first, 2)
            os.kill(child.pid, signal.SIGCONT)
            assert child.hear() == [False, False], "a lease that was given to somebody else still held"
            assert storage.inbox.holds(claim)
            assert child.hear() == [second, True]
            assert storage.inbox.settle([Ack(claim)]) == [True]
            assert child.wait() == 0

    def test_a_lost_session_gives_no_message_to_two(
        self, machine: Callable[[str], Storage], shared_storage_case: SharedStorageCase
    ) -> None:
        """While sessions are lost again and again, and another machine reaps, each message is settled once."""
        one, two = machine("a"), machine("b")
        mine, other = Worker(one.inbox), Worker(two.inbox)
        shared_storage_case.drop(one)
        ids = Source(one.inbox).fill(MANY)
        settled: list[Any] = []
        for number in range(400):
            claims: list[Claim] = mine.claim(2)
            if not claims and not one.inbox.scan(Selection(), limit=1):
                break
            if number % 3 == 0:
                shared_storage_case.drop(one)
            two.inbox.reap({})
            theirs = other.claim(1)
            done = two.inbox.settle([Release(claim, counted=False) if number % 2 else Ack(claim) for claim in theirs])
            assert done == [True] * len(theirs), "the consumer that lost nothing lost its lease"
            settled += [] if number % 2 else [claim.id for claim in theirs]
            held = one.inbox.settle([Ack(claim) for claim in claims])
            settled += [claim.id for claim, well in zip(claims, held, strict=True) if well]
        assert not (wrong := strayed(sorted(settled), sorted(ids))), f"what was acknowledged: {wrong}"

    def test_a_stale_settlement_of_another_machine_changes_nothing(self, machine: Callable[[str], Storage]) -> None:
        """A lease that was ended on one machine is ended for all; whoever still believes in it changes nothing."""
        one, two = machine("a"), machine("b")
        Source(one.inbox).fill(1)
        worker = Worker(one.inbox)
        stale = worker.one()
        assert two.inbox.settle([Release(stale)]) == [True], "a lease is the store's, and not one machine's"
        fresh = Worker(two.inbox).one()
        assert one.inbox.settle([Ack(stale), Bury(stale)]) == [False, False]
        assert one.inbox.holds(fresh)
        assert two.inbox.settle([Ack(fresh)]) == [True]


def _both(works: list[Callable[[Say], None]]) -> list[Any]:
    """What children say that do this at once, and that they all ended well."""
    children = [Child(work) for work in works]
    try:
        for child in children:
            child.go()
        said = [word for child in children for word in child.rest()]
        assert [child.wait() for child in children] == [0] * len(children), "a machine's process failed"
    finally:
        for child in children:
            child.close()
    return said


def _take(storage: Storage, worker: Worker) -> list[str]:
    claims = worker.claim(5)
    assert storage.inbox.acknowledge(claims) == [True] * len(claims)
    return [claim.id.hex() for claim in claims]


def _until(look: Callable[[], Any], count: int) -> Any:
    """What is there once there are so many; AssertionError if that does not come soon."""
    ends = time.monotonic() + SOON
    while len(found := look()) < count:
        assert time.monotonic() < ends, f"{len(found)} of {count} within {SOON:g} s"
        time.sleep(0.02)
    return found


__all__ = ["SharedStorageCase", "SharedStorageContract"]
