"""Large bodies on every disk that a power cut at any moment can leave."""

import pytest

from dropr_core.bodies.store import BodyFiles
from powercut import body_scenes
from powercut.acting import act, stage

pytestmark = pytest.mark.powercut


def broken(directory, name, *switches):
    """Act a scene out; (disks looked at, what was broken on which)."""
    count, found = 0, []
    for image, said, about in act(stage(directory), "body_scenes", name, *switches):
        count += 1
        try:
            body_scenes.SCENES[name][1](BodyFiles(image / "bodies", 0), said)
        except body_scenes.BROKEN as error:
            found.append((about, error))
    return count, found


@pytest.mark.parametrize("name", list(body_scenes.SCENES))
def test_fault_6_7_a_power_cut_at_any_moment_keeps_every_promised_body(scratch, name):
    """A body whose message may be stored is whole; one on its way is gone on with, or begun anew."""
    count, found = broken(scratch, name)
    assert count >= 10
    assert not found


@pytest.mark.parametrize("name", list(body_scenes.SCENES))
def test_the_power_cut_tests_of_bodies_would_notice_missing_flushes(scratch, name):
    """Negative control: without any sync the same scenes break a promise."""
    assert broken(scratch, name, "off")[1]
