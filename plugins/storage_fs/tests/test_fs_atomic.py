"""All arrivals of one call are stored or none, also by a process that is killed in between."""

import os

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.inbox.accept import Filling

from dropr_core.contracts.storage import Arrival, Job, Selection
from dropr_core.model.names import START, Head, MessageId, SourceLane, StoreId
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import make_context
from dropr_core.testing.forks import Child

STORE = StoreId(b"store--1")
COUNTING, FILLED, OTHER = (SourceLane("shop", STORE, channel, 5) for channel in ("counting", "orders", "others"))
ID = MessageId(b"i" * 16)


def arrivals(*filled):
    """The head of a lane on a channel that never gets a message, and a message for each of the others."""
    full = [Arrival(lane, START, Head(1, ID), [Job(ID, b"envelope")]) for lane in filled]
    return [Arrival(COUNTING, START, Head(1, ID), []), *full]


@pytest.mark.parametrize("filled", [(FILLED,), (FILLED, OTHER)], ids=["one lane", "two lanes"])
def test_a_head_without_messages_is_not_there_before_the_messages_of_the_same_call(tmp_path, monkeypatch, filled):
    """Killed after the journal and before the log of the messages: whoever opens the store finds all, or nothing."""

    def work(_say):
        storage = dropr_storage(Options(reserve=0), make_context(tmp_path, FakeClock()))
        monkeypatch.setattr(Filling, "_write", lambda *_: os._exit(7))
        storage.inbox.accept(arrivals(*filled))

    with Child(work) as child:
        child.go()
        child.wait()
        assert child.code == 7
    storage = dropr_storage(Options(reserve=0), make_context(tmp_path, FakeClock()))
    heads, queued = storage.inbox.heads("shop", STORE), storage.inbox.scan(Selection())
    storage.close()
    if heads or queued:
        assert set(heads) == {COUNTING, *filled}
        assert sorted(one.channel for one in queued) == sorted(lane.channel for lane in filled)
