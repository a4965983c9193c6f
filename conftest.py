"""What holds for every test of this repository.

None asserts a timing, and none depends on chance, not even by a default of hypothesis: it tries the same examples each
time, and others with `--hypothesis-profile=search`. They can run in parallel: each has the same name in every process,
and what is said of it can be told from one process to another.
"""

import logging
import re
import signal
from collections.abc import Generator
from logging.handlers import QueueHandler

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["postgres_rig"]  # fixtures for tests of several folders: a PostgreSQL, if one asks for it

settings.register_profile(
    "search",
    parent=settings.get_profile("default"),
    deadline=None,
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.too_slow],
)
settings.register_profile("same each time", parent=settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("same each time")


def pytest_configure() -> None:
    """Listen to Ctrl-C, as a program in a terminal does. What a script starts in the background ignores it, and so do
    its children: the programs that are tested here would never hear theirs.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that is named for where an object lies: another name in each process of a parallel run."""
    if wrong := [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]", item.nodeid)]:
        raise pytest.UsageError(f"give ids= to these, for they hold an address: {', '.join(wrong)}")


@pytest.fixture(autouse=True)
def _no_log_by_another_thread() -> Generator[None]:
    """Refuse a test that leaves a queue before the handlers of the process. Its thread may hold the lock of the queue
    while a later test forks; the child's first line would wait for it for ever.
    """
    yield
    left = [handler for handler in logging.root.handlers if isinstance(handler, QueueHandler)]
    for handler in left:
        logging.root.removeHandler(handler)
    assert not left, f"{left} of the root logger were left behind: let the framework leave logging alone"


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
