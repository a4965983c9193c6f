"""The storage of plain files on every disk that a power cut at any moment of each operation can leave.

Needs what test_powercut.py needs, and says so in the same way.
"""

import logging
import shutil
import subprocess
import sys

import powercut_fs_scenes
import powercut_scenes
import pytest
from test_powercut import DEEP, POLICIES, tool

pytestmark = pytest.mark.powercut
__all__ = ["tool"]
QUIET = logging.getLogger("dropr.test")


@pytest.fixture(autouse=True)
def _small_again(monkeypatch):
    """What a scene is prepared with in this process is as small as what it is acted with."""
    monkeypatch.setattr(powercut_fs_scenes.log, "SEGMENT_SIZE", powercut_fs_scenes.log.SEGMENT_SIZE)
    monkeypatch.setattr(powercut_fs_scenes.log, "_AHEAD", powercut_fs_scenes.log._AHEAD)


def disks(tool, directory, name, *switches):
    """Act out a scene; every (disk, words said by then) that a power cut on the way leaves."""
    backing, images, words = directory / "disk", directory / "images", directory / "words"
    for one in (backing, images):
        one.mkdir()
    words.touch()
    if name != "creating":
        store = powercut_fs_scenes.open_store(backing)
        scene = powercut_fs_scenes.SCENES[name]()
        if name == "straggling":
            powercut_fs_scenes.shrink(name)
        scene.prepare(store)
        store.close()
        if hasattr(scene, "wreck"):
            scene.wreck(backing)
    with tool.PowerCut(backing) as disk:
        disk.explore(images, policies=POLICIES, ack_file=words)
        subprocess.run(
            [sys.executable, powercut_fs_scenes.__file__, name, disk.path, str(words), *switches],
            check=True,
            timeout=100,
        )
        assert disk.stats()["explored_all"]
    said = words.read_bytes()
    for image, about in tool.survey(images):
        yield image, said[: about["acks"]].decode().splitlines(), about


def judge(name, image, said):
    """Open what is left, as after a reboot, and look; then once more, after what the first look mended."""
    try:
        for _ in range(2 if DEEP else 1):
            store = powercut_fs_scenes.open_store(image)
            try:
                powercut_fs_scenes.SCENES[name]().check(store, said)
            finally:
                store.close()
    finally:
        shutil.rmtree(image)


@pytest.mark.parametrize("name", list(powercut_fs_scenes.SCENES))
def test_fault_6_7_a_power_cut_at_any_moment_keeps_every_promise_of_files(tool, tmp_path, name):
    """Whatever survives of unflushed writes: promised is there, whole calls only, nothing live is lost."""
    count = 0
    for image, said, about in disks(tool, tmp_path, name):
        try:
            judge(name, image, said)
        except Exception as error:
            raise AssertionError(f"{name}: disk {about}, said {said}: {error!r}") from error
        count += 1
    assert count >= 10, "too few disks to mean anything"


@pytest.mark.parametrize("name", ["appending", "accepting", "acknowledging", "multicasting"])
def test_the_power_cut_tests_of_files_would_notice_missing_flushes(tool, tmp_path, name):
    """Negative control: without any flush the same scene must break a promise on some disk."""
    broken = 0
    for image, said, _about in disks(tool, tmp_path, name, "off"):
        try:
            judge(name, image, said)
        except Exception:
            broken += 1
    assert broken


def test_the_scenes_are_those_of_all_storages():
    """What every storage must survive is acted out here, too."""
    assert set(powercut_scenes.SCENES) < set(powercut_fs_scenes.SCENES)
