"""Messages that others see before they are on stable storage, on every disk that a power cut can leave."""

import pytest

from powercut import early_scenes
from powercut.judging import Scenes, breaks_a_promise, keeps_its_promises

pytestmark = pytest.mark.powercut

SCENES = Scenes(early_scenes)


@pytest.mark.parametrize("name", list(early_scenes.SCENES))
def test_fault_6_7_what_is_seen_early_is_promised_to_nobody(scratch, name):
    """Whoever is woken before the disk is done tells others nothing that a power cut could take back."""
    keeps_its_promises(name, SCENES.disks(scratch, name), SCENES.judge(name))


@pytest.mark.parametrize("name", list(early_scenes.SCENES))
def test_it_would_be_noticed_if_somebody_told_too_early(scratch, name):
    """Negative control: without a look at what is owed something is promised and gone on some disk."""
    assert breaks_a_promise(SCENES.disks(scratch, name, "off"), SCENES.judge(name))
