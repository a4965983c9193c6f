"""The SQLite storage on every disk that a power cut at any moment of each operation can leave.

Needs Linux, FUSE and root, and the power-cut tool: `DROPR_POWERCUT`, or ``../shared/tools/powercut`` beside
the repository. Under CI that is an error; elsewhere these tests are skipped and say so.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import powercut_scenes
import pytest

pytestmark = pytest.mark.powercut
ROOT = Path(__file__).resolve().parent.parent
DEEP = bool(os.environ.get("DROPR_DEEP"))
POLICIES = ("lose", "meta-first", "prefix", "random", "random") if DEEP else ("lose", "prefix", "random")


@pytest.fixture(scope="module")
def tool():
    """The power-cut file system."""
    place = Path(os.environ.get("DROPR_POWERCUT", ROOT.parent / "shared" / "tools" / "powercut"))
    missing = next((reason for there, reason in (
        ((place / "powercut_fs.py").exists(), f"no power-cut tool in {place} (DROPR_POWERCUT says where it is)"),
        (Path("/dev/fuse").exists(), "no /dev/fuse"),
        (os.geteuid() == 0, "mounting needs root"),
    ) if not there), "")  # fmt: skip
    if missing:
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the power-cut tests: {missing}")
        pytest.skip(missing)
    sys.path.insert(0, str(place))
    try:
        spec = importlib.util.spec_from_file_location("powercut_fs", place / "powercut_fs.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["powercut_fs"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(place))


def disks(tool, directory, name, *switches):
    """Act out a scene; every (disk, words said by then) that a power cut on the way leaves."""
    backing, images, words = directory / "disk", directory / "images", directory / "words"
    for one in (backing, images):
        one.mkdir()
    words.touch()
    scene = powercut_scenes.SCENES[name]()
    if name != "creating":
        store = powercut_scenes.open_store(backing)
        scene.prepare(store)
        store.close()
    with tool.PowerCut(backing) as disk:
        disk.explore(images, policies=POLICIES, ack_file=words)
        subprocess.run(
            [sys.executable, powercut_scenes.__file__, name, disk.path, str(words), *switches], check=True, timeout=100
        )
        assert disk.stats()["explored_all"]
    said = words.read_bytes()
    for image, about in tool.survey(images):
        yield image, said[: about["acks"]].decode().splitlines(), about


def judge(name, image, said):
    """Open what is left, as after a reboot, and look."""
    store = powercut_scenes.open_store(image)
    try:
        powercut_scenes.SCENES[name]().check(store, said)
    finally:
        store.close()
        shutil.rmtree(image)


@pytest.mark.parametrize("name", list(powercut_scenes.SCENES))
def test_fault_6_7_a_power_cut_at_any_moment_keeps_every_promise(tool, tmp_path, name):
    """Whatever survives of unflushed writes: promised is there, whole calls only, nothing live is lost."""
    count = 0
    for image, said, about in disks(tool, tmp_path, name):
        try:
            judge(name, image, said)
        except Exception as error:
            raise AssertionError(f"{name}: disk {about}, said {said}: {error}") from error
        count += 1
    assert count >= 10, "too few disks to mean anything"


@pytest.mark.parametrize("name", ["appending", "accepting", "settling"])
def test_the_power_cut_tests_would_notice_missing_flushes(tool, tmp_path, name):
    """Negative control: with synchronous=OFF the same scene must break a promise on some disk."""
    broken = 0
    for image, said, _about in disks(tool, tmp_path, name, "off"):
        try:
            judge(name, image, said)
        except Exception:
            broken += 1
    assert broken
