"""What an operator learns of those who knock: refused callers in the log, peers' last contact in `status`."""

import logging

from dropr_core.contracts.transport import Caller
from dropr_core.errors import Refused
from dropr_core.serving.contacts import note_contact, read_contacts
from dropr_core.serving.refusals import RefusalLog
from dropr_core.system.clock import FakeClock
from dropr_core.system.line_rate import EVERY


def test_a_flood_of_refusals_is_a_line_a_minute_for_each_kind(caplog):
    """The first is said at once with what to do, the others are counted; another kind has its own line."""
    clock = FakeClock()
    refusals = RefusalLog(logging.getLogger("dropr.test"), clock)
    for number in range(1000):
        refusals.note(Refused("unknown_peer", "no such pair of nodes here"), Caller(f"10.0.0.{number % 256}"))
    refusals.note(Refused("bad_signature", "not signed with the key"), Caller("10.0.0.9"))
    first, other = caplog.messages
    assert "10.0.0.0: no such pair of nodes here; if it may come in, name it under peers:" in first
    assert "compare the key of the pair on both sides" in other
    clock.advance(EVERY)
    refusals.note(Refused("unknown_peer", "no such pair of nodes here"), Caller("10.0.0.7"))
    assert "and 999 more since the last line of this kind" in caplog.messages[-1]


def test_a_contact_is_remembered_by_its_peer_and_costs_nothing_where_it_cannot(tmp_path):
    """Ages are seconds since then; a directory that cannot be written to is no error, a strange file no peer."""
    assert read_contacts(tmp_path) == {}
    note_contact(tmp_path, "laptop")
    note_contact(tmp_path, "../laptop")
    assert set(read_contacts(tmp_path)) == {"laptop", "../laptop"}
    assert {path.name for path in tmp_path.iterdir()} == {"heard"}
    (tmp_path / "heard" / "no hex").touch()
    assert set(read_contacts(tmp_path)) == {"laptop", "../laptop"}
    note_contact(tmp_path / "not" / "there", "laptop")
