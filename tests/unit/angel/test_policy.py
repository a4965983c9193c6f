"""The rules of supervision, with a clock that moves only when told to."""

import random

from dropr_core.angel.policy import Action, ChildState, Policy, State
from dropr_core.model.backoff import Backoff
from dropr_core.system.clock import FakeClock
from dropr_core.system.exit_codes import Exit, describe_exit


def running(clock: FakeClock, **policy: object) -> ChildState:
    child_state = ChildState("worker", Policy(**policy), start_at=clock.now())
    assert child_state.decide(clock.now()) is Action.START
    child_state.started(clock.now(), 4711)
    child_state.heard(clock.now(), ready=True)
    assert child_state.state is State.RUNNING
    return child_state


def again(child_state: ChildState, clock: FakeClock, code: int) -> float:
    """End the child, wait out the delay, start it again; the delay."""
    child_state.ended(clock.now(), code)
    delay = child_state.due() - clock.now()
    clock.advance(delay)
    assert child_state.decide(clock.now()) is Action.START
    child_state.started(clock.now(), 4712)
    child_state.heard(clock.now(), ready=True)
    return delay


def test_fault_24_the_delay_doubles_to_its_cap_and_health_resets_it():
    """A crash loop is slowed from 0.1 s to 30 s, and a minute of health forgets it."""
    clock = FakeClock()
    child_state = running(clock)
    delays = [round(again(child_state, clock, 1), 3) for _ in range(11)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    clock.advance(59)
    assert again(child_state, clock, 1) == 30.0
    clock.advance(60)
    assert round(again(child_state, clock, 1), 3) == 0.1


def test_ancestor_14_any_way_to_die_at_once_is_slowed_down():
    """Whatever a child does in a loop (crash, end, recycle, not start), starts become rare: no burnt CPU."""
    for code in (0, 1, -9, Exit.RECYCLE, None):
        clock = FakeClock()
        child_state = ChildState("daemon", Policy(), start_at=clock.now())
        starts = 0
        while clock.now() < 1000 + 600:
            assert child_state.decide(clock.now()) is Action.START
            starts += 1
            if code is None:
                child_state.start_failed(clock.now(), "no such file")
            else:
                child_state.started(clock.now(), 5)
                child_state.ended(clock.now(), code)
            clock.advance(child_state.due() - clock.now())
        assert starts < 35, code


def test_fault_25_a_silent_child_is_terminated_then_killed_then_restarted():
    """Silence for the hang time ends a child although its process lives."""
    clock = FakeClock()
    child_state = running(clock, hang=60, grace=5)
    clock.advance(59)
    assert child_state.decide(clock.now()) is None
    child_state.heard(clock.now())
    clock.advance(59)
    assert child_state.decide(clock.now()) is None
    clock.advance(1)
    assert child_state.decide(clock.now()) is Action.TERMINATE
    assert child_state.decide(clock.now()) is None
    clock.advance(5)
    assert child_state.decide(clock.now()) is Action.KILL
    verdict = child_state.ended(clock.now(), -9)
    assert "silent for 60 s, killed by SIGKILL" in verdict.text
    assert child_state.state is State.WAITING
    assert child_state.failures == 1


def test_a_child_that_hangs_at_once_each_time_is_never_taken_for_healthy():
    """The time of silence does not count as health, so the backoff of a hanging child grows."""
    clock = FakeClock()
    child_state = ChildState("server", Policy(hang=60, healthy=60), start_at=clock.now())
    for _ in range(3):
        clock.advance(max(0.0, child_state.due() - clock.now()))
        assert child_state.decide(clock.now()) is Action.START
        child_state.started(clock.now(), 9)
        clock.advance(60)
        assert child_state.decide(clock.now()) is Action.TERMINATE
        child_state.ended(clock.now(), 0)
    assert child_state.failures == 3


def test_a_silence_of_the_angel_itself_is_forgiven():
    """An angel that was stopped or asleep gives each child a whole new period."""
    clock = FakeClock()
    child_state = running(clock, hang=60)
    clock.advance(5000)
    child_state.forgive(clock.now())
    assert child_state.decide(clock.now()) is None
    clock.advance(60)
    assert child_state.decide(clock.now()) is Action.TERMINATE


def test_an_unwatched_child_is_never_taken_for_hung():
    """A child without heart-beats counts as ready at once and has no deadline."""
    child_state = ChildState("sidecar", Policy(), watched=False)
    child_state.started(0.0, 3)
    assert child_state.state is State.RUNNING
    assert child_state.due() is None


def test_exit_78_stays_down_until_a_reload():
    """A wrong configuration is not tried again by itself; a reload gives a new chance."""
    clock = FakeClock()
    child_state = running(clock)
    assert "stays down" in child_state.ended(clock.now(), 78).text
    assert child_state.state is State.MISCONFIGURED
    assert child_state.due() is None
    assert child_state.reload(clock.now()) is None
    assert child_state.decide(clock.now()) is Action.START


def test_exit_75_starts_again_at_once_and_is_no_crash():
    """A worn child is replaced without delay, and its failures before are neither grown nor forgotten."""
    clock = FakeClock()
    child_state = running(clock)
    clock.advance(2)
    assert "fresh one" in child_state.ended(clock.now(), 75).text
    assert child_state.due() == clock.now()
    assert (child_state.failures, child_state.restarts) == (0, 1)


def test_too_much_memory_means_drain_then_a_fresh_start():
    """Over the limit a child gets the whole drain time, and its end is no crash."""
    clock = FakeClock()
    child_state = running(clock, max_memory=1000, drain=25)
    assert child_state.weighed(clock.now(), None) is None
    assert child_state.weighed(clock.now(), 1000) is None
    clock.advance(100)
    child_state.heard(clock.now())
    assert child_state.weighed(clock.now(), 1001) is Action.TERMINATE
    assert child_state.weighed(clock.now(), 1001) is None
    clock.advance(24)
    assert child_state.decide(clock.now()) is None
    child_state.ended(clock.now(), 0)
    assert child_state.due() == clock.now()
    assert child_state.failures == 0


def test_a_memory_limit_below_what_a_start_needs_backs_off():
    """A child that is over its limit as soon as it lives is slowed down and the limit is doubted."""
    clock = FakeClock()
    child_state = running(clock, max_memory=1)
    child_state.weighed(clock.now(), 2)
    clock.advance(3)
    assert "limit set too low" in child_state.ended(clock.now(), 0).text
    assert child_state.failures == 1


def test_a_reload_waits_for_a_child_that_still_starts():
    """SIGHUP would kill a child that has no handler yet; it is sent when the child is ready."""
    child_state = ChildState("daemon")
    child_state.started(0.0, 3)
    assert child_state.reload(1.0) is None
    assert child_state.heard(2.0) is None
    assert child_state.heard(3.0, ready=True) is Action.RELOAD
    assert child_state.heard(4.0, ready=True) is None


def test_stop_from_every_state_ends_without_a_restart():
    """Whatever a child is doing, after a stop it ends stopped."""
    clock = FakeClock()
    waiting = ChildState("a")
    assert waiting.stop(clock.now()) is None
    assert waiting.state is State.STOPPED
    draining = running(clock, drain=25, grace=5)
    assert draining.stop(clock.now()) is Action.TERMINATE
    assert draining.decide(clock.now() + 24) is None
    draining.hurry(clock.now())
    assert draining.decide(clock.now()) is Action.KILL
    assert draining.decide(clock.now() + 5) is Action.GIVE_UP
    assert draining.state is State.STUCK
    draining.ended(clock.now(), -9)
    assert draining.state is State.STOPPED
    hung = running(clock, hang=1)
    clock.advance(2)
    hung.decide(clock.now())
    hung.stop(clock.now())
    hung.ended(clock.now(), 78)
    assert hung.state is State.STOPPED


def test_no_sequence_of_events_leaves_a_ward_without_a_future():
    """After any history a child has a deadline, or waits for a reload, or lives unwatched, or is stopped."""
    for seed in range(300):
        rng, clock = random.Random(seed), FakeClock()
        child_state = ChildState("w", Policy(backoff=Backoff(0.1, 30), max_memory=100), start_at=clock.now())
        for _ in range(60):
            clock.advance(rng.choice([0, 0.05, 1, 10, 61]))
            now = clock.now()
            if child_state.decide(now) is Action.START:
                if rng.random() < 0.2:
                    child_state.start_failed(now, "no")
                else:
                    child_state.started(now, 7)
            if child_state.pid is not None:
                step = rng.choice(["heard", "ready", "weighed", "ended", "nothing"])
                if step == "ended":
                    child_state.ended(now, rng.choice([0, 1, 75, 78, -9]))
                elif step == "weighed":
                    child_state.weighed(now, 101)
                elif step != "nothing":
                    child_state.heard(now, ready=step == "ready")
            if rng.random() < 0.1:
                child_state.reload(now)
            resting = {State.MISCONFIGURED, State.STUCK}
            assert child_state.due() is not None or child_state.state in resting
            assert (child_state.pid is None) == (child_state.state in {State.WAITING, State.MISCONFIGURED})


def test_exit_codes_are_said_in_words():
    """A person reads what an exit code or a signal means."""
    assert describe_exit(78) == "exit 78 (wrong configuration)"
    assert describe_exit(3) == "exit 3"
    assert describe_exit(-15) == "killed by SIGTERM"
    assert describe_exit(-34567) == "killed by signal 34567"
    assert Exit.RECYCLE == Exit.TEMPFAIL == 75
