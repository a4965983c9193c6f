"""The power-cut file system tells right programs from wrong ones: little stores, each with what must be found."""

import errno
import os
import sqlite3

import pytest

from powercut.acting import DEEP, run
from powercut.disk.client import PowerCut
from powercut.disk.exploring import survey
from powercut.stores import STORES

pytestmark = pytest.mark.powercut
RECORDS = 25 if DEEP else 5
POLICIES = ("lose", "meta-first", "data-first", "prefix", *["random"] * (8 if DEEP else 5))


@pytest.fixture
def acks(scratch):
    """Where a store acknowledges: on a disk that never fails."""
    path = scratch / "acks"
    path.touch()
    return path


def acknowledged(acks, size=None):
    """The numbers in the first ``size`` bytes."""
    return {int(word) for word in acks.read_bytes()[:size].split()}


def trouble(name, image, acked):
    """What is wrong with a disk; empty if nothing is."""
    try:
        missing = acked - set(STORES[name].read(image))
    except AssertionError as error:
        return f"damaged: {error}"
    return f"lost: {sorted(missing)}" if missing else ""


def explored(scratch, acks, name, *faults):
    """What is wrong with each disk that a cut at any moment of a run leaves."""
    images = scratch / "images"
    images.mkdir()
    with PowerCut(scratch / "disk") as disk:
        for fault, more in faults:
            disk.fault(*fault, **more)
        disk.explore(images, POLICIES, acks)
        code = run("stores", name, disk.path, acks, 1, RECORDS)
        assert code == (3 if any(fault[1] != "lie" for fault, _ in faults) and "Patience" not in name else 0)
        stats = disk.stats()
        disk.cut("lose")
    assert stats["complete"]
    found = [trouble(name, image, acknowledged(acks, about.acks)) for image, about in survey(images)]
    assert len(found) == stats["images"] > RECORDS
    return [*found, trouble(name, scratch / "disk", acknowledged(acks))]


@pytest.mark.parametrize("name", ["Log", "Spool", "Sqlite", "SqliteDeleteExtra"])
def test_a_right_store_survives_every_power_cut(scratch, acks, name):
    """No disk of its run lacks what was acknowledged by then: the tool does not cry wolf."""
    assert not any(explored(scratch, acks, name))
    assert acknowledged(acks) == set(range(1, RECORDS + 1))


WRONG = {
    "LogWithoutSync": "lost",
    "LogWithoutName": "lost",
    "LogWithoutChecksum": "damaged",
    "SpoolWithoutFileSync": "damaged",
    "SpoolWithoutDirectorySync": "lost",
    "SpoolWithoutParentSync": "lost",
    "SqliteOff": "lost",
    "SqliteDelete": "lost",
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_store_is_found(scratch, acks, name):
    """A write, a name, a directory that was not synced, a torn record that is believed: some disk shows it."""
    assert any(found.startswith(WRONG[name]) for found in explored(scratch, acks, name))


def test_a_store_that_is_whole_but_not_durable_is_told_from_a_damaged_one(scratch, acks):
    """SQLite with synchronous=NORMAL loses the last commits, by design, and nothing else."""
    found = explored(scratch, acks, "SqliteNormal")
    assert any(found)
    assert not any(what.startswith("damaged") for what in found)


LOST = (("fsync", "lost"), {"skip": 3})
"""An fsync fails, and what it was to write is gone though the next one succeeds: so does Linux."""


def test_a_store_that_stops_at_a_failed_fsync_survives(scratch, acks):
    """What was acknowledged before is there."""
    assert not any(explored(scratch, acks, "Log", LOST))
    assert len(acknowledged(acks)) == 2


def test_a_store_that_retries_a_failed_fsync_is_found(scratch, acks):
    """The second fsync says that all is well; the record is not on the medium."""
    assert any(what.startswith("lost") for what in explored(scratch, acks, "LogWithPatience", LOST))


@pytest.mark.parametrize("name, operation, skip", [("Sqlite", "fsync", 4), ("Log", "fsyncdir", 0)])
def test_a_drive_that_lies_is_found(scratch, acks, name, operation, skip):
    """It confirms what it has not written: no store survives that."""
    assert any(explored(scratch, acks, name, ((operation, "lie"), {"skip": skip, "times": -1})))


@pytest.mark.parametrize("name, survives", [("Log", True), ("LogWithoutTrim", False)])
def test_a_store_is_used_on_after_the_cut(scratch, acks, name, survives):
    """The first cut leaves a tail of zeros; who writes on behind it acknowledges what no reader finds."""
    backing = scratch / "disk"
    with PowerCut(backing) as disk:
        disk.cut_at(4, "meta-first", operation="fsync")
        assert run("stores", name, disk.path, acks, 1, 5) == 3
        assert disk.stats()["dead"]
    assert acknowledged(acks) == {1, 2}
    with PowerCut(backing) as disk:
        assert run("stores", name, disk.path, acks, 6, 5) == 0
    assert bool(trouble(name, backing, acknowledged(acks))) != survives


def test_a_cut_is_before_the_operation_that_was_named(scratch, acks):
    """The third rename is not made, and the disk is what the second left; the same seed leaves the same."""
    for backing in (scratch / "one", scratch / "two"):
        with PowerCut(backing) as disk:
            disk.cut_at(3, "random", seed=11, operation="rename")
            assert run("stores", "Spool", disk.path, acks, 1, 5) == 3
            assert disk.stats()["counts"]["rename"] == 3
            with pytest.raises(OSError):
                (disk.path / "more").touch()
        assert {path.name for path in (backing / "ready").iterdir()} == {"1", "2"}
    content = [
        {path.name: path.read_bytes() for path in (scratch / place / "new").iterdir()} for place in ("one", "two")
    ]
    assert content[0] == content[1]


def test_faults_fail_what_they_name_and_end_when_they_are_cleared(scratch):
    """Errors on write, open and fsync, a read-only file system, short writes; afterwards all is well without a
    new mount."""
    with PowerCut(scratch / "disk") as disk:
        (disk.path / "a").write_bytes(b"x" * 1000)
        for operation, code in (("write", "EIO"), ("create", "EROFS"), ("create", "EMFILE"), ("any", "EROFS")):
            disk.fault(operation, code, times=-1)
            with pytest.raises(OSError, match=os.strerror(getattr(errno, code))):
                (disk.path / f"new-{operation}-{code}").write_bytes(b"x" * 1000)
            disk.clear()
        assert (disk.path / "a").read_bytes() == b"x" * 1000
        disk.fault("write", "short")
        with (disk.path / "b").open("wb", buffering=0) as file:
            assert file.write(b"x" * 1000) == 500
            assert file.write(b"x" * 1000) == 1000
        disk.fault("open", "EIO", path="*/a")
        with pytest.raises(OSError):
            (disk.path / "a").read_bytes()
        assert len((disk.path / "b").read_bytes()) == 1500
    assert len((scratch / "disk" / "b").read_bytes()) == 1500


def test_a_full_disk_is_full_until_there_is_room(scratch):
    """ENOSPC for what does not fit, and `statvfs` says how much does."""
    with PowerCut(scratch / "disk", capacity=1 << 20) as disk:
        (disk.path / "a").write_bytes(bytes(900 << 10))
        room = os.statvfs(disk.path)
        assert room.f_bavail * room.f_frsize == (1 << 20) - (900 << 10)
        with pytest.raises(OSError, match="No space"):
            (disk.path / "b").write_bytes(bytes(200 << 10))
        (disk.path / "a").unlink()
        (disk.path / "c").write_bytes(bytes(900 << 10))
        assert disk.stats()["used"] <= 1 << 20


def test_a_wrong_order_is_refused(scratch):
    """A test with a slip of the pen does not pass for want of a cut; the mount goes on."""
    with PowerCut(scratch / "disk") as disk:
        for order in (
            lambda: disk.cut("all"),
            lambda: disk.cut_at(1, operation="chmod"),
            lambda: disk.explore(scratch, ("none",)),
        ):
            with pytest.raises(ValueError, match="no such"):
                order()
        assert not disk.stats()["dead"]


def used(place):
    """Do all that programs do with files."""
    (place / "deep" / "er").mkdir(parents=True)
    for number in range(300):
        (place / "deep" / f"{number:03d}-{'n' * 60}").write_bytes(b"%d" % number * number)
    (place / "deep" / "299-{}".format("n" * 60)).rename(place / "deep" / "er" / "moved")
    (place / "deep" / "er" / "linked").hardlink_to(place / "deep" / "er" / "moved")
    (place / "deep" / "001-{}".format("n" * 60)).unlink()
    (place / "gone").mkdir()
    (place / "gone").rmdir()
    with (place / "hole").open("wb") as file:
        file.seek(10_000)
        file.write(b"end")
        file.truncate(9_000)
        os.posix_fallocate(file.fileno(), 0, 12_000)
    (place / "hole").chmod(0o640)
    os.utime(place / "hole", ns=(1_000_000_007, 2_000_000_009))
    times = (place / "hole").stat()
    assert (times.st_atime_ns, times.st_mtime_ns) == (1_000_000_007, 2_000_000_009)
    with sqlite3.connect(place / "db") as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        db.executemany("INSERT INTO t VALUES(?)", [(number,) for number in range(1000)])
    db.close()


def listing(place):
    """Everything below a directory."""
    return {
        str(path.relative_to(place)): (path.stat().st_mode, path.is_file() and path.read_bytes())
        for path in place.rglob("*")
        if path.name != "db"  # SQLite salts it
    }


def test_a_program_sees_an_ordinary_file_system(scratch):
    """What it does gives the same as elsewhere: while mounted, after a clean unmount, and in the next mount."""
    plain, backing = scratch / "plain", scratch / "disk"
    plain.mkdir()
    used(plain)
    with PowerCut(backing) as disk:
        used(disk.path)
        assert listing(disk.path) == listing(plain)
    assert listing(backing) == listing(plain)
    assert (backing / "deep" / "er" / "linked").samefile(backing / "deep" / "er" / "moved")
    with PowerCut(backing) as disk:
        assert listing(disk.path) == listing(plain)
        with sqlite3.connect(disk.path / "db") as db:
            assert db.execute("SELECT count(*), sum(x) FROM t").fetchone() == (1000, 499_500)
        db.close()


def test_all_is_durable_when_the_machine_was_idle_for_long(scratch):
    """After `settle` no cut takes anything."""
    with PowerCut(scratch / "disk") as disk:
        (disk.path / "a").write_bytes(b"x")
        disk.settle()
        disk.cut("lose")
    assert (scratch / "disk" / "a").read_bytes() == b"x"


def test_the_power_fails_once(scratch):
    """A test that cuts after the planned cut has struck changes nothing."""
    with PowerCut(scratch / "disk") as disk:
        (disk.path / "a").write_bytes(b"x")
        disk.cut("lose")
        disk.cut("keep")
    assert not (scratch / "disk" / "a").exists()
