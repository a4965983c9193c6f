"""Stores in which whatever may go out of memory goes at once."""

import sys
from pathlib import Path

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.engine import remembered

from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import make_context

sys.path.insert(0, str(Path(__file__).parent))  # fs_past_rig

from fs_past_rig import REMEMBER


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def opener(tmp_path, clock):
    opened = []

    def make(**more):
        opened.append(dropr_storage(Options(reserve=0), make_context(tmp_path, clock, remember=REMEMBER, **more)))
        return opened[-1]

    yield make
    for storage in opened:
        storage.close()


@pytest.fixture
def soon(monkeypatch):
    """Whatever may go out of memory goes at once."""
    monkeypatch.setattr(remembered, "asks", lambda count, _size, _live: count > 0)
    monkeypatch.setattr(remembered, "RUN_LEAST", 1)
