"""Stores of a test, and the events that they tell of."""

import logging
import sys
from pathlib import Path

import pytest
from dropr_storage_fs import Options, dropr_storage

from dropr_core.contracts.context import Context
from dropr_core.system.clock import FakeClock

sys.path.insert(0, str(Path(__file__).parent))  # fs_trouble_rig


@pytest.fixture
def events():
    return []


@pytest.fixture
def opener(tmp_path, events):
    opened = []

    def open_store(directory=tmp_path, **more):
        values = {
            "node": "n", "data": directory, "clock": FakeClock(), "log": logging.getLogger("t"), "min_free": 0,
            "event": lambda name, details: events.append((name, details)),
        }  # fmt: skip
        opened.append(dropr_storage(Options(reserve=0), Context(**values | more)))
        return opened[-1]

    yield open_store
    for storage in opened:
        storage.close()
