"""The contract of what keeps large bodies as tests: written, sent, taken in piece by piece, read, swept.

Owns `BodiesContract`, the sum of the suites. Must not know whether bodies are files or rows. Who keeps bodies for
machines that share a store subclasses it and writes the fixture `bodies_case`.
"""

import io
import random
import signal
from collections.abc import Callable

import pytest

from dropr_core.contracts.bodies import Arrival, Bodies
from dropr_core.errors import BadBody, StoreCorrupt, StoreError, TooBig
from dropr_core.model.chunk_digest import LEAF, leaves_of
from dropr_core.model.envelope import Reference
from dropr_core.model.names import IdMaker
from dropr_core.testing.bodies_bench import PEER, BodiesCase, BodiesTests, Slow, reference_of, some
from dropr_core.testing.bodies_care_contract import BodiesCareContract
from dropr_core.testing.contract import shut, together
from dropr_core.testing.forks import Child, Say

SIZES = (1, LEAF - 1, LEAF, LEAF + 1, 5 * LEAF + 77)


class BodiesTravelContract(BodiesTests):
    """Bodies are sent and arrive, byte for byte."""

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def test_what_is_written_on_one_machine_is_sent_by_another(
        self, here: Bodies, there: Bodies, new_id: IdMaker
    ) -> None:
        """Every size, byte for byte, as a stream and in pieces with the digests of their leaves."""
        for size in SIZES:
            data, identity = some(size), new_id()
            reference = self.send(here, identity, data)
            assert reference == reference_of(data)
            with there.open_sent(identity, reference) as file:
                assert file.read() == data
            load = there.load(identity, reference)
            for offset in range(0, size, 2 * LEAF):
                part = data[offset : offset + 2 * LEAF]
                assert load.leaves(offset, len(part)) == leaves_of(part)
                piece = load.piece(offset, len(part))
                assert (piece.size, piece.read(0, len(part))) == (len(part), part)
                middle = len(part) // 2
                assert piece.read(middle, len(part) - middle) == part[middle:]
            shut(load)
            shut(load)
            with pytest.raises((OSError, StoreError)):
                load.read(0, 1)

    def test_a_body_can_be_sought_in(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """A reader goes to any place, also to the end and back, and reads what is there."""
        data, identity = some(3 * LEAF + 5), new_id()
        with there.open_sent(identity, self.send(here, identity, data)) as file:
            assert file.seekable()
            assert file.seek(0, io.SEEK_END) == len(data)
            assert file.read(1) == b""
            dice = random.Random(7)  # noqa: S311 - no secret
            for _ in range(40):
                at, size = dice.randrange(len(data)), dice.randrange(LEAF)
                assert file.seek(at) == at
                assert file.read(size) == data[at : at + size]
            file.seek(0)
            assert file.read() == data

    def test_progress_and_the_limit(self, here: Bodies, new_id: IdMaker) -> None:
        """Who writes is told how far it is; over the limit nothing is kept."""
        data, seen = some(3 * LEAF), list[tuple[int, int | None]]()
        here.write(
            new_id(), io.BytesIO(data), progress=lambda done, size: seen.append((done, size)), size=len(data)
        ).discard()
        assert seen[-1] == (len(data), len(data))
        with pytest.raises(TooBig):
            here.write(new_id(), io.BytesIO(data), limit=len(data) - 1)
        assert not here.any()

    def test_a_stream_that_fails_leaves_nothing(self, here: Bodies, new_id: IdMaker) -> None:
        """An error of the caller's own stream comes out, and what was written before it goes."""

        def torn() -> None:
            raise KeyError("the tape is torn")

        with pytest.raises(KeyError):
            here.write(new_id(), Slow(some(4 * LEAF), torn))
        assert not here.any()

    def test_what_was_discarded_is_gone(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """A message that was not stored takes its body along; `release` afterwards is harmless."""
        identity = new_id()
        written = here.write(identity, io.BytesIO(some(LEAF)))
        written.discard()
        written.release()
        assert not there.any()
        with pytest.raises(StoreCorrupt):
            there.open_sent(identity, written.reference)
        with pytest.raises(StoreCorrupt):
            there.load(identity, written.reference)

    def test_a_body_for_this_node_itself_is_received_here(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """Written for the own inbox, it is read as one that arrived, and goes as one."""
        data, identity = some(LEAF + 3), new_id()
        reference = self.send(here, identity, data, inbox_of="me")
        with there.open_received("me", identity, reference) as file:
            assert file.read() == data
        there.drop_received("me", identity, reference)
        assert not here.any()

    def test_the_same_body_twice(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """Written again for the same message, it is there, whichever of the two lets go of it first."""
        data, identity = some(LEAF + 3), new_id()
        first = here.write(identity, io.BytesIO(data))
        second = there.write(identity, io.BytesIO(data))
        first.release()
        second.release()
        with here.open_sent(identity, first.reference) as file:
            assert file.read() == data

    # ── arriving ─────────────────────────────────────────────────────────────────────────────────

    def test_pieces_that_come_to_two_machines_in_turn_make_one_body(
        self, bodies_case: BodiesCase, here: Bodies, there: Bodies, new_id: IdMaker
    ) -> None:
        """Each says how much is here, whoever took the piece before; what comes twice changes nothing."""
        data, identity = some(9 * LEAF + 5), new_id()
        reference = reference_of(data)
        doors = [here.arrivals(), there.arrivals()]
        for number, offset in enumerate(range(0, len(data), LEAF)):
            one = doors[number % 2].of(PEER, identity, reference)
            assert one.have() == offset
            piece = data[offset : offset + LEAF]
            assert one.write(offset, piece, leaves_of(piece)) == offset + len(piece)
            if offset:
                assert one.write(offset - LEAF, data[offset - LEAF : offset]) == offset + len(piece)
            if not bodies_case.together:
                shut(one)
        assert [door.of(PEER, identity, reference).have() for door in doors] == [len(data)] * 2
        for door in doors:
            shut(door)
        assert here.has(PEER, identity, reference)
        with here.open_received(PEER, identity, reference) as file:
            assert file.read() == data

    def test_pieces_in_any_order(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """Pieces overtake each other, repeat, are dropped and sent again: the body is whole in the end."""
        dice = random.Random(11)  # noqa: S311 - no secret
        for size in SIZES:
            data, identity = some(size), new_id()
            reference, arrivals = reference_of(data), here.arrivals()
            one = arrivals.of(PEER, identity, reference)
            for _ in range(100):
                offsets = list(range(one.have(), size, LEAF))
                if not offsets:
                    break
                dice.shuffle(offsets)
                for offset in offsets[: dice.randint(1, len(offsets))]:
                    one.write(offset, data[offset : offset + LEAF])
            assert one.have() == size
            shut(arrivals)
            with there.open_received(PEER, identity, reference) as file:
                assert file.read() == data

    def test_a_killed_process_keeps_what_it_had_taken(self, machine: Callable[[], Bodies], new_id: IdMaker) -> None:
        """Killed after each piece, whoever comes next goes on where it was: nothing that was confirmed comes again."""
        data, identity = some(4 * LEAF + 9), new_id()
        reference = reference_of(data)
        for number, offset in enumerate(range(0, len(data), LEAF)):

            def work(say: Say, offset: int = offset) -> None:
                one = machine().arrivals().of(PEER, identity, reference)
                piece = data[offset : offset + LEAF]
                say(one.write(offset, piece, leaves_of(piece)))
                say(one.have())
                signal.pause()

            with Child(work) as child:
                assert child.go().hear() == min(len(data), (number + 1) * LEAF)
                child.kill()
        bodies = machine()
        arrivals = bodies.arrivals()
        assert arrivals.of(PEER, identity, reference).have() == len(data)
        shut(arrivals)
        with bodies.open_received(PEER, identity, reference) as file:
            assert file.read() == data

    @pytest.mark.parametrize("known", [True, False], ids=["leaves-known", "leaves-unknown"])
    def test_another_body_than_was_promised_is_refused(
        self, here: Bodies, there: Bodies, new_id: IdMaker, known: bool
    ) -> None:
        """Whole and wrong: BadBody, nothing is there, and the right one can come."""
        data, identity = some(2 * LEAF + 9), new_id()
        wrong = data[:LEAF] + some(LEAF, 5) + data[2 * LEAF :]
        reference, arrivals = reference_of(data), here.arrivals()
        one = arrivals.of(PEER, identity, reference)
        for offset in range(0, 2 * LEAF, LEAF):
            piece = wrong[offset : offset + LEAF]
            one.write(offset, piece, leaves_of(piece) if known else None)
        last = wrong[2 * LEAF :]
        with pytest.raises(BadBody):
            one.write(2 * LEAF, last, leaves_of(last) if known else None)
        assert not there.has(PEER, identity, reference)
        assert one.have() == 0
        shut(arrivals)
        self.bring(there, identity, data)
        with here.open_received(PEER, identity, reference) as file:
            assert file.read() == data

    def test_pieces_from_many_threads(self, here: Bodies, new_id: IdMaker) -> None:
        """Several requests of one peer at once: one body, nothing lost."""
        data, identity = some(16 * LEAF + 1), new_id()
        reference, arrivals = reference_of(data), here.arrivals()

        def push(number: int) -> None:
            one = arrivals.of(PEER, identity, reference)
            for offset in range(number * LEAF, len(data), 4 * LEAF):
                one.write(offset, data[offset : offset + LEAF])

        together(60.0, [lambda number=number: push(number) for number in range(4)], "pieces of a body")  # type: ignore[misc]
        one: Arrival = arrivals.of(PEER, identity, reference)
        for offset in range(one.have(), len(data), LEAF):
            one.write(offset, data[offset : offset + LEAF])
        assert one.have() == len(data)
        shut(arrivals)
        with here.open_received(PEER, identity, reference) as file:
            assert file.read() == data

    def test_a_question_keeps_nothing(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """Who only asks how much is here, for any number of bodies, leaves nothing behind."""
        arrivals = here.arrivals()
        for size in SIZES:
            assert arrivals.of(PEER, new_id(), reference_of(some(size))).have() == 0
        shut(arrivals)
        assert not there.any()

    def test_peers_do_not_share_bodies(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """The same id and digest from another peer, whatever its name, is another body."""
        data, identity = some(LEAF), new_id()
        reference = self.bring(here, identity, data, "../../etc")
        assert there.has("../../etc", identity, reference)
        for other in ("", PEER, "../..", "é" * 50):
            assert not there.has(other, identity, reference)
        assert not there.has("../../etc", identity, Reference(LEAF, bytes(32)))

    def test_a_body_that_goes_is_missing(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """Dropped with its message, twice over: whoever asks for it afterwards is told, and it may come again."""
        data, identity = some(LEAF + 1), new_id()
        reference = self.bring(here, identity, data)
        there.drop_received(PEER, identity, reference)
        here.drop_received(PEER, identity, reference)
        assert not here.has(PEER, identity, reference)
        with pytest.raises(StoreCorrupt):
            here.open_received(PEER, identity, reference)
        self.bring(there, identity, data)
        assert here.has(PEER, identity, reference)


class BodiesContract(BodiesTravelContract, BodiesCareContract):
    """Every test of the contract. Subclass it and write the fixture `bodies_case`."""


__all__ = ["BodiesCase", "BodiesContract"]
