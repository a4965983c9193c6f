"""The rules of supervision, with a clock that moves only when told to."""

import random

from dropr_core.angel.policy import Action, Policy, State, Ward
from dropr_core.model.backoff import Backoff
from dropr_core.system.clock import FakeClock
from dropr_core.system.exit_codes import Exit, describe_exit


def running(clock: FakeClock, **policy: object) -> Ward:
    ward = Ward("worker", Policy(**policy), start_at=clock.now())
    assert ward.decide(clock.now()) is Action.START
    ward.started(clock.now(), 4711)
    ward.heard(clock.now(), ready=True)
    assert ward.state is State.RUNNING
    return ward


def again(ward: Ward, clock: FakeClock, code: int) -> float:
    """End the child, wait out the delay, start it again; the delay."""
    ward.ended(clock.now(), code)
    delay = ward.due() - clock.now()
    clock.advance(delay)
    assert ward.decide(clock.now()) is Action.START
    ward.started(clock.now(), 4712)
    ward.heard(clock.now(), ready=True)
    return delay


def test_fault_24_the_delay_doubles_to_its_cap_and_health_resets_it():
    """A crash loop is slowed from 0.1 s to 30 s, and a minute of health forgets it."""
    clock = FakeClock()
    ward = running(clock)
    delays = [round(again(ward, clock, 1), 3) for _ in range(11)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    clock.advance(59)
    assert again(ward, clock, 1) == 30.0
    clock.advance(60)
    assert round(again(ward, clock, 1), 3) == 0.1


def test_ancestor_14_any_way_to_die_at_once_is_slowed_down():
    """Whatever a child does in a loop (crash, end, recycle, not start), starts become rare: no burnt CPU."""
    for code in (0, 1, -9, Exit.RECYCLE, None):
        clock = FakeClock()
        ward = Ward("daemon", Policy(), start_at=clock.now())
        starts = 0
        while clock.now() < 1000 + 600:
            assert ward.decide(clock.now()) is Action.START
            starts += 1
            if code is None:
                ward.start_failed(clock.now(), "no such file")
            else:
                ward.started(clock.now(), 5)
                ward.ended(clock.now(), code)
            clock.advance(ward.due() - clock.now())
        assert starts < 35, code


def test_fault_25_a_silent_child_is_terminated_then_killed_then_restarted():
    """Silence for the hang time ends a child although its process lives."""
    clock = FakeClock()
    ward = running(clock, hang=60, grace=5)
    clock.advance(59)
    assert ward.decide(clock.now()) is None
    ward.heard(clock.now())
    clock.advance(59)
    assert ward.decide(clock.now()) is None
    clock.advance(1)
    assert ward.decide(clock.now()) is Action.TERMINATE
    assert ward.decide(clock.now()) is None
    clock.advance(5)
    assert ward.decide(clock.now()) is Action.KILL
    verdict = ward.ended(clock.now(), -9)
    assert "silent for 60 s, killed by SIGKILL" in verdict.text
    assert ward.state is State.WAITING
    assert ward.failures == 1


def test_a_child_that_hangs_at_once_each_time_is_never_taken_for_healthy():
    """The time of silence does not count as health, so the backoff of a hanging child grows."""
    clock = FakeClock()
    ward = Ward("server", Policy(hang=60, healthy=60), start_at=clock.now())
    for _ in range(3):
        clock.advance(max(0.0, ward.due() - clock.now()))
        assert ward.decide(clock.now()) is Action.START
        ward.started(clock.now(), 9)
        clock.advance(60)
        assert ward.decide(clock.now()) is Action.TERMINATE
        ward.ended(clock.now(), 0)
    assert ward.failures == 3


def test_a_silence_of_the_angel_itself_is_forgiven():
    """An angel that was stopped or asleep gives each child a whole new period."""
    clock = FakeClock()
    ward = running(clock, hang=60)
    clock.advance(5000)
    ward.forgive(clock.now())
    assert ward.decide(clock.now()) is None
    clock.advance(60)
    assert ward.decide(clock.now()) is Action.TERMINATE


def test_an_unwatched_child_is_never_taken_for_hung():
    """A child without heart-beats counts as ready at once and has no deadline."""
    ward = Ward("sidecar", Policy(), watched=False)
    ward.started(0.0, 3)
    assert ward.state is State.RUNNING
    assert ward.due() is None


def test_exit_78_stays_down_until_a_reload():
    """A wrong configuration is not tried again by itself; a reload gives a new chance."""
    clock = FakeClock()
    ward = running(clock)
    assert "stays down" in ward.ended(clock.now(), 78).text
    assert ward.state is State.MISCONFIGURED
    assert ward.due() is None
    assert ward.reload(clock.now()) is None
    assert ward.decide(clock.now()) is Action.START


def test_exit_75_starts_again_at_once_and_is_no_crash():
    """A worn child is replaced without delay, and its failures before are neither grown nor forgotten."""
    clock = FakeClock()
    ward = running(clock)
    clock.advance(2)
    assert "fresh one" in ward.ended(clock.now(), 75).text
    assert ward.due() == clock.now()
    assert (ward.failures, ward.restarts) == (0, 1)


def test_too_much_memory_means_drain_then_a_fresh_start():
    """Over the limit a child gets the whole drain time, and its end is no crash."""
    clock = FakeClock()
    ward = running(clock, max_memory=1000, drain=25)
    assert ward.weighed(clock.now(), None) is None
    assert ward.weighed(clock.now(), 1000) is None
    clock.advance(100)
    ward.heard(clock.now())
    assert ward.weighed(clock.now(), 1001) is Action.TERMINATE
    assert ward.weighed(clock.now(), 1001) is None
    clock.advance(24)
    assert ward.decide(clock.now()) is None
    ward.ended(clock.now(), 0)
    assert ward.due() == clock.now()
    assert ward.failures == 0


def test_a_memory_limit_below_what_a_start_needs_backs_off():
    """A child that is over its limit as soon as it lives is slowed down and the limit is doubted."""
    clock = FakeClock()
    ward = running(clock, max_memory=1)
    ward.weighed(clock.now(), 2)
    clock.advance(3)
    assert "limit set too low" in ward.ended(clock.now(), 0).text
    assert ward.failures == 1


def test_a_reload_waits_for_a_child_that_still_starts():
    """SIGHUP would kill a child that has no handler yet; it is sent when the child is ready."""
    ward = Ward("daemon")
    ward.started(0.0, 3)
    assert ward.reload(1.0) is None
    assert ward.heard(2.0) is None
    assert ward.heard(3.0, ready=True) is Action.RELOAD
    assert ward.heard(4.0, ready=True) is None


def test_stop_from_every_state_ends_without_a_restart():
    """Whatever a child is doing, after a stop it ends stopped."""
    clock = FakeClock()
    waiting = Ward("a")
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
    """After any history a ward has a deadline, or waits for a reload, or lives unwatched, or is stopped."""
    for seed in range(300):
        rng, clock = random.Random(seed), FakeClock()
        ward = Ward("w", Policy(backoff=Backoff(0.1, 30), max_memory=100), start_at=clock.now())
        for _ in range(60):
            clock.advance(rng.choice([0, 0.05, 1, 10, 61]))
            now = clock.now()
            if ward.decide(now) is Action.START:
                if rng.random() < 0.2:
                    ward.start_failed(now, "no")
                else:
                    ward.started(now, 7)
            if ward.pid is not None:
                step = rng.choice(["heard", "ready", "weighed", "ended", "nothing"])
                if step == "ended":
                    ward.ended(now, rng.choice([0, 1, 75, 78, -9]))
                elif step == "weighed":
                    ward.weighed(now, 101)
                elif step != "nothing":
                    ward.heard(now, ready=step == "ready")
            if rng.random() < 0.1:
                ward.reload(now)
            resting = {State.MISCONFIGURED, State.STUCK}
            assert ward.due() is not None or ward.state in resting
            assert (ward.pid is None) == (ward.state in {State.WAITING, State.MISCONFIGURED})


def test_exit_codes_are_said_in_words():
    """A person reads what an exit code or a signal means."""
    assert describe_exit(78) == "exit 78 (wrong configuration)"
    assert describe_exit(3) == "exit 3"
    assert describe_exit(-15) == "killed by SIGTERM"
    assert describe_exit(-34567) == "killed by signal 34567"
    assert Exit.RECYCLE == Exit.TEMPFAIL == 75
