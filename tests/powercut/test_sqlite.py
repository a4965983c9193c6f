"""The SQLite storage on every disk that a power cut at any moment of each operation can leave."""

import pytest

from powercut import sqlite_scenes
from powercut.judging import Scenes, breaks_a_promise, keeps_its_promises

pytestmark = pytest.mark.powercut

SCENES = Scenes(sqlite_scenes)


@pytest.mark.parametrize("name", list(sqlite_scenes.SCENES))
def test_fault_6_7_a_power_cut_at_any_moment_keeps_every_promise(scratch, name):
    """Whatever survives of unflushed writes: promised is there, whole calls only, nothing live is lost."""
    keeps_its_promises(name, SCENES.disks(scratch, name), SCENES.judge(name))


@pytest.mark.parametrize("name", ["appending", "accepting", "settling"])
def test_the_power_cut_tests_would_notice_missing_flushes(scratch, name):
    """Negative control: with synchronous=OFF the same scene must break a promise on some disk."""
    assert breaks_a_promise(SCENES.disks(scratch, name, "off"), SCENES.judge(name))
