"""Few queues whose ids rise, and milestones close to each other."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("apsw")
sys.path.insert(0, str(Path(__file__).parent))  # rising_inbox_rig

from dropr_storage_sqlite.engine import rising
from dropr_storage_sqlite.fsck import order
from dropr_storage_sqlite.inbox import ids
from rising_inbox_rig import RISING, SPACING


@pytest.fixture
def narrow_inbox(monkeypatch):
    """Milestones close to each other, and few queues whose ids rise."""
    for module in (rising, order, ids):
        monkeypatch.setattr(module, "SPACING", SPACING, raising=False)
        monkeypatch.setattr(module, "RISING", RISING, raising=False)
    return monkeypatch
