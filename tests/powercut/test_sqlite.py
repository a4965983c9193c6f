"""The SQLite storage on every disk that a power cut at any moment of each operation can leave."""

import pytest

from powercut import sqlite_scenes
from powercut.acting import act, stage

pytestmark = pytest.mark.powercut


def disks(directory, name, *switches):
    """Act a scene out; every disk that a power cut on the way leaves."""
    place = stage(directory)
    if name != "creating":
        store = sqlite_scenes.open_store(place.backing)
        sqlite_scenes.SCENES[name]().prepare(store)
        store.close()
    return act(place, "sqlite_scenes", name, *switches)


def judge(name, image, said):
    """Open what is left, as after a reboot, and look."""
    store = sqlite_scenes.open_store(image)
    try:
        sqlite_scenes.SCENES[name]().check(store, said)
    finally:
        store.close()


@pytest.mark.parametrize("name", list(sqlite_scenes.SCENES))
def test_fault_6_7_a_power_cut_at_any_moment_keeps_every_promise(scratch, name):
    """Whatever survives of unflushed writes: promised is there, whole calls only, nothing live is lost."""
    count = 0
    for image, said, about in disks(scratch, name):
        try:
            judge(name, image, said)
        except Exception as error:
            raise AssertionError(f"{name}: disk {about}, said {said}: {error}") from error
        count += 1
    assert count >= 10, "too few disks to mean anything"


@pytest.mark.parametrize("name", ["appending", "accepting", "settling"])
def test_the_power_cut_tests_would_notice_missing_flushes(scratch, name):
    """Negative control: with synchronous=OFF the same scene must break a promise on some disk."""
    broken = 0
    for image, said, _about in disks(scratch, name, "off"):
        try:
            judge(name, image, said)
        except Exception:
            broken += 1
    assert broken
