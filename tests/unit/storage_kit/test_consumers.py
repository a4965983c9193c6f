"""Who consumes, and who of them still lives."""

import pytest

from dropr_core.errors import Closed, QueueFull
from dropr_core.storage_kit.consumers import LockedConsumers
from dropr_core.storage_kit.guard import Guard
from dropr_core.testing.forks import Child


@pytest.fixture
def consumers(tmp_path):
    """Those of this process."""
    return LockedConsumers(tmp_path / "consumers", Guard("store"))


def test_a_consumer_lives_until_it_is_released(consumers, tmp_path):
    """Its lock is seen by others, and goes with the file."""
    name = consumers.register("wörker/1")
    other = LockedConsumers(tmp_path / "consumers", Guard("store"))
    assert consumers.owns(name)
    assert other.lives(name)
    assert not other.owns(name)
    with pytest.raises(Closed, match="register a new one"):
        other.check(name)
    consumers.release(name)
    consumers.release(name)
    assert not other.lives(name)
    assert list((tmp_path / "consumers").iterdir()) == []


def test_consumers_of_a_killed_process_are_dead_and_tidied_away(consumers, tmp_path):
    """The kernel gives the lock up; the file stays until somebody tidies, and the living keep theirs."""

    def work(say):
        say(LockedConsumers(tmp_path / "consumers", Guard("store")).register("gone"))
        while True:
            pass

    mine = consumers.register("stays")
    with Child(work) as child:
        theirs = child.go().hear()
        assert consumers.dead([mine, theirs]) == set()
        child.kill()
        assert consumers.dead([mine, theirs]) == {theirs}
    consumers.tidy(set)
    assert [path.name for path in (tmp_path / "consumers").iterdir()] == [mine]


def test_nobody_registers_with_a_closed_store(tmp_path):
    """After close a store has no new consumers."""
    guard = Guard("store")
    guard.closed = True
    with pytest.raises(Closed):
        LockedConsumers(tmp_path / "consumers", guard).register("")


def test_without_file_handles_a_store_is_full(consumers, monkeypatch):
    """EMFILE is QueueFull here as everywhere: it passes, and nothing was written."""

    def none(*_args, **_more):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("dropr_core.storage_kit.consumers.FileLock.acquire", none)
    with pytest.raises(QueueFull, match="file handles"):
        consumers.register("x")
