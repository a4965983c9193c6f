"""Processes that die or stand still while one of them stores for all: nothing is lost or there twice."""

import signal

import pytest
from together_rig import Other, message, places, until

from dropr_core.storage_kit import posts as kit
from dropr_core.storage_kit.posts import Posts

MOMENTS = ["leading", "taken", "committed"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_leads_is_killed_and_nothing_is_stored_twice_or_lost(rig, moment):
    """Before its transaction, within it, and after its commit: whoever waits stores what is not stored yet."""
    rig.hold()
    other = Other(rig, moment, "killed")
    one, future = rig.sends(0)
    two, second = rig.sends(1)
    other.leads()
    assert other.process.wait(30) == -signal.SIGKILL
    rig.wake(0)
    numbers = future.result(30)[0].sequences[0], second.result(30)[0].sequences[0]
    found = places(rig.stores[2])
    assert (found[one.id], found[two.id]) == numbers
    assert other.id in found, "its send never returned; what it had posted was stored with the others'"
    assert sorted(found.values()) == list(range(1, 11))


def test_who_waits_looks_whether_anybody_leads(rig, monkeypatch):
    """Nobody wakes it: whoever led was killed."""
    rig.hold()
    monkeypatch.setattr(kit, "LOOK_AGAIN", 0.001)
    one, future = rig.sends(0)
    rig.free()
    number = future.result(30)[0].sequences[0]
    assert places(rig.stores[1])[one.id] == number


@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_leads_is_stopped_and_stops_nobody_for_long(rig, moment, monkeypatch):
    """The others store by themselves; when it goes on it stores nothing of theirs again."""
    rig.hold()
    other = Other(rig, moment, "stopped")
    monkeypatch.setattr(kit, "PATIENCE", 0.5)
    one, future = rig.sends(0)
    other.leads()
    until(lambda: other.state() == "T")
    if moment == "taken":  # within SQLite's lock, which lasts as long as ever
        other.process.send_signal(signal.SIGCONT)
    number = future.result(30)[0].sequences[0]
    other.process.send_signal(signal.SIGCONT)
    assert other.process.stdout.readline() == "sent\n"
    assert other.process.wait(30) == 0
    found = places(rig.stores[2])
    assert found[one.id] == number
    assert sorted(found.values()) == list(range(1, 10))


def test_one_that_is_killed_after_it_has_posted_is_stored_once_at_most(rig):
    """Its send never returned. Its place is free for another process."""
    rig.hold()
    other = Other(rig, "posted", "killed")
    assert other.process.wait(30) == -signal.SIGKILL
    rig.free()
    rig.stores[0].outbox.append([message()])
    found = places(rig.stores[0])
    assert other.id in found
    assert len(found) == 9
    again = Posts(rig.directory / "outbox.senders")
    assert again.open()
    assert again.place == other.place
    assert rig.posts._waiting() == []
    again.close()


def test_what_nobody_waits_for_any_more_is_not_stored(rig, monkeypatch):
    """It was posted long ago by a process that died."""
    rig.hold()
    other = Other(rig, "posted", "killed")
    assert other.process.wait(30) == -signal.SIGKILL
    monkeypatch.setattr(kit, "STALE", 0)
    rig.free()
    rig.stores[0].outbox.append([message()])
    assert other.id not in places(rig.stores[0])
    assert rig.posts._waiting() == []
