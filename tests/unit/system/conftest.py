"""A notifier in a directory of its own."""

import pytest

from dropr_core.system.notifier import Notifier


@pytest.fixture
def notifier(tmp_path):
    return Notifier(tmp_path / "notifier")
