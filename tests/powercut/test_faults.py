"""Which operations an injected fault strikes. Without FUSE."""

import errno

import pytest

from powercut.disk.faults import Fault


def test_a_fault_strikes_what_it_names_and_so_often():
    """The first ones pass, then some are struck, on the paths that match."""
    fault = Fault("fsync", "EIO", path="*-wal", skip=1, times=2)
    assert fault.code == errno.EIO
    struck = [fault.strikes("fsync", path) for path in ("/a-wal", "/a", "/a-wal", "/b-wal", "/a-wal")]
    assert struck == [False, False, True, True, False]
    assert not fault.strikes("write", "/a-wal")


def test_a_fault_of_any_change_strikes_changes_only():
    """A file system that is read-only can be read."""
    fault = Fault("any", "EROFS", times=-1)
    assert [fault.strikes(name, "/a") for name in ("write", "create", "fsyncdir", "read", "open")] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [("chmod", "EIO"), ("write", "EOOPS"), ("write", "lie"), ("fsync", "short")])
def test_a_fault_that_cannot_be_is_refused(wrong):
    """A test with a slip of the pen does not pass for want of a fault."""
    with pytest.raises(ValueError, match=r"no such|knows no"):
        Fault(*wrong)
