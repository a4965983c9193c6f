"""Opening a store: alone, and on which file system."""

import pytest

from dropr_core.errors import StoreBusy
from dropr_core.storage_kit.opening import alone, file_system


def test_fault_87_file_systems_are_recognised(tmp_path):
    """The type of the file system is that of the longest mount point above the directory."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/x / ext4 rw 0 0\nhost:/y {tmp_path} nfs4 rw 0 0\nz {tmp_path}/other tmpfs rw 0 0\n")
    assert file_system(tmp_path / "deep", mounts) == "nfs4"
    assert file_system(tmp_path / "other" / "x", mounts) == "tmpfs"
    assert file_system(tmp_path.parent, mounts) == "ext4"


def test_two_never_open_at_once_and_the_second_waits_only_so_long(tmp_path):
    """Who cannot be alone within its patience gets StoreBusy; afterwards the place is free."""
    place = tmp_path / "open.lock"
    with alone(place, 1.0), pytest.raises(StoreBusy, match=r"open\.lock"), alone(place, 0.0):
        raise AssertionError("let in")
    with alone(place, 0.0):
        pass
