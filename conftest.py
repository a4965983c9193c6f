"""What holds for every test of this repository.

None asserts a timing, not even by a default of hypothesis. They can run in parallel: each has the same name in every
process, and what is said of it can be told from one process to another.
"""

import re
from collections.abc import Generator

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make the texts of a report fit for UTF-8: tests log half characters, and pytest-xdist sends all that is said."""
    report = yield
    report.sections = [(title, printable(text)) for title, text in report.sections]
    if report.longrepr is not None and not isinstance(report.longrepr, tuple):
        text = str(report.longrepr)
        if printable(text) != text:
            report.longrepr = printable(text)
    return report


def printable(text: str) -> str:
    """The text with what has no UTF-8 form written out."""
    return text.encode("utf-8", "backslashreplace").decode()
