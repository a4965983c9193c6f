"""Whether a file system can be mounted here; if not, the tests that need it are skipped, or fail in CI."""

import os

import pytest

from powercut.disk import fuse


@pytest.fixture(scope="session")
def hindrance(tmp_path_factory):
    """Why nothing can be mounted here; empty if it can."""
    if not fuse.DEVICE.exists():
        return f"there is no {fuse.DEVICE}"
    place = tmp_path_factory.mktemp("mount")
    try:
        device = fuse.mount(place)
    except OSError as error:
        return f"{error} (mounting needs root)"
    fuse.unmount(place)
    os.close(device)
    return ""


@pytest.fixture(autouse=True)
def _power(request):
    """Tests with the marker need the device."""
    if request.node.get_closest_marker("powercut") and (reason := request.getfixturevalue("hindrance")):
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the power-cut tests: {reason}")
        pytest.skip(reason)
