"""What the server says of a store that fails while peers ask."""

import logging

import pytest
from support.one_node import KEY, open_node

from dropr_core.errors import WriteFailed
from dropr_core.processes.server import make_dispatcher
from dropr_core.protocol import messages as wire
from dropr_core.protocol.endpoint import Request
from dropr_core.protocol.frames import FrameHeader


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path) as opened:
        yield opened


def test_a_store_that_fails_and_works_again_is_two_lines(node, monkeypatch, caplog):
    """However many requests of however many peers meet it; and it works again when it does for all of them."""
    dispatcher = make_dispatcher(node.runtime, logging.getLogger("dropr.test.server"))

    def ask(peer):
        header = FrameHeader(
            sender=peer, receiver="shop", request=b"r" * 8, verb=wire.HEADS, digest=b"", session=b"s", counter=1
        )
        body = memoryview(wire.encode(wire.AskHeads(b"store--1", [("jobs", 5)])))
        request = Request(peer, wire.HEADS, body, header, b"m" * 32, KEY.encode(), memoryview(b""))
        assert isinstance(dispatcher.endpoint.answer(request, first=False), bytes)

    def broken(*_args):
        raise WriteFailed("/data/inbox.db: Input/output error")

    with caplog.at_level(logging.INFO):
        ask("rome")
        with monkeypatch.context() as patch:
            patch.setattr(node.runtime.inbox, "heads", broken)
            for _ in range(3):
                ask("rome")
                ask("berlin")
        ask("rome")
        assert len(caplog.messages) == 1
        ask("berlin")
        ask("berlin")
    assert caplog.messages == [
        "the store failed, peers keep what they have and come again: /data/inbox.db: Input/output error",
        "the store works again",
    ]
    dispatcher.close()
