"""The rules of the power-cut file system by themselves: what an fsync makes durable. Without FUSE."""

import errno

import pytest

from powercut.disk.filesystem import ROOT, FileSystem
from powercut.disk.survivors import POLICIES
from powercut.rules_kit import SECTOR, every, left


@pytest.fixture
def disk():
    return FileSystem(sector=SECTOR)


def test_nothing_is_durable_before_an_fsync(disk):
    """A file that was written and closed is not there after the worst cut, and whole after the mildest."""
    disk.write(disk.create(ROOT, b"a", 0o644).number, 0, b"hello")
    assert left(disk, "lose") == {}
    assert left(disk, "keep") == {"a": b"hello"}


def test_an_fsync_of_a_file_does_not_make_its_name_durable(disk):
    """The bytes are on the medium, but nothing leads to them."""
    file = disk.create(ROOT, b"a", 0o644)
    disk.write(file.number, 0, b"hello")
    disk.fsync(file.number)
    assert left(disk, "lose") == {}
    disk.fsync_directory(ROOT)
    assert every(disk, 3) == [{"a": b"hello"}] * len(POLICIES) * 3


def test_an_fsync_of_a_directory_makes_its_names_durable_and_no_bytes(disk):
    """An empty file, or one of zeros, is what many a program has found."""
    file = disk.create(ROOT, b"a", 0o644)
    disk.write(file.number, 0, b"hello")
    disk.fsync_directory(ROOT)
    assert left(disk, "lose") == {"a": b""}
    assert left(disk, "meta-first") == {"a": bytes(5)}


def test_a_new_directory_needs_an_fsync_of_the_one_above(disk):
    """Names in it are durable, itself it is not."""
    inner = disk.mkdir(ROOT, b"d", 0o755)
    disk.create(inner.number, b"a", 0o644)
    disk.fsync_directory(inner.number)
    assert left(disk, "lose") == {}
    disk.fsync_directory(ROOT)
    assert left(disk, "lose") == {"d": {"a": b""}}


def test_a_replacement_by_rename_is_the_old_file_or_the_new(disk):
    """Synced as it should be before: never neither, never a mixture, and both names never are the old one."""
    old = disk.create(ROOT, b"name", 0o644)
    disk.write(old.number, 0, b"old" * 20)
    disk.settle()
    new = disk.create(ROOT, b"tmp", 0o644)
    disk.write(new.number, 0, b"new" * 30)
    disk.fsync(new.number)
    disk.rename(ROOT, b"tmp", ROOT, b"name")
    assert {tree["name"] for tree in every(disk)} == {b"old" * 20, b"new" * 30}
    disk.fsync_directory(ROOT)
    assert {tuple(tree.items()) for tree in every(disk)} == {(("name", b"new" * 30),)}


def test_a_rename_across_directories_is_atomic(disk):
    """The fsync of either directory makes both of its halves durable; before, one name or the other is there."""
    one, two = disk.mkdir(ROOT, b"one", 0o755), disk.mkdir(ROOT, b"two", 0o755)
    file = disk.create(one.number, b"a", 0o644)
    disk.write(file.number, 0, b"x")
    disk.settle()
    disk.rename(one.number, b"a", two.number, b"b")
    assert all(("a" in tree["one"]) != ("b" in tree["two"]) for tree in every(disk))
    disk.fsync_directory(one.number)
    assert left(disk, "lose") == {"one": {}, "two": {"b": b"x"}}


def test_a_file_that_is_renamed_again_and_again_has_one_name(disk):
    """A later rename is never on the medium without the earlier one that it goes on from."""
    disk.create(ROOT, b"a", 0o644)
    disk.settle()
    for old, new in ((b"a", b"b"), (b"b", b"c"), (b"c", b"d")):
        disk.rename(ROOT, old, ROOT, new)
    assert {tuple(tree) for tree in every(disk, 40)} == {("a",), ("b",), ("c",), ("d",)}


def test_the_fsync_of_one_directory_brings_what_led_to_it(disk):
    """A file is made in one directory and moved to another: once that is durable, its making does not come back."""
    one, two = disk.mkdir(ROOT, b"one", 0o755), disk.mkdir(ROOT, b"two", 0o755)
    disk.settle()
    disk.create(one.number, b"a", 0o644)
    disk.rename(one.number, b"a", two.number, b"b")
    disk.fsync_directory(two.number)
    assert every(disk, 3) == [{"one": {}, "two": {"b": b""}}] * len(POLICIES) * 3


def test_a_removed_file_may_come_back(disk):
    """Until the directory is synced, unlink promises nothing."""
    disk.create(ROOT, b"a", 0o644)
    disk.settle()
    disk.unlink(ROOT, b"a")
    assert left(disk, "lose") == {"a": b""}
    disk.fsync_directory(ROOT)
    assert left(disk, "lose") == {}


def test_an_fsync_that_failed_loses_what_it_was_to_write(disk):
    """The next one succeeds, programs see the bytes, and the medium never has them."""
    file = disk.create(ROOT, b"a", 0o644)
    disk.settle()
    disk.write(file.number, 0, b"hello")
    disk.fsync_lost(file.number)
    disk.fsync(file.number)
    assert disk.read(file.number, 0, 100) == b"hello"
    assert left(disk, "keep") == {"a": b""}


def test_space_is_limited_and_comes_back_with_the_last_name():
    """A write that does not fit changes nothing; two names of a file take its space once."""
    disk = FileSystem(capacity=100)
    file = disk.create(ROOT, b"a", 0o644)
    disk.write(file.number, 0, b"x" * 90)
    for change in (lambda: disk.write(file.number, 90, b"x" * 11), lambda: disk.truncate(file.number, 101)):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == errno.ENOSPC
    assert len(file.data) == disk.used == 90
    disk.link(file.number, ROOT, b"b")
    disk.unlink(ROOT, b"a")
    assert disk.used == 90
    disk.unlink(ROOT, b"b")
    disk.write(file.number, 90, b"x" * 10)
    assert disk.used == 0


def test_wrong_operations_are_refused_as_a_real_file_system_does(disk):
    """The errno is the one that programs know."""
    disk.create(ROOT, b"file", 0o644)
    full = disk.mkdir(ROOT, b"full", 0o755)
    disk.create(full.number, b"a", 0o644)
    disk.mkdir(ROOT, b"empty", 0o755)
    for code, change in (
        (errno.EEXIST, lambda: disk.create(ROOT, b"file", 0o644)),
        (errno.ENOENT, lambda: disk.unlink(ROOT, b"none")),
        (errno.EISDIR, lambda: disk.unlink(ROOT, b"full")),
        (errno.ENOTDIR, lambda: disk.rmdir(ROOT, b"file")),
        (errno.ENOTEMPTY, lambda: disk.rmdir(ROOT, b"full")),
        (errno.ENOTEMPTY, lambda: disk.rename(ROOT, b"empty", ROOT, b"full")),
        (errno.ENOTDIR, lambda: disk.rename(ROOT, b"empty", ROOT, b"file")),
        (errno.EISDIR, lambda: disk.rename(ROOT, b"file", ROOT, b"empty")),
        (errno.ENOTDIR, lambda: disk.lookup(disk.lookup(ROOT, b"file").number, b"a")),
        (errno.EISDIR, lambda: disk.write(full.number, 0, b"x")),
        (errno.ESTALE, lambda: disk.inode(99)),
    ):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == code
