"""Large bodies on every disk that a power cut at any moment can leave; needs what test_powercut.py needs."""

import shutil
import subprocess
import sys

import powercut_bodies
import pytest
from test_powercut import POLICIES, tool  # noqa: F401 - a fixture

from dropr_core.bodies.store import Bodies

pytestmark = pytest.mark.powercut


def broken(tool, directory, name, *switches):  # noqa: F811
    """Act a scene out; (disks looked at, what was broken on which)."""
    backing, images, words = directory / "disk", directory / "images", directory / "words"
    for one in (backing, images):
        one.mkdir()
    words.touch()
    with tool.PowerCut(backing) as disk:
        disk.explore(images, policies=POLICIES, ack_file=words)
        command = [sys.executable, powercut_bodies.__file__, name, disk.path, str(words), *switches]
        subprocess.run(command, check=True, timeout=100)
        assert disk.stats()["explored_all"]
    said, count, found = words.read_bytes(), 0, []
    for image, about in tool.survey(images):
        count += 1
        try:
            powercut_bodies.SCENES[name][1](Bodies(image / "bodies", 0), said[: about["acks"]].decode().splitlines())
        except powercut_bodies.BROKEN as error:
            found.append((about, error))
        shutil.rmtree(image)
    return count, found


@pytest.mark.parametrize("name", list(powercut_bodies.SCENES))
def test_fault_6_7_a_power_cut_at_any_moment_keeps_every_promised_body(tool, tmp_path, name):  # noqa: F811
    """A body whose message may be stored is whole; one on its way is gone on with, or begun anew."""
    count, found = broken(tool, tmp_path, name)
    assert count >= 10
    assert not found


@pytest.mark.parametrize("name", list(powercut_bodies.SCENES))
def test_the_power_cut_tests_of_bodies_would_notice_missing_flushes(tool, tmp_path, name):  # noqa: F811
    """Negative control: without any sync the same scenes break a promise."""
    assert broken(tool, tmp_path, name, "off")[1]
