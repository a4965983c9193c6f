"""One daemon at a time for a store that machines share."""

import json
import logging
import threading

import pytest
from support.nodes import eventually
from support.site import Site

from dropr_core.angel.heartbeat import Heartbeat
from dropr_core.processes import election as election_module
from dropr_core.processes.daemon import _serve
from dropr_core.processes.election import Unshared, find_elected, stand
from dropr_core.processes.mainloop import MainLoop

LOG = logging.getLogger("dropr.daemon")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(election_module, "EVERY", 0.05)
    made = Site(tmp_path)
    yield made
    made.close()


class Machine:
    """A daemon of one machine, in a thread."""

    def __init__(self, node):
        self.node, self.code = node, None
        self.loop = MainLoop(Heartbeat.from_environment())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self.code = _serve(self.node.runtime, self.loop, Heartbeat.from_environment(), None)

    @property
    def report(self):
        """What it leaves for `dropr status`."""
        try:
            return json.loads((self.node.runtime.run_directory / "daemon.json").read_text())
        except (OSError, ValueError):
            return {}

    @property
    def works(self):
        """Whether it is the one."""
        return bool(self.report) and "waits_for" not in self.report

    def stop(self):
        """As SIGTERM does."""
        self.loop.stopping = True
        self.loop.wake()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.loop.close()


def test_a_store_of_one_machine_needs_no_election(tmp_path):
    """Who holds the lock of the data directory is the daemon."""
    site = Site(tmp_path)
    node = site.machine()
    node.runtime.storage.shared = None
    with MainLoop(Heartbeat.from_environment()) as loop:
        office = stand(node.runtime, loop, LOG)
    assert isinstance(office, Unshared)
    assert office.holds()
    office.release()
    site.close()


def test_one_works_and_the_other_takes_over_when_it_stops(site):
    """The second waits and says for whom; when the first stops, it works, and everybody may know where."""
    one, two = Machine(site.machine()), None
    try:
        eventually(lambda: one.works, what="the first works")
        two = Machine(site.machine())
        eventually(lambda: "process" in two.report.get("waits_for", ""), what="the second waits, and says for whom")
        assert find_elected(two.node.runtime).pid > 0
        one.stop()
        assert one.code == 0
        eventually(lambda: two.works, what="the second took over")
    finally:
        for machine in (one, two):
            if machine is not None:
                machine.stop()
    assert two.code == 0


def test_who_lost_the_line_stops_at_once_and_stands_again(site, caplog):
    """Its election is lost with the line; another daemon works, and the first waits for its turn, still running."""
    caplog.set_level(logging.INFO)
    one, two = Machine(site.machine()), None
    try:
        eventually(lambda: one.works, what="the first works")
        two = Machine(site.machine())
        eventually(lambda: two.report.get("waits_for"), what="the second waits")
        site.lines[0].cut()
        eventually(lambda: two.works, what="the second took over")
        site.lines[0].mend()
        eventually(lambda: one.report.get("waits_for"), what="the first waits")
        assert "stops at once" in caplog.text
    finally:
        for machine in (one, two):
            if machine is not None:
                machine.stop()
