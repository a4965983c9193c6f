"""The storage of plain files on every disk that a power cut at any moment of each operation can leave."""

from functools import partial

import pytest

from powercut import files_scenes, sqlite_scenes
from powercut.acting import DEEP, act, stage
from powercut.judging import breaks_a_promise, keeps_its_promises

pytestmark = pytest.mark.powercut


@pytest.fixture(autouse=True)
def _small_again(monkeypatch):
    """What a scene is prepared with in this process is as small as what it is acted with."""
    monkeypatch.setattr(files_scenes.log, "SEGMENT_SIZE", files_scenes.log.SEGMENT_SIZE)
    monkeypatch.setattr(files_scenes.log, "AHEAD", files_scenes.log.AHEAD)
    for name in ("SET_DOWN_AT", "RUN_LEAST"):
        monkeypatch.setattr(files_scenes.remembered, name, getattr(files_scenes.remembered, name))


def disks(directory, name, *switches):
    """Act a scene out; every disk that a power cut on the way leaves."""
    place = stage(directory)
    if name != "creating":
        store = files_scenes.open_store(place.backing)
        scene = files_scenes.SCENES[name]()
        if name == "straggling":
            files_scenes.shrink(name)
        scene.prepare(store)
        store.close()
        if hasattr(scene, "wreck"):
            scene.wreck(place.backing)
    return act(place, "files_scenes", name, *switches)


def judge(name, image, said):
    """Open what is left, as after a reboot, and look; then once more, after what the first look mended."""
    for _ in range(2 if DEEP else 1):
        store = files_scenes.open_store(image)
        try:
            files_scenes.SCENES[name]().check(store, said)
        finally:
            store.close()


@pytest.mark.parametrize("name", list(files_scenes.SCENES))
def test_fault_6_7_a_power_cut_at_any_moment_keeps_every_promise_of_files(scratch, name):
    """Whatever survives of unflushed writes: promised is there, whole calls only, nothing live is lost."""
    keeps_its_promises(name, disks(scratch, name), partial(judge, name))


@pytest.mark.parametrize("name", ["appending", "accepting", "acknowledging", "multicasting"])
def test_the_power_cut_tests_of_files_would_notice_missing_flushes(scratch, name):
    """Negative control: without any flush the same scene must break a promise on some disk."""
    assert breaks_a_promise(disks(scratch, name, "off"), partial(judge, name))


def test_the_scenes_are_those_of_all_storages():
    """What every storage must survive is acted out here, too."""
    assert set(sqlite_scenes.SCENES) < set(files_scenes.SCENES)
