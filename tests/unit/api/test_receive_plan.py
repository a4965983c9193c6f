"""The plan of a receiving loop: limits, deadlines, unused leases; and both loops that carry it out."""

import asyncio
import contextlib
import os
from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropr_core.api import async_receive, consumer
from dropr_core.api.async_bridge import Endings
from dropr_core.api.receive_plan import Claim, End, Give, ReceivePlan, Settle, Wait
from dropr_core.errors import UsageError


@attrs.define(eq=False)
class Item:
    """A leased message, as far as the plan looks at it."""

    number: int
    settled: bool = False


@attrs.frozen
class Script:
    """What happens to a loop: what it was told, what is there to claim, how long things take."""

    size: int
    batches: bool
    limit: int | None
    wait: float | None
    timeout: float | None
    arrivals: Sequence[int]
    """How many messages are there at each claim, in turn; afterwards none."""
    body: Sequence[tuple[float, bool]]
    """For each time that the body runs, in turn: seconds, whether it settles by itself; afterwards (1, False)."""
    stop_after: int | None
    """The loop is abandoned in the body that runs this often."""

    def plan(self) -> ReceivePlan[Item]:
        """The plan of this loop."""
        return ReceivePlan(size=self.size, batches=self.batches, limit=self.limit, wait=self.wait, timeout=self.timeout)


scripts = st.builds(
    Script,
    size=st.integers(1, 5),
    batches=st.booleans(),
    limit=st.none() | st.integers(0, 12),
    wait=st.none() | st.sampled_from([0.0, 0.5, 3.0]),
    timeout=st.none() | st.sampled_from([0.0, 0.5, 2.5, 6.0]),
    arrivals=st.lists(st.integers(0, 4), max_size=12),
    body=st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 4.0]), st.booleans()), max_size=12),
    stop_after=st.none() | st.integers(1, 6),
)


class World:
    """What a script makes of the time and of the queue; notes everything that the loop does."""

    def __init__(self, script: Script) -> None:
        self.script, self.now = script, 100.0
        self.arrivals, self.bodies = list(script.arrivals), list(script.body)
        self.items: list[Item] = []
        self.ran = 0
        self.log: list[tuple[object, ...]] = []

    def claim(self, limit: int) -> list[Item]:
        """Up to ``limit`` new items, as many as the script says."""
        count = min(limit, self.arrivals.pop(0)) if self.arrivals else 0
        new = [Item(len(self.items) + index) for index in range(count)]
        self.items += new
        self.log.append(("claim", limit, count, self.now))
        return new

    def run_body(self, items: Sequence[Item]) -> bool:
        """The loop body; whether the loop goes on after it."""
        self.log.append(("give", [item.number for item in items], self.now))
        self.ran += 1
        if self.ran == self.script.stop_after:
            return False
        seconds, settles = self.bodies.pop(0) if self.bodies else (1.0, False)
        self.now += seconds
        for item in items[:1]:
            item.settled = settles
        return True

    def sleep(self, seconds: float | None) -> None:
        """Time passes, at most a second at once, as somebody may be woken early."""
        self.log.append(("wait", seconds, self.now))
        self.now += 1.0 if seconds is None else min(1.0, seconds)

    def settle(self, word: str, items: Sequence[Item]) -> None:
        """What is acknowledged or given back must be so for the first time."""
        for item in items:
            assert not item.settled, item
            item.settled = True
        if items:
            self.log.append((word, [item.number for item in items]))

    @property
    def endless(self) -> bool:
        """Nothing will ever happen any more, and nothing ends the loop."""
        return not self.arrivals and self.now > 1000


def drive(script: Script) -> World:
    """Carry out the plan of a script."""
    world, plan = World(script), script.plan()
    while not isinstance(step := plan.next(world.now), End):
        if isinstance(step, Claim):
            plan.claimed(world.claim(step.limit))
        elif isinstance(step, Wait):
            world.sleep(step.seconds)
            if world.endless:
                break
        elif isinstance(step, Give):
            if not world.run_body(step.messages):
                break
        else:
            world.settle("ack", step.acknowledge)
            world.settle("requeue", step.requeue)
    else:
        world.log.append(("end", world.now))
    world.settle("requeue", plan.abandon())
    return world


@settings(max_examples=400)
@given(script=scripts)
def test_the_promises_of_the_loop(script):
    """Whatever happens: each lease is settled once, limits and deadlines hold, the order is kept."""
    world = drive(script)
    assert all(item.settled for item in world.items)
    given_out = [number for entry in world.log if entry[0] == "give" for number in entry[1]]
    assert given_out == sorted(given_out)
    assert script.limit is None or len(given_out) <= script.limit
    assert all(0 < entry[1] <= script.size for entry in world.log if entry[0] == "claim")
    assert script.batches or all(len(entry[1]) == 1 for entry in world.log if entry[0] == "give")
    over = None if script.timeout is None else 100.0 + script.timeout
    if over is not None:
        begun = [entry for entry in world.log if entry[0] in {"give", "wait"} and entry[-1] >= over]
        first = next((entry for entry in world.log if entry[0] == "give"), None)
        assert all(entry is first for entry in begun)
        assert all(entry[1] is not None and entry[1] <= over - entry[2] for entry in world.log if entry[0] == "wait")
    if script.timeout is not None or script.wait is not None:
        assert world.ran == script.stop_after or world.log[-1][0] == "end"
    acknowledged = [number for entry in world.log if entry[0] == "ack" for number in entry[1]]
    assert acknowledged == sorted(acknowledged)


@settings(max_examples=100)
@given(script=scripts)
def test_a_quiet_queue_ends_the_loop_after_the_wait(script):
    """With ``wait`` the loop ends by itself, and not sooner than so long after the last message."""
    script = attrs.evolve(script, wait=3.0, timeout=None, limit=None, stop_after=None)
    world = drive(script)
    assert world.log[-1][0] == "end"
    gives = [entry[2] for entry in world.log if entry[0] == "give"]
    assert world.log[-1][1] >= (gives[-1] if gives else 100.0) + 3.0


def test_unused_messages_go_back_when_the_time_is_over():
    """Ten leased at once, a tenth of a second each, three tenths in all: three are done and seven go back."""
    script = Script(10, False, None, None, 0.3, [10], [(0.1000001, False)] * 10, None)
    world = drive(script)
    assert [entry[1] for entry in world.log if entry[0] == "ack"] == [[0], [1], [2]]
    assert world.log[-2][:2] == ("requeue", list(range(3, 10)))


def test_what_is_ready_is_given_however_short_the_time():
    """A timeout or a wait of nothing drains or gives what is there, and never waits."""
    assert [e[0] for e in drive(Script(1, False, None, 0.0, None, [1, 1], [], None)).log] == [
        "claim", "give", "ack", "claim", "give", "ack", "claim", "end",
    ]  # fmt: skip
    assert [e[0] for e in drive(Script(1, False, None, None, 0.0, [1, 1], [], None)).log] == [
        "claim", "give", "ack", "end",
    ]  # fmt: skip


def test_what_a_failed_settlement_named_is_abandoned_with_the_rest():
    """Whoever could not carry out a `Settle` finds its messages among those to give back, each once."""
    plan, items = ReceivePlan[Item](size=3, timeout=1.0), [Item(number) for number in range(3)]
    plan.next(0.0)
    plan.claimed(items)
    assert plan.next(0.0) == Give([items[0]])
    step = plan.next(0.5)
    assert step == Settle([items[0]], [])
    assert plan.abandon() == items
    assert isinstance(plan.next(0.6), End)


def test_what_was_carried_out_is_not_abandoned():
    """After a `Settle` the next step says that it is done: only what is still leased goes back."""
    plan, items = ReceivePlan[Item](size=3), [Item(number) for number in range(3)]
    plan.next(0.0)
    plan.claimed(items)
    plan.next(0.0)
    assert plan.next(0.0) == Settle([items[0]], [])
    items[0].settled = True
    assert plan.next(0.0) == Give([items[1]])
    assert plan.abandon() == items[1:]
    assert plan.abandon() == []


def test_nothing_is_waited_for_before_a_second_look():
    """Between asking to be notified and the wait stands one more look: what came in between is found."""
    plan = ReceivePlan[Item](size=1)
    assert plan.next(0.0) == Claim(1, prepared=False)
    plan.claimed([])
    assert plan.next(0.0) == Claim(1, prepared=True)
    plan.claimed([])
    assert plan.next(0.0) == Wait(None)
    assert plan.next(0.0) == Claim(1, prepared=False)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "5", None])
def test_a_wrong_size_is_refused_by_the_name_it_was_given_by(wrong):
    """A size that would silently give nothing is an error that names the argument."""
    with pytest.raises(UsageError, match=r"prefetch is .*: give a whole number of at least 1"):
        ReceivePlan(size=wrong, name="prefetch")


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "5"])
def test_a_wrong_limit_is_refused(wrong):
    """A limit below nought is an error; nought is a loop without a message."""
    with pytest.raises(UsageError, match=r"limit is .*: give a whole number of at least 0"):
        ReceivePlan(size=1, limit=wrong)
    assert isinstance(ReceivePlan(size=1, limit=0).next(0.0), End)


# ── the two loops that carry a plan out ──────────────────────────────────────────────────────────


class ScriptedConsumer:
    """In place of a `Consumer`: what it brings and how long it waits stands in the script. Where messages are given one
    by one it holds the others that it claimed, as a consumer that prefetches does.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.held: list[Item] = []
        self._reader, self._writer = os.pipe()
        os.write(self._writer, b"!")  # always readable: who watches the descriptor goes on at once

    def look(self, step: Claim) -> list[Item]:
        """As `Consumer.look`."""
        found = self.held or self.world.claim(step.limit)
        if self.world.script.batches:
            return found
        self.held = found[1:]
        return found[:1]

    def pass_on(self, given: list[Item]) -> list[Item]:
        """As `Consumer.pass_on`."""
        if not self.held:
            return []
        self.world.settle("ack", [item for item in given if not item.settled])
        return [self.held.pop(0)]

    def settle(self, step: Settle[Item]) -> None:
        """As `Consumer.settle`."""
        self.world.settle("ack", step.acknowledge)
        self.world.settle("requeue", step.requeue)

    def wait(self, seconds: float | None) -> None:
        """As `Consumer.wait`."""
        self.world.sleep(seconds)
        if self.world.endless:
            raise EndlessError

    def patience(self, seconds: float | None) -> float:
        """As `Consumer.patience`; the time passes here."""
        self.wait(seconds)
        return 10.0

    def fileno(self) -> int:
        """As `Consumer.fileno`."""
        return self._reader

    def settle_now(self) -> None:
        """As `Consumer.settle_now`."""
        self.world.log.append(("settled",))

    def end(self, unused: list[Item]) -> None:
        """As `Consumer.end`."""
        self.world.settle("requeue", [*unused, *self.held])
        self.world.log.append(("closed",))
        os.close(self._reader)
        os.close(self._writer)


class EndlessError(Exception):
    """Ends a loop that would wait for ever."""


def run_blocking(script: Script) -> World:
    """The loop of `Node` with this script."""
    world = World(script)
    loop = consumer.receive(lambda: ScriptedConsumer(world), script.plan(), lambda: world.now)
    with contextlib.suppress(EndlessError), contextlib.closing(loop):
        for items in loop:
            if not world.run_body(items):
                break
    return world


def run_in_event_loop(script: Script) -> World:
    """The loop of `AsyncNode` with this script."""
    world = World(script)

    async def main():
        loop = async_receive.receive(lambda: ScriptedConsumer(world), script.plan(), Endings(), lambda: world.now)
        with contextlib.suppress(EndlessError):
            async with contextlib.aclosing(loop):
                async for items in loop:
                    if not world.run_body(items):
                        break

    asyncio.run(main())
    return world


@settings(max_examples=60, deadline=None)
@given(script=scripts)
def test_both_loops_do_the_same(script):
    """The blocking and the asyncio loop do the same things in the same order for the same script of events."""
    blocking, looped = run_blocking(script), run_in_event_loop(script)
    assert blocking.log == looped.log
    assert blocking.log[-1] == ("closed",)
    given = [entry[1] for entry in blocking.log if entry[0] == "give"]
    assert [number for numbers in given for number in numbers] == list(range(sum(map(len, given)))), "order"
    assert script.limit is None or sum(map(len, given)) <= script.limit
    assert all(item.settled for item in blocking.items)
