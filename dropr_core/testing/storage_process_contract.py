"""Contract tests of a storage among processes: killed ones, several at once, and what is not declared.

Owns one test for each promise that a storage makes by the abilities ``durable`` and ``processes``, and for
their absence. Must not know any storage by name.
"""

from collections.abc import Callable
from typing import Any

import pytest

from dropr_core.contracts.storage import Ack, Selection, Storage
from dropr_core.errors import Closed, DroprError
from dropr_core.model.message import State
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import CHANNEL, LANE, Source, Worker, job, outgoing, taken
from dropr_core.testing.contract import shut
from dropr_core.testing.forks import Child, Say
from dropr_core.testing.likeness import strayed

MANY = 40


class StorageProcessContract(StorageTests):
    """What a storage must do when processes are killed, or are many."""

    @pytest.fixture
    def place(self, bench: Bench) -> Any:
        """Opens the same store, also in a child."""
        return bench.open

    @staticmethod
    def need(bench: Bench, ability: str) -> None:
        """Skip the test where the storage does not claim the ability. Opens a store of its own and closes it."""
        storage = bench.open("asked-for-its-abilities")
        able = ability in storage.abilities
        shut(storage)
        if not able:
            pytest.skip(f"this storage is not {ability}, and says so")

    # ── killed ───────────────────────────────────────────────────────────────────────────────────

    def test_what_append_stored_survives_a_kill(self, bench: Bench, place: Callable[..., Storage]) -> None:
        """A sender killed at any moment loses no message whose `append` had returned, and breaks no numbering."""
        self.need(bench, "durable")

        def work(say: Say) -> None:
            storage = place()
            while True:
                message = outgoing(b"something to carry")
                storage.outbox.append([message])
                say(message.id.hex())

        with Child(work) as child:
            child.go()
            said = [child.hear() for _ in range(MANY)]
            child.kill()
            said += list(child.rest())
        batch = taken(place().outbox, LANE, count=100_000)
        stored = [entry.id.hex() for entry in batch.entries]
        assert stored[: len(said)] == said, "a message whose append had returned is gone"
        assert len(stored) <= len(said) + 1
        assert [entry.sequence for entry in batch.entries] == list(range(1, len(stored) + 1))
        assert {entry.envelope for entry in batch.entries} == {b"something to carry"}

    def test_what_accept_stored_survives_a_kill(self, bench: Bench, place: Callable[..., Storage]) -> None:
        """A server killed at any moment keeps every arrival that it confirmed, and the head goes with the jobs."""
        self.need(bench, "durable")

        def work(say: Say) -> None:
            source = Source(place().inbox)
            while True:
                say([identity.hex() for identity in source.fill(3)])

        with Child(work) as child:
            child.go()
            said = [identity for _ in range(MANY // 2) for identity in child.hear()]
            child.kill()
            said += [identity for each in child.rest() for identity in each]
        inbox = place().inbox
        stored = [info.id.hex() for info in inbox.scan(Selection(), limit=100_000)]
        assert stored[: len(said)] == said, "a confirmed arrival is gone"
        assert len(stored) in {len(said), len(said) + 3}, "an arrival was stored in part"
        (head,) = inbox.heads("shop").values()
        assert (head.sequence, head.id.hex()) == (len(stored), stored[-1]), "the head is not that of the jobs"

    def test_an_acknowledgement_survives_a_kill(self, bench: Bench, place: Callable[..., Storage]) -> None:
        """A consumer killed right after `settle` returned does not get the message back."""
        self.need(bench, "durable")

        def work(say: Say) -> None:
            storage = place()
            Source(storage.inbox).fill(MANY)
            worker = Worker(storage.inbox)
            while True:
                claim = worker.one()
                assert storage.inbox.settle([Ack(claim)]) == [True]
                say(claim.id.hex())

        with Child(work) as child:
            child.go()
            done = {child.hear() for _ in range(MANY // 2)}
            child.kill()
            done |= set(child.rest())
        inbox = place().inbox
        inbox.reap({})
        left = {claim.id.hex() for claim in Worker(inbox).claim()}
        assert not left & done, "an acknowledged message came back"
        assert MANY - 1 <= len(left) + len(done) <= MANY

    def test_leases_of_a_killed_process_end(self, bench: Bench, place: Callable[..., Storage]) -> None:
        """What a killed consumer held is ready again after a reap, one attempt further; the living keep theirs."""
        self.need(bench, "processes")

        def work(say: Say) -> None:
            claims = Worker(place().inbox).claim(3)
            say([claim.id.hex() for claim in claims])
            while True:
                pass

        with Child(work) as child:
            storage = place()
            ids = [identity.hex() for identity in Source(storage.inbox).fill(4)]
            mine = Worker(storage.inbox)
            kept = mine.one()
            assert child.go().hear() == ids[1:]
            assert storage.inbox.reap({}) == ([], True)
            child.kill()
            assert storage.inbox.reap({})[0] == [CHANNEL]
        again = Worker(storage.inbox).claim()
        assert [(claim.id.hex(), claim.attempt) for claim in again] == [(identity, 2) for identity in ids[1:]]
        assert storage.inbox.holds(kept)

    # ── many ─────────────────────────────────────────────────────────────────────────────────────

    def test_processes_share_one_store(self, bench: Bench, place: Callable[..., Storage]) -> None:
        """Processes that send and consume at once lose nothing, double nothing, and share the numbers."""
        self.need(bench, "processes")

        def work(say: Say) -> None:
            storage = place()
            for _ in range(MANY):
                storage.outbox.append([outgoing()])
            worker = Worker(storage.inbox)
            while claims := worker.claim(3):
                assert storage.inbox.settle([Ack(claim) for claim in claims]) == [True] * len(claims)
                say([claim.id.hex() for claim in claims])

        children = [Child(work) for _ in range(3)]
        try:
            storage = place()
            ids = [identity.hex() for identity in Source(storage.inbox).fill(4 * MANY)]
            for child in children:
                child.go()
            got = [identity for child in children for each in child.rest() for identity in each]
            assert [child.wait() for child in children] == [0, 0, 0]
        finally:
            for child in children:
                child.close()
        assert not (wrong := strayed(sorted(got), sorted(ids))), f"what the three processes got together: {wrong}"
        numbers = [entry.sequence for entry in taken(storage.outbox, LANE, count=100_000).entries]
        assert not (wrong := strayed(numbers, range(1, 3 * MANY + 1))), f"the numbers in the lane: {wrong}"

    def test_undeclared_processes_are_refused(self, place: Callable[..., Storage]) -> None:
        """A durable storage that is not for several processes refuses the second one, instead of losing data."""
        storage = place()
        if "processes" in storage.abilities or "durable" not in storage.abilities:
            pytest.skip("several processes may use this storage, or each has a store of its own")
        shut(storage, self.patience)

        def work(say: Say) -> None:
            try:
                place().outbox.append([outgoing()])
            except DroprError as error:
                say(str(error))
            else:
                say("taken")

        with Child(work) as child:
            mine = place()
            said = child.go().hear()
            assert said != "taken", "a second process was let in, though the ability 'processes' is not declared"
            assert mine.outbox.lanes() == []

    def test_undeclared_durability_is_not_pretended(self, place: Callable[..., Storage]) -> None:
        """A storage that does not declare ``durable`` leaves nothing behind that another process would see."""
        storage = place()
        if "durable" in storage.abilities:
            pytest.skip("this storage is durable")
        if "processes" in storage.abilities:
            raise AssertionError("'processes' without 'durable': no process can rely on what another one stored")
        shut(storage, self.patience)

        def work(say: Say) -> None:
            say([len(place("fresh").outbox.lanes()), len(place("fresh").inbox.heads("shop"))])

        with Child(work) as child:
            mine = place("fresh")
            mine.outbox.append([outgoing()])
            Source(mine.inbox).push(job())
            assert child.go().hear() == [0, 0]

    def test_a_forked_child_is_told(self, place: Callable[..., Storage]) -> None:
        """A storage that was opened before a fork refuses the child with Closed; the parent's goes on."""
        storage = place()
        Source(storage.inbox).fill(1)

        def work(say: Say) -> None:
            tries: list[Callable[[], object]] = [
                storage.outbox.lanes, lambda: storage.outbox.append([outgoing()]), lambda: storage.inbox.heads("shop"),
            ]  # fmt: skip
            for use in tries:
                try:
                    use()
                except Closed:
                    say("Closed")
                except BaseException as error:
                    say(type(error).__name__)
                else:
                    say("taken")

        with Child(work) as child:
            assert list(child.go().rest()) == ["Closed"] * 3
        storage.outbox.append([outgoing()])
        claim = Worker(storage.inbox).one()
        assert storage.inbox.settle([Ack(claim)]) == [True]
        info = storage.inbox.status(claim.id)
        assert info is None or info.state is State.DONE


__all__ = ["StorageProcessContract"]
