"""What tests of several folders are given."""

import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY, ROOM = Path("/dev/shm"), 4 << 30


@pytest.fixture
def scratch(tmp_path):
    """A directory in memory if there is room, for tests that write and flush much: twice as fast.

    Not for tests that rest on a real disk.
    """
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        with tempfile.TemporaryDirectory(prefix="dropr-test-", dir=MEMORY) as directory:
            yield Path(directory)
    else:
        yield tmp_path
