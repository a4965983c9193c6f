"""Pieces of a large body that a node fetches, which come in another order than they were asked for."""

import io
import logging

from dropr_core.bodies import partial_body
from dropr_core.bodies.store import BodyFiles
from dropr_core.delivery import body_download
from dropr_core.delivery.body_download import WINDOW, BodyDownloads
from dropr_core.model import envelope
from dropr_core.model.chunk_digest import LEAF
from dropr_core.model.message import Message
from dropr_core.model.names import START, Head, MessageId
from dropr_core.protocol import messages as wire
from dropr_core.system.clock import FakeClock

LEAVES, AHEAD = 20, 5
BODY = bytes(range(256)) * (LEAVES * LEAF // 256)


class Talk:
    """A peer that answers when it is told to."""

    def __init__(self):
        self.asked, self.waiting = [], {}

    def ask(self, verb, ask, _kind, came):
        assert verb == wire.READ
        self.asked.append(ask.offset)
        self.waiting[ask.offset] = ask, came

    def answer(self, offset):
        ask, came = self.waiting.pop(offset)
        came(wire.Piece(memoryview(BODY[offset : offset + ask.count])))


def begun(tmp_path, monkeypatch):
    """A peer, and what was brought from it; a body of 20 pieces is being asked for."""
    for module in (partial_body, body_download):
        monkeypatch.setattr(module, "PIECES_AHEAD", AHEAD * LEAF)
    monkeypatch.setattr(body_download, "PIECE", LEAF)
    identity = MessageId(bytes(15) + b"1")
    written = BodyFiles(tmp_path / "there", 0).write(identity, io.BytesIO(BODY))
    message = Message(id=identity, sender="there", channel="films")
    part = wire.LanePart("films", 105, START, Head(1, identity), [envelope.encode(message, written.reference)])
    talk, brought = Talk(), []
    here = BodyFiles(tmp_path / "here", 0)
    downloads = BodyDownloads(
        "there", talk, here, FakeClock(), logging.getLogger("test.bodies"), lambda _store, one: brought.append(one)
    )
    downloads.begin(b"store", part)
    return talk, brought, part


def test_no_piece_is_asked_for_twice_because_one_is_late(tmp_path, monkeypatch):
    """What follows a late piece is asked for as far as it is kept, and no further."""
    talk, brought, part = begun(tmp_path, monkeypatch)
    assert talk.asked == [at * LEAF for at in range(WINDOW)]
    while later := [offset for offset in talk.waiting if offset]:
        talk.answer(later[0])
    assert talk.asked == [at * LEAF for at in range(1 + AHEAD)]
    while talk.waiting:
        talk.answer(min(talk.waiting))
    assert talk.asked == [at * LEAF for at in range(LEAVES)]
    assert brought == [part]


def test_pieces_may_come_in_the_opposite_order(tmp_path, monkeypatch):
    """The body is whole all the same, and each piece is asked for once."""
    talk, brought, part = begun(tmp_path, monkeypatch)
    while talk.waiting:
        talk.answer(max(talk.waiting))
    assert sorted(talk.asked) == [at * LEAF for at in range(LEAVES)]
    assert brought == [part]


def test_what_came_and_was_not_kept_is_asked_for_again(tmp_path, monkeypatch):
    """A body that is begun anew, as when its file was touched, does not wait for ever for what is behind its gap."""
    talk, brought, part = begun(tmp_path, monkeypatch)
    write, lost = partial_body.PartialBody.write, []

    def forgetful(self, *words):
        if len(lost) <= 2 * AHEAD:
            lost.append(words)
            return 0
        return write(self, *words)

    monkeypatch.setattr(partial_body.PartialBody, "write", forgetful)
    while talk.waiting:
        talk.answer(min(talk.waiting))
    assert len(lost) > AHEAD
    assert brought == [part]
