"""What a large body on its way leaves in the memory of its sender's machine."""

from support.lanes import SHOP, THERE, Node, Sender, ident, live

from dropr_core.bodies.files import BodyFile
from dropr_core.bodies.store import BodyFiles
from dropr_core.delivery.body_upload import LARGEST
from dropr_core.system.clock import FakeClock

BODY = b"a" * (2 * LARGEST + 1000)


def carried(tmp_path, monkeypatch, *, others):
    """The pieces that are said to have passed while a body goes to one peer and to so many others."""
    passed = []
    monkeypatch.setattr(BodyFile, "passed", lambda _file, offset, size: passed.append((offset, size)))
    clock = FakeClock()
    there = Node(THERE, SHOP, clock, bodies=BodyFiles(tmp_path / "there", 0))
    sender = Sender(clock, there, bodies=BodyFiles(tmp_path / "here", 0))
    sender.pusher._budget.active += others
    sender.send_large(1, "orders", BODY)
    live(sender, 5.0)
    assert there.ids == [ident(1)]
    return passed


def test_what_the_peer_has_need_not_be_kept_in_memory(tmp_path, monkeypatch):
    """Each byte passes once, in order, when the peer has it."""
    passed = carried(tmp_path, monkeypatch, others=0)
    assert len(passed) > 1
    assert [offset for offset, _ in passed] == [sum(size for _, size in passed[:n]) for n in range(len(passed))]
    assert sum(size for _, size in passed) == len(BODY)


def test_what_another_peer_may_be_about_to_get_stays(tmp_path, monkeypatch):
    """While several bodies are on their way they may be the same one: nothing of them passes."""
    assert carried(tmp_path, monkeypatch, others=1) == []
