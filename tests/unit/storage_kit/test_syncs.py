"""What a process knew of a failed sync is known after its death, and after it was forgotten by the kernel."""

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest

from dropr_core.storage_kit import syncs as module
from dropr_core.storage_kit.syncs import Syncs
from dropr_core.testing.forks import Child


@pytest.fixture
def maker(tmp_path):
    made = []

    def make():
        made.append(Syncs(tmp_path / "half.syncs"))
        made[-1].open()
        made[-1].look()
        return made[-1]

    yield make
    for one in made:
        one.close()


def mend(one):
    one.mended(one.before_mending())


def killed(tmp_path, act):
    """Another process does something and is killed."""

    def live(say):
        mine = Syncs(tmp_path / "half.syncs")
        mine.open()
        act(mine)
        say("done")
        signal.pause()

    with Child(live) as child:
        assert child.go().hear() == "done"
        os.kill(child.pid, signal.SIGKILL)


def test_an_error_that_one_has_met_is_known_to_all_until_one_has_mended_it(maker):
    """Also to who comes later."""
    one, other = maker(), maker()
    assert not one.in_doubt()
    one.met()
    assert one.in_doubt()
    assert other.in_doubt()
    assert maker().in_doubt()
    mend(other)
    assert not one.in_doubt()


def test_an_error_that_is_met_while_somebody_mends_is_not_settled(maker):
    """What was mended may be from before."""
    one, other = maker(), maker()
    one.met()
    begun = other.before_mending()
    one.met()
    other.mended(begun)
    assert one.in_doubt()
    mend(other)
    assert not one.in_doubt()


def test_who_mends_later_than_another_costs_no_more_than_another_time(maker):
    """Two mend at once, and the one that knew less ends last: nobody trusts too early."""
    one, other = maker(), maker()
    one.met()
    less = one.before_mending()
    other.met()
    mend(other)
    one.mended(less)
    assert other.in_doubt()


def test_who_is_killed_within_a_sync_may_have_been_told(maker, tmp_path):
    """Whoever opens something later finds its mark; once is enough."""
    one = maker()
    killed(tmp_path, lambda mine: mine.begin())
    assert not one.in_doubt(), "it would be told itself"
    other = maker()
    assert other.in_doubt()
    mend(other)
    one.look()
    assert not one.in_doubt()


def test_who_is_killed_outside_of_a_sync_was_told_of_nothing(maker, tmp_path):
    """Nothing has to be mended after it."""
    killed(tmp_path, lambda mine: (mine.begin(), mine.end()))
    assert not maker().in_doubt()


def test_what_was_met_survives_the_death_of_all(maker, tmp_path):
    """Nobody was there but the one that is dead."""
    killed(tmp_path, lambda mine: mine.met())
    assert maker().in_doubt()


def test_a_living_process_within_a_sync_is_no_reason_to_doubt(maker):
    """Nor is one of several threads that is done before the others."""
    one, other = maker(), maker()
    one.begin()
    one.begin()
    one.end()
    other.look()
    assert not other.in_doubt()
    one._let_go()  # it dies
    other.look()
    assert other.in_doubt()


def test_a_place_is_kept_until_the_last_sync_is_over(maker):
    """To close waits for nobody: the end of the sync gives the place back."""
    one, other = maker(), maker()
    one.begin()
    one.close()
    other.look()
    assert not other.in_doubt()
    assert not other.is_alone()
    one.end()
    assert other.is_alone()


def test_a_forked_child_keeps_no_place_of_its_parent(maker):
    """The parent dies within a sync, and its child lives on."""
    one, other = maker(), maker()
    one.begin()

    def live(say):
        say("here")
        signal.pause()

    with Child(live) as child:
        assert child.go().hear() == "here"
        one._let_go()
        other.look()
        assert other.in_doubt()


def test_more_processes_than_places_only_are_not_told_apart(maker, monkeypatch, tmp_path):
    """They work all the same, and what they have met is known."""
    monkeypatch.setattr(module, "PLACES", 2)
    first, second, third = maker(), maker(), maker()
    third.begin()
    third.met()
    third.end()
    assert first.in_doubt()
    assert second.in_doubt()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_where_there_is_no_room_for_it_nobody_is_in_doubt(monkeypatch, tmp_path, number):
    """A full disk, or one that may not be written: as if there was no such file, and nothing is left open."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    one = Syncs(tmp_path / "half.syncs")
    one.open()
    one.begin()
    one.met()
    one.end()
    mend(one)
    assert not one.in_doubt()
    assert not one.is_alone()
    one.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_system_without_such_locks_costs_the_places_and_nothing_else(monkeypatch, tmp_path, maker):
    """An error is told all the same."""

    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    one, other = maker(), maker()
    one.begin()
    other.look()
    assert not other.in_doubt()
    one.met()
    assert other.in_doubt()
