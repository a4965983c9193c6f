"""The lane protocol under every mixture of faults: the real code of both sides above a fake network and fake disks."""

import copy
import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from support.world import Sender, World

from dropr_core.builtin.memory_data import InboxData
from dropr_core.model.message import State

CHANNELS = ["a", "b"]


class Lanes(RuleBasedStateMachine):
    """A sender (later two, if it is cloned), a receiver, and everything that can happen to them."""

    def __init__(self):
        super().__init__()
        self.world = World()
        self.senders = [self.world.sender]
        self.next = 1
        self.forgiven = set()
        """What may be missing: its only copy was in a store that was wiped or rolled back."""
        self.sent_by = {self.world.sender: []}
        """sender → (number, channel, receipt) in the order of its sends, those rolled back taken out."""
        self.backups = []
        self.inbox_backups = []
        self.calm = True
        """No store was harmed so far: then nothing at all may be flagged or doubled."""

    # ── the ordinary life ────────────────────────────────────────────────────────────────────────

    def sender(self, pick):
        """One of the senders."""
        return self.senders[pick % len(self.senders)]

    @rule(pick=st.integers(0, 1), channel=st.sampled_from(CHANNELS), count=st.integers(1, 4), receipt=st.booleans())
    def send(self, pick, channel, count, receipt):
        """Append some messages to a lane."""
        sender = self.sender(pick)
        for _ in range(count):
            sender.send(self.next, channel, receipt=receipt)
            self.sent_by[sender].append((self.next, channel, receipt))
            self.next += 1
        self.turn()

    @rule(pick=st.integers(0, 1), which=st.integers(0, 50))
    def cancel(self, pick, which):
        """Take a message back, if it is not under way."""
        sender = self.sender(pick)
        mine = self.sent_by[sender]
        if mine:
            number, *_ = mine[which % len(mine)]
            cancelled, _late = sender.outbox.cancel(number.to_bytes(16, "big"))
            if cancelled:
                self.forgiven.add(number)

    def turn(self):
        """Every daemon does what it can: after anything that could give it something to do."""
        for sender in self.senders:
            sender.turn()  # reads answers
            sender.turn()  # and asks what follows from them

    @rule(seconds=st.sampled_from([0.1, 2.0]))
    def wait(self, seconds):
        """Let time pass."""
        self.world.clock.advance(seconds)
        self.turn()

    # ── the road ─────────────────────────────────────────────────────────────────────────────────

    def letter(self, pick, which):
        """One of the requests on the road, with its road."""
        letters = [(sender.road, letter) for sender in self.senders for letter in sender.road.letters]
        return letters[which % len(letters)] if letters else (None, None)

    @rule(pick=st.integers(0, 1), which=st.integers(0, 9))
    def arrive(self, pick, which):
        """A request arrives: the first time, or as a double that comes later or out of order."""
        road, letter = self.letter(pick, which)
        if letter:
            road.arrive(letter)

    @rule(pick=st.integers(0, 1), which=st.integers(0, 9))
    def come_home(self, pick, which):
        """An answer reaches its asker."""
        road, letter = self.letter(pick, which)
        if letter and letter.answer is not None:
            road.come_home(letter)
            self.turn()

    @rule(which=st.integers(0, 9))
    def there_and_back(self, which):
        """A request and its answer, without a mishap."""
        road, letter = self.letter(0, which)
        if letter:
            road.arrive(letter)
            road.come_home(letter)
            self.turn()

    @rule()
    def good_weather(self):
        """Everything on the road gets where it goes, some times over."""
        for _ in range(3):
            for road, letter in [(sender.road, letter) for sender in self.senders for letter in sender.road.letters]:
                road.arrive(letter)
                road.come_home(letter)
            self.turn()

    @rule(which=st.integers(0, 9))
    def lose(self, which):
        """A request or its answer is lost."""
        road, letter = self.letter(0, which)
        if letter:
            road.lose(letter, certain=letter.answer is None and which % 2 == 0)
            self.turn()

    # ── deaths ───────────────────────────────────────────────────────────────────────────────────

    @rule(pick=st.integers(0, 1))
    def daemon_dies(self, pick):
        """A daemon is killed and started again."""
        self.sender(pick).restart()
        self.turn()

    @rule()
    def server_dies(self):
        """The server is killed and started again: it knows no session."""
        self.world.set_inbox(self.world.inbox_data)

    @rule(full=st.booleans())
    def disk_fills(self, full):
        """The receiver has no room for a while."""
        self.world.set_inbox(self.world.inbox_data, **({"max_messages": 1} if full else {}))

    # ── disasters ────────────────────────────────────────────────────────────────────────────────

    def lose_inbox(self, data):
        """The receiver goes on with another store; what only the old one knew is lost."""
        self.calm = False
        there = {task.job.id for task in data.items.values()}
        for sender in self.senders:
            for number, _channel, receipt in self.sent_by[sender]:
                identity = number.to_bytes(16, "big")
                if identity in self.world.entered and identity not in there and not receipt:
                    self.forgiven.add(number)  # it was the receiver's, who may have said so
        self.world.set_inbox(data)

    @rule()
    def receiver_wiped(self):
        """The receiver's store is destroyed and made anew."""
        self.lose_inbox(InboxData())

    @rule()
    def receiver_backup(self):
        """Somebody keeps a copy of the receiver's store."""
        self.inbox_backups = [*self.inbox_backups[-2:], copy.deepcopy(self.world.inbox_data)]

    @precondition(lambda self: self.inbox_backups)
    @rule(which=st.integers(0, 2))
    def receiver_restored(self, which):
        """The receiver goes on from a copy."""
        self.lose_inbox(copy.deepcopy(self.inbox_backups[which % len(self.inbox_backups)]))

    @rule(pick=st.integers(0, 1))
    def sender_backup(self, pick):
        """Somebody keeps a copy of a sender's store."""
        sender = self.sender(pick)
        self.backups = [*self.backups[-2:], (sender.snapshot(), list(self.sent_by[sender]))]

    @precondition(lambda self: self.backups)
    @rule(pick=st.integers(0, 1), which=st.integers(0, 2))
    def sender_rolled_back(self, pick, which):
        """A sender goes on from a copy: what it was told since, only the destroyed store knew."""
        self.calm = False
        data, sent = self.backups[which % len(self.backups)]
        old = self.sender(pick)
        kept = {number for number, *_ in sent}
        for number, *_ in self.sent_by.pop(old):
            if number not in kept:
                self.forgiven.add(number)
        self.senders[self.senders.index(old)] = new = Sender(self.world, copy.deepcopy(data))
        self.sent_by[new] = list(sent)

    @precondition(lambda self: len(self.senders) == 1)
    @rule()
    def sender_cloned(self):
        """A machine is copied, and both go on."""
        self.calm = False
        clone = Sender(self.world, self.senders[0].snapshot())
        self.sent_by[clone] = list(self.sent_by[self.senders[0]])
        self.senders.append(clone)

    # ── what must hold ───────────────────────────────────────────────────────────────────────────

    @invariant()
    def nothing_is_settled_that_never_entered(self):
        """What a sender holds as accepted was in a queue of the receiver."""
        for sender in self.senders:
            for number, _channel, _receipt in self.sent_by[sender]:
                identity = number.to_bytes(16, "big")
                states = {delivery.state for delivery in sender.outbox.status(identity)}
                if number not in self.forgiven and (not states or states & {State.ACCEPTED}):
                    assert identity in self.world.entered, f"{number} is taken as accepted and never entered"

    @invariant()
    def nothing_enters_twice_without_saying_so(self):
        """One entry of each message is not flagged, the others are."""
        plain = [number for number, flagged in self.world.queue() if not flagged]
        assert len(plain) == len(set(plain)), plain
        if self.calm:
            assert len(plain) == len(self.world.queue()), "flagged without a reason"

    @invariant()
    def lanes_keep_their_order(self):
        """What is not flagged stands in the order of its sender, lane by lane."""
        for sender in self.senders:
            for channel in CHANNELS:
                mine = [number for number, where, _ in self.sent_by[sender] if where == channel]
                place = {number: index for index, number in enumerate(mine)}
                got = [place[number] for number, flagged in self.world.queue() if number in place and not flagged]
                assert got == sorted(got), (channel, got)

    @staticmethod
    def awaits(sender, number):
        """Whether a sender still waits for the receipt of a message."""
        found = sender.outbox.status(number.to_bytes(16, "big"))
        return any(delivery.receipt and delivery.state is State.ACCEPTED for delivery in found)

    def teardown(self):
        """The road is good from now on: in the end everything acknowledged is there."""
        self.world.set_inbox(self.world.inbox_data)
        for sender in self.senders:
            for channel in CHANNELS:  # a lane notices what happened to its peer when it has something to say
                sender.send(self.next, channel)
                self.sent_by[sender].append((self.next, channel, False))
                self.next += 1
        self.world.settle_down(*self.senders)
        present = set(self.world.numbers())
        for sender in self.senders:
            missing = {number for number, *_ in self.sent_by[sender]} - present - self.forgiven
            if self.world.named("rolled_back"):
                # Two disasters at once: a clone got the numbers that a wiped receiver lost. What was accepted waits
                # for a receipt that will not come; the sender knows it, and ends it as dead when its life is over.
                missing -= {number for number in missing if self.awaits(sender, number)}
            assert not missing, f"lost: {sorted(missing)}"
        self.nothing_enters_twice_without_saying_so()
        self.lanes_keep_their_order()


class Calm(Lanes):
    """The same without disasters: then nothing may be flagged either, and the order is the order of the sends."""

    receiver_wiped = receiver_restored = sender_rolled_back = sender_cloned = None

    def teardown(self):
        """Everything entered once, exactly in the order of its lane."""
        super().teardown()
        for channel in CHANNELS:
            mine = [number for number, where, _ in self.sent_by[self.senders[0]] if where == channel]
            got = [number for number in self.world.numbers() if number in set(mine)]
            assert got == [number for number in mine if number in set(got)]
            assert set(mine) - set(got) <= self.forgiven


DEEP = bool(os.environ.get("DROPR_DEEP"))
PROFILE = settings(max_examples=3000 if DEEP else 100, stateful_step_count=60, deadline=None, derandomize=not DEEP,
                   suppress_health_check=list(HealthCheck))  # fmt: skip


@pytest.mark.parametrize("machine", [Calm, Lanes])
def test_the_lane_protocol_survives_every_mixture_of_faults(machine):
    """Nothing acknowledged is lost, nothing enters twice unflagged, lanes keep their order, whatever happens."""
    run_state_machine_as_test(machine, settings=PROFILE)
