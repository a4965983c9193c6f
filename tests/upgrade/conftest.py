"""What tests of an upgrade share: the last release, unpacked once for each process of the suite."""

import pytest
from support.last_release import LastRelease


@pytest.fixture(scope="session")
def last_release(tmp_path_factory):
    """The last release, ready to be run."""
    return LastRelease(tmp_path_factory.mktemp("last-release"))
