"""A flush that failed, told to a process that is gone or slow: what others promise since is there after a power cut."""

import errno
import fcntl
import os
import shutil
import signal

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.engine import generations
from dropr_storage_fs.files import log as logs

from dropr_core.contracts.storage import NewMessage, Selection
from dropr_core.errors import WriteFailed
from dropr_core.model.names import MessageId
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import make_context
from dropr_core.testing.forks import Child


def identity(number):
    return MessageId(number.to_bytes(16, "big"))


def send(storage, number):
    storage.outbox.append([NewMessage(identity(number), "orders", 5, ("there",), b"%03d" % number * 100)])


def queued(storage):
    """Numbers of what is there to be given to a peer."""
    return [int.from_bytes(found.id, "big") for _, found in storage.outbox.scan(Selection(), limit=100)]


def killed_in_its_flush(directory, number):
    """Another process sends, and is killed while the disk works: it alone would have been told that it failed."""

    def live(say):
        storage = dropr_storage(Options(reserve=0, flush=3600.0), make_context(directory, FakeClock()))
        os.fdatasync = lambda _fd: os.kill(os.getpid(), signal.SIGKILL)
        send(storage, number)

    return Child(live)


class Disk:
    """Some bytes of files of one store that the kernel takes for written, and that are not."""

    def __init__(self, directory, monkeypatch):
        self._directory, self._lost = directory, {}
        real = os.pwrite

        def pwrite(fd, data, at):
            lost = self._lost.get(os.fstat(fd).st_ino)
            if lost is not None:
                lost -= set(range(at, at + len(data)))
            return real(fd, data, at)

        monkeypatch.setattr(os, "pwrite", pwrite)

    def sizes(self):
        """What there is of each segment and journal, without the zeros at its end."""
        found = [*self._directory.glob("outbox/logs/*/*.seg"), *self._directory.glob("outbox/journal.*")]
        return {path: len(path.read_bytes().rstrip(b"\0")) for path in found}

    def lose_since(self, before):
        """Take what was written since for lost."""
        for path, size in self.sizes().items():
            if size > before.get(path, 0):
                self._lost[path.stat().st_ino] = set(range(before.get(path, 0), size))

    def after_a_power_cut(self, copy):
        """A copy of the store as it is then."""
        shutil.copytree(self._directory, copy)
        for path in self.sizes():
            lost = self._lost.get(path.stat().st_ino)
            if lost:
                data = bytearray(path.read_bytes())
                for at in lost & set(range(len(data))):
                    data[at] = 0
                (copy / path.relative_to(self._directory)).write_bytes(data)
        return copy


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def disk(store, monkeypatch):
    return Disk(store, monkeypatch)


@pytest.fixture
def opener(store):
    opened = []

    def make(directory=store):
        opened.append(dropr_storage(Options(reserve=0, flush=3600.0), make_context(directory, FakeClock())))
        return opened[-1]

    yield make
    for storage in opened:
        storage.close()


def test_who_opens_after_a_death_within_a_flush_flushes_what_it_takes_for_stored(store, disk, opener, tmp_path):
    """Nobody else was there. What it finds in the kernel's memory it gives to a peer, so that must not go."""
    with killed_in_its_flush(store, 2) as child:
        first = opener()
        send(first, 1)
        first.close()
        before = disk.sizes()
        child.go().wait()
        disk.lose_since(before)
    later = opener()
    promised = queued(later)
    assert promised == [1, 2]
    assert queued(opener(disk.after_a_power_cut(tmp_path / "copy"))) == promised


def test_who_opens_a_log_after_a_death_within_a_flush_promises_nothing_behind_it(store, disk, opener, tmp_path):
    """Others live, and have not written since: the kernel tells the newcomer nothing."""
    with killed_in_its_flush(store, 2) as child:
        first = opener()
        send(first, 1)
        newcomer = opener()
        assert queued(first) == [1]
        before = disk.sizes()
        child.go().wait()
        disk.lose_since(before)
    send(newcomer, 3)
    assert queued(opener(disk.after_a_power_cut(tmp_path / "copy"))) == queued(newcomer) == [1, 2, 3]


def test_a_death_outside_of_a_flush_costs_nobody_anything(store, opener):
    """Nothing is looked for in the logs, and nobody's flush fails."""
    first = opener()
    send(first, 1)
    generation = sorted(store.glob("outbox/journal.*"))
    with killed_in_its_flush(store, 2):
        pass  # it is killed before it begins
    send(opener(), 3)
    assert sorted(store.glob("outbox/journal.*")) == generation
    assert queued(first) == [1, 3]


def test_who_is_told_says_so_before_it_waits_for_its_turn(store, disk, opener, tmp_path, monkeypatch):
    """In between another process opens the log and sends: its flush goes well, over a hole."""
    told, newcomer = opener(), opener()
    send(told, 1)
    before, real, steps = disk.sizes(), fcntl.flock, []

    def fail(_fd):
        disk.lose_since(before)
        steps.append("told")
        monkeypatch.setattr(os, "fdatasync", sync)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def flock(fd, how):
        if steps == ["told"] and how == fcntl.LOCK_EX:
            steps.append("another one")
            send(newcomer, 3)
        real(fd, how)

    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(WriteFailed):
        send(told, 2)
    assert steps == ["told", "another one"]
    assert queued(opener(disk.after_a_power_cut(tmp_path / "copy"))) == queued(told) == [1, 3]


@pytest.mark.parametrize("how", ["segment", "generation"])
def test_what_is_flushed_under_the_lock_is_written_again_first(store, disk, opener, tmp_path, monkeypatch, how):
    """A full segment, and the logs before a new generation: also by who was told nothing."""
    with killed_in_its_flush(store, 2) as child:
        first = opener()
        send(first, 1)
        newcomer = opener()
        before = disk.sizes()
        child.go().wait()
        disk.lose_since(before)
    if how == "segment":
        monkeypatch.setattr(logs, "SEGMENT_SIZE", 100)
    else:
        monkeypatch.setattr(generations, "JOURNAL_MIN", 0)
        monkeypatch.setattr(generations, "GROWTH", 0)
        newcomer.outbox.hold("there", "so that the journal grows")
        newcomer.outbox.hold("there", None)
    send(newcomer, 3)
    assert queued(opener(disk.after_a_power_cut(tmp_path / "copy"))) == queued(newcomer) == [1, 2, 3]


def test_a_journal_whose_flush_somebody_was_killed_in_is_flushed_again(store, disk, opener, tmp_path):
    """What stands behind it in the journal is promised by who was told nothing."""

    def live(_say):
        storage = opener()
        os.fdatasync = lambda _fd: os.kill(os.getpid(), signal.SIGKILL)
        storage.outbox.hold("somebody", "a reason")

    with Child(live) as child:
        first = opener()
        send(first, 1)
        newcomer = opener()
        before = disk.sizes()
        child.go().wait()
        disk.lose_since(before)
    newcomer.outbox.hold("there", "another")
    copy = opener(disk.after_a_power_cut(tmp_path / "copy"))
    assert copy.outbox.peers()["there"].reason == "another"
