"""Around a fork a store lets go of its files."""

import os
from pathlib import Path

import pytest

from dropr_core.errors import StoreError
from dropr_core.storage_kit.forking import Forks


class Store:
    """Somebody who keeps a file open."""

    def __init__(self, *, busy=False):
        self.busy, self.said = busy, []

    def pause(self):
        self.said.append("pause")
        return not self.busy

    def resume(self):
        self.said.append("resume")


def in_child(work):
    """Whether ``work`` is true in a forked child."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_who_could_let_go_goes_on_in_the_parent_and_not_in_the_child(tmp_path):
    """Pausing comes before the fork; the parent alone resumes those who paused; what stayed open is refused a child."""
    kept, other = tmp_path / "kept", tmp_path / "other"
    kept.touch()
    other.touch()
    forks = Forks(lambda: [str(kept)])
    idle, busy = Store(), Store(busy=True)
    forks.watch(idle)
    forks.watch(busy)

    def refused():
        forks.check(other)
        with pytest.raises(StoreError, match="in use at the moment of a fork"):
            forks.check(Path(kept))
        return (idle.said, busy.said) == (["pause"], ["pause"])

    assert in_child(refused)
    assert (idle.said, busy.said) == (["pause", "resume"], ["pause"])
    forks.check(kept)
