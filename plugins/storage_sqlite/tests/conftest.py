"""What several tests of this storage look through."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def synced(monkeypatch):
    """The files that Python's own fdatasync was called for."""
    names, real = [], os.fdatasync

    def fdatasync(fd):
        names.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return names
