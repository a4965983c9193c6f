"""Messages that others see before they are on stable storage, on every disk that a power cut can leave."""

import pytest

from powercut import early_scenes
from powercut.acting import act, stage

pytestmark = pytest.mark.powercut


def disks(directory, name, *switches):
    """Act a scene out; every disk that a power cut on the way leaves."""
    place = stage(directory)
    store = early_scenes.open_store(place.backing)
    early_scenes.SCENES[name]().prepare(store)
    store.close()
    return act(place, "early_scenes", name, *switches)


def judge(name, image, said):
    """Open what is left, as after a reboot, and look."""
    store = early_scenes.open_store(image)
    try:
        early_scenes.SCENES[name]().check(store, said)
    finally:
        store.close()


@pytest.mark.parametrize("name", list(early_scenes.SCENES))
def test_fault_6_7_what_is_seen_early_is_promised_to_nobody(scratch, name):
    """Whoever is woken before the disk is done tells others nothing that a power cut could take back."""
    count = 0
    for image, said, about in disks(scratch, name):
        try:
            judge(name, image, said)
        except Exception as error:
            raise AssertionError(f"{name}: disk {about}, said {said}: {error}") from error
        count += 1
    assert count >= 10, "too few disks to mean anything"


@pytest.mark.parametrize("name", list(early_scenes.SCENES))
def test_it_would_be_noticed_if_somebody_told_too_early(scratch, name):
    """Negative control: without a look at what is owed something is promised and gone on some disk."""
    broken = 0
    for image, said, _about in disks(scratch, name, "off"):
        try:
            judge(name, image, said)
        except Exception:
            broken += 1
    assert broken
