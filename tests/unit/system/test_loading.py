"""Forks and imports that are not at the top of a file."""

import os
import threading

import pytest

from dropr_core.system import loading
from dropr_core.system.loading import unforked

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def in_child(work):
    """How a forked child ends that does some work."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Importer:
    """A thread that imports until it is told to end."""

    def __init__(self):
        self._inside, self.end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._inside.wait()

    def _work(self):
        with unforked:
            self._inside.set()
            self.end.wait()

    def close(self):
        self.end.set()
        self._thread.join()


def use():
    """Imports as any other."""
    with unforked, unforked:
        pass


def test_a_thread_forks_in_the_middle_of_its_own_import():
    """It waits for nobody, and both go on importing."""
    with unforked:
        assert in_child(use) == 0
        use()
    assert in_child(use) == 0


def test_threads_that_import_do_not_wait_for_each_other():
    """One may need what another one imports: only a fork waits."""
    one = Importer()
    use()
    one.close()


def test_an_import_without_an_end_holds_up_no_fork_for_ever(monkeypatch):
    """It may wait for the very thread that forks. The child has none of its parent's threads to wait for."""
    monkeypatch.setattr(loading, "PATIENCE", 0.0)
    one = Importer()
    assert in_child(lambda: (use(), os.fork() or os._exit(0))) == 0
    use()
    one.close()


def test_a_fork_ends_when_the_import_does():
    """It goes on when the last one that imports has ended."""
    one = Importer()
    before = []
    os.register_at_fork(before=lambda: before.append(one.end.set()))  # called before ours, which was there first
    assert in_child(use) == 0
    assert before
    one.close()


def test_none_begins_until_the_process_has_forked():
    """A thread that wants to import while the process forks does so afterwards."""
    begun, done = threading.Event(), threading.Event()

    def work():
        begun.set()
        use()
        done.set()

    thread = threading.Thread(target=work, daemon=True)
    unforked._before()
    thread.start()
    begun.wait()
    assert not done.wait(0.05)
    unforked._in_parent()
    assert done.wait(20)
    thread.join()
