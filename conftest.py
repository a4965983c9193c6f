"""What holds for every test of this repository.

None asserts a timing, not even by a default of hypothesis; and each has the same name in every process, so that they
can run in parallel.
"""

import re

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "no timings",
    parent=settings(),  # under CI hypothesis has a profile of its own
    deadline=None,
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.too_slow],
)
settings.load_profile("no timings")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that is named for where an object lies: another name in each process of a parallel run."""
    if wrong := [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]", item.nodeid)]:
        raise pytest.UsageError(f"give ids= to these, for they hold an address: {', '.join(wrong)}")
