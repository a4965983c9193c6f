"""What the contract tests count as left behind."""

import subprocess
import sys

import attrs
import pytest

from dropr_core.testing import leaks
from dropr_core.testing.leaks import began, holdings, leaked, listed


@pytest.fixture
def child():
    """A process that lives as long as the test."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.communicate(b"\n", timeout=60)


def test_a_thread_that_has_ended_hides_no_child_of_the_others(tmp_path):
    """The list of a thread that ended while it was looked for takes none from the lists beside it."""
    (tmp_path / "one").write_text("11 12 ")
    (tmp_path / "two").write_text("13")
    assert list(listed([tmp_path / "one", tmp_path / "ended", tmp_path / "two"])) == [11, 12, 13]


def test_a_child_that_a_picture_missed_is_not_of_the_test(child, monkeypatch):
    """The lists of the system may leave one out while others end; when it began tells that it was there before."""
    monkeypatch.setattr(leaks, "MOMENT", 0.0)
    while holdings().since_boot <= began(child.pid) + 2 * leaks.TICK:
        pass
    before = attrs.evolve(holdings(), children={})
    assert not leaked(before)


def test_a_child_of_the_test_is_told(monkeypatch):
    """Its number and what it runs."""
    monkeypatch.setattr(leaks, "MOMENT", 0.0)
    before = holdings()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        found = leaked(before)
        process.communicate(b"\n", timeout=60)
    assert any(f"child process {process.pid}: " in word for word in found)


def test_a_process_that_is_gone_began_at_no_moment():
    """It is not taken for an old one."""
    assert began(2**22 + 1) == float("inf")
