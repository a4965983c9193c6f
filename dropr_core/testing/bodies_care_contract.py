"""Contract tests of what keeps large bodies: what goes and what stays, what it costs, and what is damaged.

Owns one test for each sentence of contracts/bodies.py about the sweep, room, memory and the check. Must not know
whether bodies are files or rows.
"""

import io
import signal
from collections.abc import Callable

import pytest

from dropr_core.contracts.bodies import FORGOTTEN, Bodies, Leftovers
from dropr_core.errors import QueueFull, StoreCorrupt
from dropr_core.model.chunk_digest import LEAF
from dropr_core.model.names import IdMaker
from dropr_core.testing.bodies_bench import (
    LATER,
    PEER,
    BodiesCase,
    BodiesTests,
    Slow,
    never,
    reference_of,
    some,
    until,
)
from dropr_core.testing.contract import shut, together
from dropr_core.testing.forks import Child, Say
from dropr_core.testing.memory import peak

MEMORY = 20 * 1024 * 1024, 15 * 1024 * 1024
"""Bytes of a body, and how many of them may be in memory at once."""


class BodiesCareContract(BodiesTests):
    """Nothing that is needed goes, and nothing that is not needed stays."""

    # ── what may go, and what must not ───────────────────────────────────────────────────────────

    def test_what_a_writer_holds_stays(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """Between a body and its message no sweep of any machine comes in between; released, it goes if unknown."""
        identity = new_id()
        written = here.write(identity, io.BytesIO(some(LEAF)))
        assert here.sweep(never, never, LATER) == there.sweep(never, never, LATER) == 0
        written.release()
        with there.open_sent(identity, written.reference) as file:
            assert len(file.read()) == LEAF
        assert there.sweep(never, never, LATER) == 1
        assert not here.any()

    def test_what_is_being_written_stays_and_what_a_dead_writer_left_goes(
        self, machine: Callable[[], Bodies], new_id: IdMaker
    ) -> None:
        """A writer in the middle of a body loses nothing to a sweep; when it is killed, its rest goes."""

        def work(say: Say) -> None:
            def stop() -> None:
                say("half")
                signal.pause()

            machine().write(new_id(), Slow(some(80 * LEAF), stop))

        with Child(work) as child:
            assert child.go().hear() == "half"
            bodies = machine()
            assert bodies.sweep(never, never, LATER) == 0
            assert bodies.any()
            child.kill()
            until(lambda: bodies.sweep(never, never, LATER) == 1, "the rest of a dead writer to go")
            assert not bodies.any()

    def test_what_a_killed_sender_had_written_is_whole_or_goes(
        self, machine: Callable[[], Bodies], new_id: IdMaker
    ) -> None:
        """Killed after `write` returned: with its message the body stays and is whole, without it it goes."""
        kept, lost, data = new_id(), new_id(), some(3 * LEAF)

        def work(say: Say) -> None:
            bodies = machine()
            held = [bodies.write(identity, io.BytesIO(data)) for identity in (kept, lost)]
            say([one.reference.size for one in held])
            signal.pause()

        with Child(work) as child:
            assert child.go().hear() == [len(data)] * 2
            child.kill()
        bodies = machine()
        until(lambda: bodies.sweep(kept.__eq__, never, LATER) == 1, "the body without a message to go")
        with bodies.open_sent(kept, reference_of(data)) as file:
            assert file.read() == data

    def test_a_sweep_takes_what_no_message_needs_and_nothing_else(
        self, here: Bodies, there: Bodies, new_id: IdMaker
    ) -> None:
        """Sent: unknown messages. Arrived: messages that were here and are gone; others, and parts, after a day."""
        data, sent, gone = some(LEAF + 5), new_id(), new_id()
        for identity in (sent, gone):
            self.send(here, identity, data)
        stays, settled, waits, part = (new_id() for _ in range(4))
        for identity in (stays, settled, waits):
            self.bring(here, identity, data)
        self.bring(here, part, data, upto=LEAF)
        there.accepted(PEER, settled, reference_of(data))
        known = {sent, stays}.__contains__
        assert there.sweep(known, known, 0.0) == 2
        assert [there.has(PEER, one, reference_of(data)) for one in (stays, settled, waits)] == [True, False, True]
        assert there.sweep(known, known, 0.0) == 0
        assert there.sweep(known, known, LATER + 2 * FORGOTTEN) == 2
        assert here.any()
        assert there.sweep(never, never, 0.0) == 2
        assert not here.any()

    def test_two_sweeps_at_once(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """They take each body once between them, and none that is needed."""
        data, kept = some(1000), [new_id() for _ in range(5)]
        for identity in [*kept, *(new_id() for _ in range(20))]:
            self.send(here, identity, data)
        known = set(kept).__contains__
        gone = together(60.0, [lambda one=one: one.sweep(known, never, LATER) for one in (here, there)], "sweeps")  # type: ignore[misc]
        assert sum(gone) == 20
        for identity in kept:
            with here.open_sent(identity, reference_of(data)) as file:
                assert file.read() == data

    # ── bounds, room, damage ─────────────────────────────────────────────────────────────────────

    def test_a_body_is_never_in_memory_as_a_whole(self, here: Bodies, new_id: IdMaker) -> None:
        """Writing, taking in, reading and sending hold a part of it only."""
        size, most = MEMORY
        data, identity = some(size), new_id()
        reference = reference_of(data)
        assert peak(lambda: self.send(here, identity, data)) < most

        def bring() -> None:
            arrivals = here.arrivals()
            one = arrivals.of(PEER, identity, reference)
            for offset in range(0, size, 4 * LEAF):
                one.write(offset, memoryview(data)[offset : offset + 4 * LEAF])
            shut(arrivals)

        def read() -> None:
            with here.open_received(PEER, identity, reference) as file:
                while file.read(LEAF):
                    pass
            load = here.load(identity, reference)
            for offset in range(0, size, 4 * LEAF):
                load.piece(offset, 4 * LEAF).read(0, 4 * LEAF)
            shut(load)

        assert peak(bring) < most
        assert peak(read) < most

    def test_no_room_is_queue_full_and_leaves_nothing(
        self, bodies_case: BodiesCase, here: Bodies, there: Bodies, new_id: IdMaker
    ) -> None:
        """Neither a body that is written nor one that arrives is half kept, and with room again both come."""
        if bodies_case.full is None:
            pytest.skip("nobody said how to make it full")
        data, identity = some(3 * LEAF), new_id()
        with bodies_case.full(here):
            with pytest.raises(QueueFull):
                here.write(identity, io.BytesIO(data))
            with pytest.raises(QueueFull):
                self.bring(here, identity, data)
        there.sweep(never, never, LATER)
        assert not there.any()
        self.send(here, identity, data)
        self.bring(here, identity, data)
        assert there.has(PEER, identity, reference_of(data))

    @pytest.mark.parametrize("way", ["sent", "received"])
    def test_a_body_damaged_at_rest_is_told(
        self, bodies_case: BodiesCase, here: Bodies, there: Bodies, new_id: IdMaker, way: str
    ) -> None:
        """Read to its end it is StoreCorrupt; a check names it, and puts it aside with a repair."""
        if bodies_case.damage is None:
            pytest.skip("nobody said how to damage one")
        data, identity = some(3 * LEAF), new_id()
        reference = self.send(here, identity, data) if way == "sent" else self.bring(here, identity, data)
        peer = None if way == "sent" else PEER

        def look(*, repair: bool) -> str:
            return there.examine(peer, identity, reference, repair=repair, say=lambda _: None)

        assert look(repair=False) == ""
        bodies_case.damage(here, peer, identity, reference)
        opened = (
            there.open_sent(identity, reference) if way == "sent" else there.open_received(PEER, identity, reference)
        )
        with opened as file, pytest.raises(StoreCorrupt):
            file.read()
        assert "damaged" in look(repair=False)
        assert "damaged" in look(repair=True)
        assert "missing" in look(repair=True)

    def test_a_check_finds_what_no_message_refers_to(self, here: Bodies, there: Bodies, new_id: IdMaker) -> None:
        """Orphans and unfinished ones are counted place by place; moved aside, no sweep takes them and none is left."""
        data, kept = some(LEAF + 5), new_id()
        reference = self.send(here, kept, data)
        self.send(here, new_id(), data)
        self.bring(here, new_id(), data)
        self.bring(here, new_id(), data, upto=LEAF)

        def look(*, aside: bool = False) -> tuple[int, int, int, int]:
            sent = {kept: reference}.get
            found = [one for one in there.leftovers(sent, lambda _: None, aside=aside, say=lambda _: None)
                     if isinstance(one, Leftovers)]  # fmt: skip
            return (
                sum(one.unfinished for one in found), sum(one.orphans for one in found),
                sum(one.size for one in found), sum(one.moved for one in found),
            )  # fmt: skip

        unfinished, orphans, size, moved = look()
        assert (unfinished, orphans, moved) == (1, 2, 0)
        assert size >= 2 * len(data)
        assert look(aside=True) == (1, 2, size, 2)
        assert look()[1:] == (0, 0, 0)
        assert there.sweep(kept.__eq__, never, 0.0) == 0


__all__ = ["BodiesCareContract"]
