"""What two nodes must do over a storage and a transport, as tests that an author of either inherits.

    class TestMine(NodeContract):
        @pytest.fixture
        def node_case(self):
            return NodeCase(make_storage=lambda context: MyStorage(context), make_transport=MyTransport,
                            listen="mine://127.0.0.1:0")

Owns the promises of dropr from end to end: unique ids are counted from `send` to the acknowledgement, over a
road with faults, through restarts and kills, and judged by checker.py. Must not know any technology.
"""

import random
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dropr_core.errors import DroprError
from dropr_core.model.message import State
from dropr_core.model.names import parse_id
from dropr_core.testing.bad_road import Faults
from dropr_core.testing.checker import check
from dropr_core.testing.contract import Contract
from dropr_core.testing.forks import Child, Say
from dropr_core.testing.node_rig import Door, NodeCase, Rig, open_node

MANY = 60
AFTER_A_LOST_POLL = 100.0
"""Seconds for what may have to wait for a long poll that a killed server took with it: 55 s, and the 30 s of
`idle_timeout`, for a technology that does not notice the death."""


def every_fault(seed: int) -> Faults:
    """A road on which more than half of all requests meet something."""
    return Faults(lost=0.12, unanswered=0.2, doubled=0.1, repeated=0.1, closed=0.08, seed=seed)


def _ids(ids: Iterable[bytes]) -> str:
    """Some of them, for a person."""
    return ", ".join(sorted(one.hex() for one in ids)[:5])


class NodeContract(Contract):
    """Inherit, and override the fixture `node_case`."""

    @pytest.fixture
    def node_case(self) -> NodeCase:
        """Override this."""
        raise NotImplementedError("write the fixture node_case in your test class")

    @pytest.fixture
    def rig(self, node_case: NodeCase, tmp_path: Path) -> Iterator[Rig]:
        """Both nodes, not yet open; closed after the test."""
        rig = Rig(node_case, tmp_path)
        try:
            yield rig
        finally:
            rig.close()

    def conclude(self, rig: Rig, *, flagged: bool = False) -> None:
        """Everything arrives, and the history keeps every invariant; no copy is a possible duplicate."""
        rig.until(rig.settled, AFTER_A_LOST_POLL, "everything is processed")
        rig.healthy()
        rig.look()
        wrong = [f"{each.invariant}: {each.text}" for each in check(rig.history)]
        assert not wrong, f"{len(wrong)} promises were broken:\n" + "\n".join(wrong[:10])
        missing, extra = set(rig.sent) - rig.arrived, rig.arrived - set(rig.sent)
        assert not missing, f"{len(missing)} of {len(rig.sent)} never arrived: {_ids(missing)}"
        assert not extra, f"{len(extra)} arrived that were never sent: {_ids(extra)}"
        if not flagged:
            assert not [event for event in rig.history.events if event.flagged]

    # ── a good road ──────────────────────────────────────────────────────────────────────────────

    def test_everything_arrives_once_and_in_order(self, rig: Rig, strength: int) -> None:
        """Messages of several lanes arrive once each, unchanged, in the order of their lane."""
        rig.open()
        for _ in range(strength):
            rig.send(MANY // 2)
            rig.send(MANY // 4, channel="plain")
            rig.send(MANY // 4, priority=1)
            rig.send(1, size=50_000)
            rig.send(1, channel="plain", size=300_000)
        self.conclude(rig)

    def test_results_come_home(self, rig: Rig) -> None:
        """Each receipt brings the result of its own message."""
        rig.open()
        sent = [rig["shop"].send(b"ask %d" % number, to="ware", channel="orders") for number in range(20)]
        assert [each.wait(self.patience) for each in sent] == [b"ask %d" % number for number in range(20)]
        assert {each.state for each in sent} == {State.PROCESSED}

    def test_urgent_messages_go_first(self, rig: Rig) -> None:
        """What waited while the receiver was away is consumed by priority, and within one in order."""
        rig.open("ware", "door")
        rig.open("shop")
        rig.send(10, priority=8)
        rig.send(10, priority=2)
        rig.open("daemon")
        rig.until(lambda: rig["shop"].outbox.peers()["ware"].waiting == 0, self.patience, "all are in the queue")
        rig.open("reader")
        self.conclude(rig)
        given = [event.id for event in rig.history.events if event.kind == "given"]
        assert given == rig.sent[10:] + rig.sent[:10]

    def test_send_needs_nobody(self, rig: Rig) -> None:
        """`send` stores while no peer can be reached; everything arrives when the road is open."""
        rig.open("ware", "door")
        rig.close("door")
        rig.open("shop", "daemon")
        rig.send(MANY // 2)
        rig.until(lambda: rig["daemon"].report("ware") == "resting", self.patience, "the daemon notices")
        assert rig["shop"].outbox.peers()["ware"].waiting == MANY // 2
        rig.open("door", "reader")
        self.conclude(rig)

    # ── a bad road ───────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("fault", ["lost", "unanswered", "doubled", "repeated", "closed"])
    def test_one_kind_of_fault(self, rig: Rig, fault: str, stress_round: int) -> None:
        """With a third of all requests lost, unanswered, doubled, repeated or stopped, each message enters once."""
        rig.faults = Faults(surely=fault, seed=stress_round)
        setattr(rig.faults, fault, 0.35)
        rig.open()
        for _ in range(6):
            rig.send(MANY // 6)
            time.sleep(0.002)
        self.conclude(rig)
        assert rig.faults.done.get(fault), f"no request was {fault}: this run proves nothing"

    def test_all_faults_together(self, rig: Rig, stress_round: int, strength: int) -> None:
        """Several threads send over a road with every fault; each message enters once, in order."""
        rig.faults = every_fault(stress_round)
        rig.open()
        for _ in range(3 * strength):
            rig.send(MANY // 3, priority=3)
            rig.send(5, channel="plain", size=30_000)
        self.conclude(rig)

    def test_large_bodies_over_a_bad_road(self, rig: Rig, stress_round: int, strength: int) -> None:
        """Bodies that travel beside the lanes, some in several chunks, come whole and once through every fault."""
        rig.faults = every_fault(stress_round)
        rig.open()
        for _ in range(strength):
            rig.send(3, channel="plain", size=300_000)
            rig.send(5)
            rig.send(1, size=9_000_000)
        self.conclude(rig)

    # ── restarts ─────────────────────────────────────────────────────────────────────────────────

    def test_the_sender_is_restarted(self, rig: Rig, stress_round: int, strength: int) -> None:
        """A daemon that ends in the middle of its work and begins again loses and doubles nothing."""
        rig.faults = every_fault(stress_round)
        rig.open()
        for _ in range(4 * strength):
            rig.send(MANY // 4)
            rig.close("daemon")
            if rig.durable:
                rig.close("shop")
                rig.open("shop")
            rig.open("daemon")
        self.conclude(rig)

    def test_the_receiver_is_restarted(self, rig: Rig, stress_round: int, strength: int) -> None:
        """A server and a consumer that end in the middle of their work and begin again do not either."""
        rig.faults = every_fault(stress_round)
        rig.open()
        for _ in range(4 * strength):
            rig.send(MANY // 4)
            rig.close("reader", "door")
            if rig.durable:
                rig.close("ware")
                rig.open("ware")
            rig.open("door", "reader")
        self.conclude(rig)

    # ── kills ────────────────────────────────────────────────────────────────────────────────────

    def need_processes(self, case: NodeCase, directory: Path) -> None:
        """Skip the test where several processes may not use the storage."""
        with open_node(case, directory / "asked", "ware") as node:
            able = "processes" in node.runtime.storage.abilities
        if not able:
            pytest.skip("several processes may not use this storage, and it says so")

    def test_killed_senders_lose_nothing(self, rig: Rig, stress_round: int) -> None:
        """Applications killed while they send: what `send` had returned arrives, nothing arrives twice."""
        self.need_processes(rig.case, rig.directory)
        rig.open("ware", "door")
        url = rig.url
        rig.close("door", "ware")
        dice = random.Random(stress_round)  # noqa: S311 - the same every time

        def work(say: Say) -> None:
            rig.url = url
            rig.open("shop")
            while True:
                say(rig["shop"].send(b"from a child", to="ware", channel="orders").id)

        children = [Child(work) for _ in range(3)]
        try:
            rig.open()
            for child in children:
                child.go()
                said = [child.hear() for _ in range(dice.randrange(5, 25))]
                child.kill()
                for word in [*said, *child.rest()]:
                    rig.note_sent(parse_id(word), b"from a child")
        finally:
            for child in children:
                child.close()
        rig.until(rig.settled, AFTER_A_LOST_POLL, "everything is processed")
        rig.healthy()
        # A message may be stored whose `send` never came to return; it counts as sent then, once.
        more = rig.arrived - set(rig.sent)
        assert len(more) <= len(children)
        for identity in more:
            rig.note_sent(identity, b"from a child")
        self.conclude(rig)

    def test_killed_consumers_double_nothing(self, rig: Rig, stress_round: int) -> None:
        """Consumers killed while they work: what was acknowledged stays so, all others are handled again."""
        self.need_processes(rig.case, rig.directory)
        dice = random.Random(stress_round)  # noqa: S311 - the same every time

        def work(say: Say) -> None:
            with open_node(rig.case, rig.directory, "ware") as node:
                for received in node.receive("orders", prefetch=3):
                    say(["given", received.message.id.hex()])
                    received.ack()
                    say(["acked", received.message.id.hex()])

        children = [Child(work) for _ in range(3)]
        given: set[str] = set()
        acked: set[str] = set()
        try:
            rig.open("ware", "door", "shop", "daemon")
            for child in children:
                rig.send(MANY)  # to each its own: on a slow machine one may handle all before it is killed
                child.go()
                words = [child.hear() for _ in range(dice.randrange(5, 25))]
                child.kill()
                for kind, identity in [*words, *child.rest()]:
                    assert identity not in acked or kind == "acked", "an acknowledged message was given again"
                    (given if kind == "given" else acked).add(identity)
        finally:
            for child in children:
                child.close()
        rig.open("reader")
        lost = set(rig.sent) - {bytes.fromhex(identity) for identity in given | acked}
        rig.until(lambda: lost <= rig.arrived, 3 * self.patience, "the living consumer gets the rest")
        rig.until(lambda: not rig["shop"].outbox.peers()["ware"].awaiting, AFTER_A_LOST_POLL, "all receipts come home")
        assert not rig.arrived & {bytes.fromhex(identity) for identity in acked}, "an acknowledged one came back"
        assert rig.arrived <= set(rig.sent)

    def test_killed_servers_double_nothing(self, rig: Rig, stress_round: int) -> None:
        """Servers killed while they take mail in: each message enters once, whatever was confirmed."""
        self.need_processes(rig.case, rig.directory)
        if not rig.case.between_processes:
            pytest.skip("this transport does not reach another process")
        dice = random.Random(stress_round)  # noqa: S311 - the same every time
        rig.open("ware", "door")
        rig.close("door", "ware")

        def work(say: Say) -> None:
            with open_node(rig.case, rig.directory, "ware") as node:
                door = Door(node, rig.case.make_transport(), rig.url)
                say(door.url)
                threading.Event().wait(600)  # until it is killed

        children = [Child(work) for _ in range(4)]
        try:
            rig.open("ware", "reader", "shop", "daemon")
            for child in children:
                assert child.go().hear() == rig.url
                rig.send(MANY // 4)
                time.sleep(dice.random() * 0.03)
                child.kill()
        finally:
            for child in children:
                child.close()
        rig.open("door")
        self.conclude(rig)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────

    def test_nodes_close_in_the_middle_of_traffic(self, rig: Rig) -> None:
        """Closing everything while messages travel hangs nowhere, and what is closed says so."""
        rig.open()
        rig.send(MANY)
        shop = rig["shop"]
        rig.close()
        with pytest.raises(DroprError):
            shop.send(b"late", to="ware")


__all__ = ["NodeContract"]
