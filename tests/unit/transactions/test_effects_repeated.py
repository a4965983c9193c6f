"""Effects whose process or server ended after the commit or before it: none takes effect twice, none is lost."""

import sqlite3

import pytest
from support.one_node import Peer
from support.transactions import Shop
from unit.transactions.effects_rig import forget_the_settlement, marks, states

from dropr_core.errors import AlreadyProcessed
from dropr_core.model.message import State
from dropr_core.model.names import MessageId
from dropr_core.outboxes.care import Care
from dropr_core.transactions.databases import SqliteLink, connect


def test_what_took_effect_before_its_process_was_killed_is_not_handed_out_again(shop):
    """It is acknowledged, with its result; the loop sees only the others."""
    identity, _other = Peer(shop.node).push(b"one", b"two", receipt=True)
    consumer = shop.node.consumer("jobs")
    (first,) = consumer.claim()
    assert first.claim.id == identity
    forget_the_settlement(shop, identity)
    first.release(delay=0)
    assert [message.body for message in shop.node.receive("jobs", wait=0)] == [b"two"]
    outcomes = {one.id: one for one in shop.node.inbox.outcomes("berlin", None, 0, 10)[1]}
    assert (outcomes[identity].state, outcomes[identity].result) == (State.PROCESSED, b"42")
    consumer.close()


def test_an_effect_that_is_found_late_is_rolled_back_and_the_message_done(shop):
    """If nobody could ask before: the mark tells within the transaction, `with message:` takes the exception."""
    (identity,) = Peer(shop.node).push(b"one")
    (message,) = shop.node.consumer("jobs").claim()  # its first attempt: nobody asks
    forget_the_settlement(shop, identity)
    connection = sqlite3.connect(shop.outbox.database.name)
    with message, message.transaction(connection):
        connection.execute("INSERT INTO effect VALUES ('twice')")
    assert shop.effects() == []
    assert states(shop) == []
    connection.close()


def test_without_with_the_exception_leaves_the_loop_and_the_message_is_done(shop):
    """Nothing is handed out again, though nobody caught it."""
    (identity,) = Peer(shop.node).push(b"one")
    connection = sqlite3.connect(shop.outbox.database.name)
    with pytest.raises(AlreadyProcessed):
        for message in shop.node.receive("jobs", wait=0):
            forget_the_settlement(shop, identity)
            with connection:
                connection.execute("INSERT INTO effect VALUES ('twice')")
                message.ack(connection=connection)
    assert shop.effects() == []
    assert states(shop) == []
    connection.close()


def test_whatever_goes_wrong_after_the_commit_does_not_undo_it(shop):
    """An exception of the loop body after its transaction: the message is done, and the exception goes on."""
    Peer(shop.node).push(b"one")
    connection = sqlite3.connect(shop.outbox.database.name)
    (message,) = shop.node.consumer("jobs").claim()
    with pytest.raises(ZeroDivisionError), message:
        with message.transaction(connection):
            connection.execute("INSERT INTO effect VALUES ('once')")
        1 / 0  # noqa: B018
    assert shop.effects() == ["once"]
    assert states(shop) == []
    connection.close()


def test_a_database_that_cannot_be_asked_holds_nobody_up(tmp_path, caplog):
    """What comes again is handed out; the log says it once."""
    shop = Shop(tmp_path, None, channels={"jobs": {"retry_backoff_min": 0}})
    shop.execute("DROP TABLE dropr_inbox")
    Peer(shop.node).push(b"one", b"two")
    attempts = []
    for message in shop.node.receive("jobs", wait=0):
        attempts.append(message.attempt)
        if message.attempt == 1:
            message.release(delay=0)
    assert sorted(attempts) == [1, 1, 2, 2]
    assert len([one for one in caplog.records if "cannot be asked what has taken effect" in one.getMessage()]) == 1
    shop.close()


def test_marks_go_when_their_message_is_gone_and_old(shop):
    """Not before: what waits in the queue may come again, however old its mark is."""
    waiting, gone = Peer(shop.node).push(b"one", b"two")
    (first,) = shop.node.consumer("jobs").claim()
    for identity in (waiting, gone, MessageId(b"x" * 16)):
        forget_the_settlement(shop, identity)
    assert first.claim.id == waiting
    (second,) = shop.node.consumer("jobs").claim()
    second.ack()
    care = Care(shop.node.runtime, shop.outbox)
    assert care.forget_effects(shop.link) == 0
    shop.execute("UPDATE dropr_inbox SET created_at = created_at - 100000")
    assert care.forget_effects(shop.link) == 2
    assert marks(shop) == 1


@pytest.mark.parametrize("form", ["ack", "transaction"])
def test_no_message_is_done_whose_effect_a_crash_of_the_server_takes_back(form, tmp_path, own_postgres):
    """With synchronous_commit=off a commit returns before it is flushed: it is flushed before the acknowledgement."""
    import psycopg

    own_postgres.configure(synchronous_commit="off", wal_writer_delay="10s", wal_writer_flush_after="1GB", fsync="on")
    own_postgres.restart()
    shop = Shop(tmp_path, own_postgres.url(own_postgres.database()))
    shop.link.harden()
    Peer(shop.node).push(b"one")
    with psycopg.connect(shop.url) as connection:
        for message in shop.node.receive("jobs", wait=0):
            if form == "ack":
                connection.execute("INSERT INTO effect VALUES ('kept')")
                message.ack(connection=connection)
                connection.commit()
            else:
                with message.transaction(connection):
                    connection.execute("INSERT INTO effect VALUES ('kept')")
        assert states(shop) == []
        own_postgres.kill9()
    shop.link.close()
    own_postgres.restart()
    shop.link = connect(shop.outbox.database, "shop")
    assert shop.effects() == ["kept"]
    shop.close()


def test_sqlite_without_full_synchronisation_is_flushed_before_a_message_is_done(shop, monkeypatch):
    """With a write-ahead log and synchronous=NORMAL the log is flushed by us; with FULL there is nothing to do."""
    flushed = []
    monkeypatch.setattr(SqliteLink, "harden", lambda _self: flushed.append("flushed"))
    connection = sqlite3.connect(shop.outbox.database.name)
    connection.execute("PRAGMA journal_mode = WAL")
    for level, expected in (("FULL", []), ("NORMAL", ["flushed"])):
        connection.execute(f"PRAGMA synchronous = {level}")
        shop.node.put(b"one", channel="jobs")
        for message in shop.node.receive("jobs", wait=0):
            with message.transaction(connection):
                connection.execute("INSERT INTO effect VALUES ('x')")
        assert flushed == expected
    connection.close()
