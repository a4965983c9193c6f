"""The rig of these tests, in which nobody's patience ends by itself."""

import sys
from pathlib import Path

import pytest

from dropr_core.storage_kit import posts as kit

pytest.importorskip("apsw")
sys.path.insert(0, str(Path(__file__).parent))  # together_rig

from together_rig import Rig


@pytest.fixture
def rig(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "PATIENCE", 30.0)
    monkeypatch.setattr(kit, "LOOK_AGAIN", 30.0)
    rig = Rig(tmp_path)
    yield rig
    rig.close()
