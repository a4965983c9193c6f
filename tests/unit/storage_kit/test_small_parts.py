"""Guard, events and limits."""

import logging
from pathlib import Path

import pytest

from dropr_core.contracts.context import Context
from dropr_core.errors import Closed, QueueFull, StoreReadOnly
from dropr_core.storage_kit.events import StoreEvents
from dropr_core.storage_kit.guard import Guard
from dropr_core.storage_kit.limits import check_inbox, check_outbox, limited
from dropr_core.system.clock import FakeClock
from dropr_core.testing.forks import Child


def context(**more):
    """A context without a disk."""
    return Context(node="shop", data=Path("/nowhere"), clock=FakeClock(), log=logging.getLogger("t"), **more)


def test_a_guard_refuses_after_close_in_a_child_and_to_write_what_is_only_looked_at():
    """Three refusals, each with the name of the store."""
    guard, looking = Guard("outbox"), Guard("outbox", read_only=True)
    guard.enter(write=True)
    looking.enter(write=False)
    with pytest.raises(StoreReadOnly, match="outbox"):
        looking.enter(write=True)

    def work(say):
        say(guard.forked)
        try:
            guard.enter(write=False)
        except Closed as error:
            say(str(error))

    with Child(work) as child:
        forked, said = list(child.go().rest())
    assert forked is True
    assert "before a fork" in said
    guard.closed = True
    with pytest.raises(Closed, match="outbox"):
        guard.enter(write=False)


def test_the_same_event_is_told_once_a_minute():
    """A disk that stays full is told of once a minute; damage each time; another event at once."""
    told = []
    where = context(event=lambda name, details: told.append((name, details["store"])))
    events = StoreEvents(where, Path("/store"))
    for _ in range(3):
        events.tell("full", {})
        events.tell("corrupt", {}, each=True)
    where.clock.advance(59)
    events.tell("full", {})
    events.tell("read_only", {})
    where.clock.advance(2)
    events.tell("full", {})
    assert [name for name, _ in told] == ["full", "corrupt", "corrupt", "corrupt", "read_only", "full"]
    assert {store for _, store in told} == {"/store"}


@pytest.mark.parametrize(("limits", "says"), [
    ({"max_messages": 12}, "outbox of shop: 10 messages"), ({"max_bytes": 105}, "outbox of shop: 100 bytes"),
    ({"peer_limits": {"a": (None, 54)}}, "peer a: 50 bytes"), ({"channel_limits": {"c": (6, None)}}, "channel c: 5 me"),
    ({"peer_limits": {"z": (0, 0)}, "channel_limits": {"z": (0, 0)}, "max_messages": 13, "max_bytes": 109}, ""),
    ({}, ""),
])  # fmt: skip
def test_whatever_would_be_over_a_limit_is_named(limits, says):
    """The half, a peer or a channel: what waits, what comes and the limit are said; else nothing happens."""
    where = context(**limits)
    kept = {"all": (10, 100), "peer": (5, 50), "channel": (5, 50)}
    more = {("a", "c"): (2, 5), ("b", "d"): (1, 4)}
    assert limited(where) == bool(limits)
    if not says:
        check_outbox(where, more, lambda kind, _: kept[kind])
        return
    with pytest.raises(QueueFull, match=says):
        check_outbox(where, more, lambda kind, _: kept[kind])


def test_an_inbox_has_limits_of_its_own_and_of_channels():
    """The same words for what arrives."""
    with pytest.raises(QueueFull, match="inbox of shop: 4 messages"):
        check_inbox(context(max_messages=5), {"c": (2, 2)}, lambda *_: (4, 4))
    with pytest.raises(QueueFull, match="channel c"):
        check_inbox(context(channel_limits={"c": (None, 5)}), {"c": (2, 2)}, lambda *_: (4, 4))
    check_inbox(context(max_messages=1), {}, lambda *_: (4, 4))
