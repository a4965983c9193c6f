"""From the table into the lanes: rows of other languages, rows that cannot be sent, what waits, what comes late."""

import json

import pytest
from support.transactions import Shop, application

from dropr_core.errors import QueueFull, StoreError
from dropr_core.model import envelope
from dropr_core.outboxes import relay as relay_module
from dropr_core.transactions.databases import connect
from dropr_core.transactions.statements import Statement


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, tmp_path):
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Shop(tmp_path, url, limits={"min_free": 0, "max_body": "100KiB", "inline_body": "1KiB"})
    yield made
    made.close()


def insert(shop, **columns):
    """A row as any language would insert it."""
    words = {name: value for name, value in columns.items() if value is not None}
    places = ", ".join("?" * len(words))
    shop.execute(f"INSERT INTO dropr_outbox ({', '.join(words)}) VALUES ({places})", *words.values())


def headers_of(shop):
    return [
        envelope.header_of(entry.envelope)
        for lane in shop.node.outbox.lanes()
        for entry in shop.node.outbox.take(lane.lane, 100, 1 << 20, mark_in_flight=False).entries
    ]


def test_channel_and_body_are_enough(shop):
    """Everything else has a default: the route, the priority and the content type are those of the channel."""
    insert(shop, channel="orders", body=b'{"sku": 7}')
    assert shop.relayed() == [b'{"sku": 7}']
    (header,) = headers_of(shop)
    assert (header.content_type, header.priority, header.sender) == ("application/json", 5, "shop")
    assert shop.rows() == []


def test_every_column_means_what_send_means_by_it(shop):
    """Recipients, headers, priority, key, receipt, content type, delay and life."""
    insert(shop, channel="jobs", body=b"x", recipients="berlin, rome", headers=json.dumps({"a": "b"}), priority=2,
           ordering_key="k", receipt=True, content_type="text/plain", delay=30.0, expires_in=600.0)  # fmt: skip
    assert shop.relayed() == [b"x", b"x"]
    one, two = headers_of(shop)
    assert one == two
    assert (one.headers, one.priority, one.key, one.receipt) == ({"a": "b"}, 2, "k", True)
    assert one.content_type == "text/plain"
    assert 0 < one.delay <= 30
    assert 570 < one.expires_in <= 600


def test_time_in_the_table_counts(shop):
    """A message that waited for the daemon is not delayed anew, and does not live longer."""
    ago = "now() - interval '100 s'" if shop.kind == "postgresql" else "(julianday('now') - 2440587.5) * 86400 - 100"
    insert(shop, channel="orders", body=b"1", delay=60.0, expires_in=300.0)
    with application("psycopg" if shop.kind == "postgresql" else "sqlite3", shop) as (given, hands):
        shop.node.send(2, channel="orders", delay=60, expires_in=300, connection=given)
        hands.commit()
    shop.execute(f"UPDATE dropr_outbox SET created_at = {ago}")
    shop.relayed()
    for header in headers_of(shop):
        assert header.delay == 0
        assert 170 < header.expires_in <= 200


def test_a_row_that_cannot_be_sent_is_set_aside_and_holds_up_nobody(shop):
    """Each with its reason, in the same table; redriven once it is mended."""
    insert(shop, channel="nowhere", body=b"no route")
    insert(shop, channel="a b", body=b"no channel")
    insert(shop, channel="jobs", recipients="nobody", body=b"no peer")
    insert(shop, channel="orders", body=b"bad headers", headers='["a"]')
    insert(shop, channel="orders", body=b"x" * 200_000)
    insert(shop, channel="orders", body=b"x", priority=11)
    insert(shop, channel="orders", body=b"x", prepared=b"garbage")
    insert(shop, channel="orders", body=b"x", format=9)
    insert(shop, channel="orders", body=b"good")
    assert shop.relayed() == [b"good"]
    problems = [problem for _, problem in shop.rows()]
    words = ["has no `to:`", "a channel is 1 to", "no peer or group 'nobody'", "no JSON object", "the limit is 102400",
             "priority 11", "column prepared", "format 9"]  # fmt: skip
    assert len(problems) == len(words)
    for problem, word in zip(problems, words, strict=True):
        assert word in problem
    shop.execute("UPDATE dropr_outbox SET recipients = 'rome' WHERE channel = 'nowhere'")
    assert len(shop.link.run(shop.outbox.table.redrive([1]))) == 1
    assert sorted(shop.relayed()) == [b"good", b"no route"]


def test_the_rows_of_other_nodes_are_left_alone(shop):
    """Each daemon takes only what is for its node."""
    insert(shop, channel="orders", body=b"mine")
    insert(shop, channel="orders", body=b"theirs", node="other")
    assert shop.relayed() == [b"mine"]
    assert len(shop.rows()) == 1


def test_a_large_body_of_a_row_becomes_a_file(shop):
    """As with `send`: above the inline limit it travels beside the lanes."""
    insert(shop, channel="orders", body=b"y" * 5000)
    shop.relayed()
    (header,) = headers_of(shop)
    (lane,) = shop.node.outbox.lanes()
    (entry,) = shop.node.outbox.take(lane.lane, 1, 1, mark_in_flight=False).entries
    reference = envelope.reference_of(entry.envelope)
    with shop.node.runtime.bodies.open_sent(header.message_id, reference) as file:
        assert file.read() == b"y" * 5000


def test_a_number_that_becomes_visible_late_is_not_lost(tmp_path, postgres_url):
    """A transaction that took its number first and commits last: its message comes after the others."""
    import psycopg

    shop = Shop(tmp_path, postgres_url)
    with psycopg.connect(postgres_url) as slow, psycopg.connect(postgres_url) as fast:
        shop.node.send("slow", channel="orders", connection=slow)
        shop.node.send("fast", channel="orders", connection=fast)
        fast.commit()
        assert shop.relayed() == [b'"fast"']
        slow.commit()
        assert shop.relayed() == [b'"fast"', b'"slow"']
    shop.close()


def test_rows_are_taken_in_portions_and_in_order(shop, monkeypatch):
    """Neither too many rows nor too many bytes at once are in memory."""
    monkeypatch.setattr(relay_module, "ROWS", 7)
    monkeypatch.setattr(relay_module, "BYTES", 20)
    for number in range(30):
        insert(shop, channel="orders", body=b"%09d" % number)
    assert shop.relay.step(shop.link)
    assert len(shop.queued()) == 2
    assert [int(body) for body in shop.relayed()] == list(range(30))


def test_a_full_store_leaves_the_rows_where_they_are(shop, monkeypatch):
    """They are taken when there is room again."""
    insert(shop, channel="orders", body=b"waits")
    append = shop.node.runtime.storage.outbox.append

    def full(_messages):
        raise QueueFull("no room")

    monkeypatch.setattr(shop.node.runtime.storage.outbox, "append", full)
    with pytest.raises(QueueFull):
        shop.relay.step(shop.link)
    assert shop.rows() == [("orders", None)]
    monkeypatch.setattr(shop.node.runtime.storage.outbox, "append", append)
    assert shop.relayed() == [b"waits"]


def test_a_delete_that_fails_sends_nothing_twice(shop, monkeypatch):
    """The message is in the store and still in the table: it is known when it comes again."""
    insert(shop, channel="orders", body=b"once")
    monkeypatch.setattr(shop.outbox.table, "delete", lambda numbers: Statement("DELETE FROM nothing_of_the_kind"))
    with pytest.raises(StoreError):
        shop.relay.step(shop.link)
    monkeypatch.undo()
    assert shop.queued() == [b"once"]
    shop.relay._undone = None  # another process
    assert shop.relayed() == [b"once"]
    assert shop.rows() == []


def test_nothing_is_sent_that_a_crash_of_the_server_takes_back(tmp_path, own_postgres):
    """With synchronous_commit=off a commit is seen before it is flushed: the daemon flushes before it sends."""
    own_postgres.configure(synchronous_commit="off", wal_writer_delay="10s", wal_writer_flush_after="1GB", fsync="on")
    own_postgres.restart()
    shop = Shop(tmp_path, own_postgres.url(own_postgres.database()))
    append = shop.node.runtime.storage.outbox.append

    def crash(messages):
        own_postgres.kill9()
        return append(messages)

    with application("psycopg", shop) as (given, hands):
        hands.do("first")  # what is small is written with what came before
        hands.commit()
        shop.link.harden()
        hands.do("effect")
        shop.node.send("sent", channel="orders", connection=given)
        hands.commit()
        shop.node.runtime.storage.outbox.append = crash
        with pytest.raises(StoreError):
            shop.relay.step(shop.link)
    shop.node.runtime.storage.outbox.append = append
    shop.link.close()
    own_postgres.restart()
    shop.link = connect(shop.outbox.database, "shop")
    assert shop.relayed() == [b'"sent"']
    assert shop.effects() == ["effect", "first"]
    shop.close()
