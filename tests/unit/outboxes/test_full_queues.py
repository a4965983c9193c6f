"""Rows of a full queue wait, in their order; what goes elsewhere goes, however many of them there are."""

import logging
import time

import pytest
from support.full_queues import deliver, put, queued, relay

from dropr_core.errors import QueueFull
from dropr_core.model.backoff import Backoff
from dropr_core.outboxes import relays as relays_module
from dropr_core.outboxes import waiting as waiting_module
from dropr_core.outboxes.care import Care
from dropr_core.outboxes.relays import Relays


def test_a_full_queue_holds_up_nobody_else(place, clock):
    """What fits goes, in order; the rest of that peer waits, and what is for others passes it."""
    shop = place({"a": {"max_messages": 3}})
    put(shop, "a", *range(10))
    put(shop, "b", *range(10, 15))
    put(shop, "a", 15)
    relay(shop)
    assert queued(shop, "a") == [0, 1, 2]
    assert queued(shop, "b") == [10, 11, 12, 13, 14]
    assert list(shop.relay.full) == [("peer", "a")]
    put(shop, "b", 16)
    put(shop, "a", 17)
    relay(shop)
    assert queued(shop, "b") == [10, 11, 12, 13, 14, 16]
    assert deliver(shop, "a", 2) == [("jobs", 0), ("jobs", 1)]
    clock.now += 1
    relay(shop)
    assert queued(shop, "a") == [2, 3, 4]
    gone = []
    while shop.rows():
        gone += deliver(shop, "a")
        clock.now += 10
        relay(shop)
    assert [number for _, number in gone] + queued(shop, "a") == [*range(2, 10), 15, 17]
    assert shop.relay.full == {}


def test_a_limit_of_everything_below_a_portion_lets_the_table_drain(place, clock):
    """As many as fit go each time, and the reason is that there is no room for anything."""
    shop = place(limits={"min_free": 0, "max_messages": 3})
    put(shop, "a", *range(8))
    gone = []
    for _ in range(2):
        with pytest.raises(QueueFull, match="outbox of shop"):
            relay(shop)
        assert len(queued(shop, "a")) == 3
        gone += deliver(shop, "a")
    relay(shop)
    assert [number for _, number in gone] + queued(shop, "a") == list(range(8))
    assert shop.rows() == []


def test_a_full_channel_waits_whoever_it_goes_to(place, clock):
    """Its limit counts all peers together; other channels to the same peers go on."""
    shop = place(channels={"news": {"max_messages": 2}})
    put(shop, "a", 1, 2, 3, channel="news")
    put(shop, "b", 4, channel="news")
    put(shop, "a", 5)
    relay(shop)
    assert (queued(shop, "a"), queued(shop, "b")) == ([1, 2, 5], [])
    assert list(shop.relay.full) == [("channel", "news")]
    deliver(shop, "a")
    clock.now += 1
    relay(shop)
    assert (queued(shop, "a"), queued(shop, "b")) == ([3], [4])


def test_what_follows_a_row_to_several_peers_waits_behind_it(place, clock):
    """A row to a and b waits for a; what comes later for b on its channel keeps its place, other channels go on."""
    shop = place({"a": {"max_messages": 1}})
    put(shop, "a", 1)
    put(shop, "all", 2)
    put(shop, "b", 3)
    put(shop, "b", 4, channel="news")
    relay(shop)
    assert (queued(shop, "a"), queued(shop, "b"), queued(shop, "c")) == ([1], [4], [])
    deliver(shop, "a")
    clock.now += 1
    relay(shop)
    assert (queued(shop, "a"), queued(shop, "b"), queued(shop, "c")) == ([2], [4, 2, 3], [2])
    assert shop.rows() == []


def test_a_row_that_can_never_fit_is_set_aside(place, clock):
    """Waiting cannot help where one message is more than the whole limit."""
    shop = place({"a": {"max_bytes": "500B"}})
    shop.execute("INSERT INTO dropr_outbox (channel, body, recipients) VALUES ('jobs', ?, 'a')", b"x" * 600)
    put(shop, "a", 1)
    relay(shop)
    assert queued(shop, "a") == [1]
    ((_, problem),) = shop.rows()
    assert "over the limit of 500; raise the limit" in problem


def test_no_room_on_the_disk_stops_all(place, clock, monkeypatch):
    """Nothing is tried by halves then, and nothing is passed over."""
    shop = place()
    put(shop, "a", *range(8))
    tries = []

    def full(messages):
        tries.append(len(messages))
        raise QueueFull("no room")

    monkeypatch.setattr(shop.node.runtime.storage.outbox, "append", full)
    with pytest.raises(QueueFull):
        relay(shop)
    assert tries == [8]
    assert shop.relay.full == {}
    monkeypatch.undo()
    relay(shop)
    assert queued(shop, "a") == list(range(8))


def test_a_word_about_another_queue_stops_all(place, clock, monkeypatch):
    """What is staged goes first; that it does not fit says nothing of the rows."""
    shop = place()
    put(shop, "a", 1)

    def full(messages):
        raise QueueFull("no room", queue=("peer", "b"))

    monkeypatch.setattr(shop.node.runtime.storage.outbox, "append", full)
    with pytest.raises(QueueFull):
        relay(shop)
    assert shop.relay.full == {}


def test_rows_that_wait_are_passed_over_once(place, clock, small, monkeypatch):
    """However many wait: each turn reads the rows that are new, and tries one."""
    shop = place({"a": {"max_messages": 1}})
    places = ", ".join(["('jobs', 'a')"] * 200)
    shop.execute(f"INSERT INTO dropr_outbox (channel, recipients) VALUES {places}")
    put(shop, "b", 1)
    relay(shop)
    assert queued(shop, "b") == [1]
    pages, run = [], shop.link.run

    def counted(statement):
        rows = run(statement)
        if "seq > ?" in statement.sql:
            pages.append(len(rows))
        return rows

    monkeypatch.setattr(shop.link, "run", counted)
    for number in range(2, 12):
        put(shop, "b", number)
        clock.now += 1
        relay(shop)
    assert queued(shop, "b") == list(range(1, 12))
    assert sum(pages) <= 10 * (waiting_module.WINDOW + 1)


def test_a_row_that_becomes_visible_late_is_found(place, clock, small):
    """Among the last numbers at once, below them with the next look at everything, which comes each minute."""
    shop = place({"a": {"max_messages": 1}})
    put(shop, "a", *range(6))
    put(shop, "b", *range(6, 12))
    relay(shop)
    shop.execute("INSERT INTO dropr_outbox (seq, channel, body, recipients) VALUES (0, 'jobs', ?, 'b')", b"100")
    relay(shop)
    assert 100 not in queued(shop, "b")
    clock.now += waiting_module.AGAIN
    relay(shop)
    assert queued(shop, "b") == [*range(6, 12), 100]


def test_where_nothing_waits_any_more_all_is_looked_at(place, clock, small):
    """What became visible late is not left for the next time that somebody writes."""
    shop = place({"a": {"max_messages": 1}})
    put(shop, "a", 0, 1)
    put(shop, "b", *range(6, 12))
    relay(shop)
    shop.execute("INSERT INTO dropr_outbox (seq, channel, body, recipients) VALUES (0, 'jobs', ?, 'b')", b"100")
    deliver(shop, "a")
    clock.now += 1
    relay(shop)
    assert (queued(shop, "a"), queued(shop, "b")) == ([1], [*range(6, 12), 100])


def test_another_connection_is_looked_at_anew(place, clock):
    """Nothing of what was seen before is believed."""
    shop = place({"a": {"max_messages": 1}})
    put(shop, "a", 0, 1)
    put(shop, "b", 2)
    relay(shop)
    shop.execute("UPDATE dropr_outbox SET recipients = 'b'")
    shop.relay.begin_anew()
    relay(shop)
    assert queued(shop, "b") == [2, 1]


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("outbox app")]


def test_a_full_queue_is_one_line_and_shown(place, caplog, monkeypatch):
    """One line when its messages begin to wait, one when none does any more; the rest is looked after meanwhile."""
    monkeypatch.setattr(waiting_module, "ROOM", Backoff(0.02, 0.02))
    monkeypatch.setattr(relays_module, "CARE_EVERY", 0.0)
    cared, keep = [], Care.keep_promises
    monkeypatch.setattr(Care, "keep_promises", lambda self, link: cared.append(keep(self, link)))
    shop = place({"a": {"max_messages": 2}})
    put(shop, "a", *range(5))
    put(shop, "b", 7)
    with caplog.at_level(logging.INFO):
        relays = Relays(shop.node.runtime, logging.getLogger("dropr.daemon"))
        until(lambda: relays.report["app"])
        assert queued(shop, "b") == [7]
        assert relays.report["app"].startswith("only those of full queues: peer a: 2 messages are waiting")
        before = len(cared)
        until(lambda: len(cared) > before + 1)
        gone = []
        while len(gone) < 5:
            gone += deliver(shop, "a", 1)
        until(lambda: not relays.report["app"])
        relays.close()
    assert [number for _, number in gone] == list(range(5))
    full, free = said(caplog)
    assert full.startswith("outbox app: messages for peer a wait, all others go on: peer a: 2 messages are waiting")
    assert free == "outbox app: no messages wait for peer a any more"


def test_a_full_store_is_cared_for(place, caplog, monkeypatch):
    """Bodies that nothing needs are let go though no message can be stored: that is what makes room."""
    monkeypatch.setattr(relays_module, "CARE_EVERY", 0.0)
    cared = []
    monkeypatch.setattr(Care, "keep_promises", lambda self, link: cared.append(link))
    shop = place()
    put(shop, "a", 1)

    def full(messages):
        raise QueueFull("no room")

    with monkeypatch.context() as disk, caplog.at_level(logging.INFO):
        disk.setattr(shop.node.runtime.storage.outbox, "append", full)
        relays = Relays(shop.node.runtime, logging.getLogger("dropr.daemon"))
        until(lambda: len(cared) > 1)
        assert relays.report == {"app": "QueueFull: no room"}
        relays.close()
    assert len(said(caplog)) == 1
