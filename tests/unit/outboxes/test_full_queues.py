"""Rows of a full queue wait, in their order; what goes elsewhere goes, however many of them there are."""

import logging
import random
import time

import pytest
from support.one_node import KEY
from support.transactions import Shop

from dropr_core.errors import QueueFull
from dropr_core.model.backoff import Backoff
from dropr_core.outboxes import relay as relay_module
from dropr_core.outboxes import relays as relays_module
from dropr_core.outboxes import waiting as waiting_module
from dropr_core.outboxes.care import Care
from dropr_core.outboxes.relays import Relays
from dropr_core.transactions.statements import Statement


class Clock:
    """Time of a relay, moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(relay_module, "time", made)
    return made


@pytest.fixture
def small(monkeypatch):
    """Pages of a few rows, so that few rows are many."""
    monkeypatch.setattr(relay_module, "ROWS", 4)
    monkeypatch.setattr(waiting_module, "WINDOW", 2)


def shop_of(directory, url, peer_limits=None, channels=None, **fields):
    """A shop whose peers a, b and c have limits of their own."""
    of = {"berlin": {}, "a": {}, "b": {}, "c": {}, **(peer_limits or {})}
    peers = {name: {"url": "http://127.0.0.1:9", "key": KEY, **limit} for name, limit in of.items()}
    groups = {"all": ["a", "b", "c"]}
    return Shop(directory, url, peers=peers, groups=groups, channels=channels or {}, **fields)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where the table is."""
    made = []

    def make(*limits, **fields):
        url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
        made.append(shop_of(tmp_path, url, *limits, **fields))
        return made[-1]

    yield make
    for shop in made:
        shop.close()


def put(shop, to, *bodies, channel="jobs"):
    for body in bodies:
        shop.execute("INSERT INTO dropr_outbox (channel, body, recipients) VALUES (?, ?, ?)", channel, b"%d" % body, to)


def queued(shop, peer):
    """What waits in the store for a peer, in the order of its lanes."""
    from dropr_core.model import envelope

    lanes = [stats.lane for stats in shop.node.outbox.lanes(peer)]
    batches = [shop.node.outbox.take(lane, 10_000, 1 << 30, mark_in_flight=False) for lane in lanes]
    return [int(envelope.body_of(entry.envelope)) for batch in batches for entry in batch.entries]


def deliver(shop, peer, most=10_000):
    """A peer takes some of what waits for it; what it was."""
    from dropr_core.model import envelope

    found = []
    for stats in shop.node.outbox.lanes(peer):
        batch = shop.node.outbox.take(stats.lane, most, 1 << 30)
        shop.node.outbox.settle(stats.lane, batch.upto)
        found += [(stats.lane.channel, int(envelope.body_of(entry.envelope))) for entry in batch.entries]
    return found


def relay(shop):
    """Everything that can be done now."""
    for _ in range(10_000):
        if not shop.relay.step(shop.link):
            return
    raise AssertionError("it never ends")


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


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_order_is_kept_and_everything_arrives(tmp_path, clock, small, monkeypatch, seed):
    """Rows to one or several peers, queues that fill and empty, rows that are taken away or cannot be deleted in time:
    no row overtakes another of its peer and channel, and when there is room all are gone.
    """
    chance = random.Random(seed)
    limits = {name: {"max_messages": chance.choice([0, 1, 2, 5])} for name in "ab" if chance.random() < 0.8}
    limits = {name: limit for name, limit in limits.items() if limit["max_messages"]}
    channels = {"news": {"max_messages": chance.choice([3, 4, 9])}} if chance.random() < 0.5 else {}
    monkeypatch.setattr(relay_module, "BYTES", chance.choice([3, 1 << 20]))
    shop = shop_of(tmp_path, None, limits, channels)
    shop.execute("PRAGMA synchronous = OFF")
    expected, got, number = {}, {}, 0

    def taken(peer, most):
        for channel, body in deliver(shop, peer, most):
            got.setdefault((peer, channel), []).append(body)

    def step():
        if chance.random() < 0.1:
            with monkeypatch.context() as broken:
                broken.setattr(shop.outbox.table, "delete", lambda numbers: Statement("DELETE FROM nothing"))
                try:
                    shop.relay.step(shop.link)
                except Exception:
                    if chance.random() < 0.5:
                        shop.relay.begin_anew()
                return
        shop.relay.step(shop.link)

    for _ in range(150):
        what = chance.random()
        if what < 0.4:
            for _ in range(chance.randrange(1, 7)):
                to = chance.choice(["a", "b", "c", "a,b", "b,c", "all"])
                channel = chance.choice(["jobs", "news"])
                number += 1
                put(shop, to, number, channel=channel)
                for peer in "abc" if to == "all" else to.split(","):
                    expected.setdefault((peer, channel), []).append(number)
        elif what < 0.45:
            rows = shop.execute("SELECT seq, body FROM dropr_outbox")
            if rows and shop.relay._undone is None:
                seq, body = chance.choice(rows)
                if chance.random() < 0.5:
                    shop.execute(f"DELETE FROM dropr_outbox WHERE seq = {seq}")
                    in_store = {one for peer in "abc" for one in queued(shop, peer)}
                    if int(body) not in in_store and all(int(body) not in there for there in got.values()):
                        for there in expected.values():
                            if int(body) in there:
                                there.remove(int(body))
        elif what < 0.7:
            taken(chance.choice("abc"), chance.choice([1, 2, 100]))
        elif what < 0.8:
            clock.now += chance.choice([0.5, 1, 10, 100])
        else:
            step()
    for _ in range(400):
        clock.now += 10
        shop.relay.step(shop.link)
        for peer in "abc":
            taken(peer, 100)
        if not shop.rows():
            break
    assert shop.rows() == []
    assert got == {pair: numbers for pair, numbers in expected.items() if numbers}
    assert shop.relay.full == {} or not shop.relay.step(shop.link)
    shop.close()


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
