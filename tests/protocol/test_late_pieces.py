"""A piece of a large body that takes longer than those behind it."""

from support.lanes import SHOP, THERE, Node, Sender, ident, live, verb

from dropr_core.bodies import partial_body
from dropr_core.bodies.store import BodyFiles
from dropr_core.delivery import body_upload
from dropr_core.model.chunk_digest import LEAF
from dropr_core.system.clock import FakeClock

LEAVES, AHEAD = 20, 5


def test_no_piece_goes_twice_because_one_is_late(tmp_path, monkeypatch):
    """What follows a late piece is sent as far as the peer keeps it, and no further: what it throws away would have to
    be sent again, and so would all that is behind it.
    """
    for module in (partial_body, body_upload):
        monkeypatch.setattr(module, "PIECES_AHEAD", AHEAD * LEAF)
    monkeypatch.setattr(body_upload, "LARGEST", LEAF)
    clock = FakeClock()
    there = Node(THERE, SHOP, clock, bodies=BodyFiles(tmp_path / "there", 0))
    sender = Sender(clock, there, bodies=BodyFiles(tmp_path / "here", 0))
    sender.send_large(1, "orders", b"a" * (LEAVES * LEAF))

    def pieces():
        return [flight for flight in sender.wires.flights if verb(flight) == "chunk"]

    while not pieces():
        for flight in sender.turn():
            if verb(flight) != "chunk":
                flight.carry()
    late = pieces()[0]
    for _ in range(3 * LEAVES):
        for flight in sender.turn():
            if flight is not late:
                flight.carry()
    assert len(pieces()) == 1 + AHEAD
    live(sender, 5.0)
    assert there.ids == [ident(1)]
    assert len(pieces()) == LEAVES
