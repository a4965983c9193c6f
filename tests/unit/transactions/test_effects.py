"""`ack(connection=)` and `message.transaction(...)` in a loop: effect and acknowledgement are committed together."""

import sqlite3

import pytest
from support.one_node import Peer
from support.transactions import BLOCKING, Shop, application, of_way
from unit.transactions.effects_rig import marks, states

from dropr_core.errors import LeaseLost, UsageError
from dropr_core.model.message import State


@pytest.mark.parametrize("way", BLOCKING)
def test_effect_and_acknowledgement_are_committed_together(way, tmp_path, request):
    """A roll-back gives the message back, whatever the library; a commit settles it."""
    shop = of_way(way, tmp_path, request, channels={"jobs": {"retry_backoff_min": 0}})
    Peer(shop.node).push(b"one")
    with application(way, shop) as (given, hands):
        for message in shop.node.receive("jobs", wait=0):
            hands.do(f"try {message.attempt}")
            message.ack(connection=given)
            if message.attempt == 1:
                hands.rollback()
            else:
                hands.commit()
    assert shop.effects() == ["try 2"]
    assert states(shop) == []
    assert marks(shop) == 1
    shop.close()


def test_a_transaction_that_is_still_open_does_not_count(shop):
    """The loop body has to commit before it ends: else the message comes again."""
    Peer(shop.node).push(b"one")
    connection = sqlite3.connect(shop.outbox.database.name)
    (message,) = shop.node.consumer("jobs").claim()
    with message:
        message.ack(connection=connection)
    assert states(shop) == [State.READY] or states(shop) == [State.DELAYED]
    connection.rollback()
    connection.close()


def test_the_form_that_does_all_of_it(shop):
    """`with message.transaction(...)` commits at its end, and rolls back when the body raises."""
    Peer(shop.node).push(b"one")
    connection = sqlite3.connect(shop.outbox.database.name)
    consumer = shop.node.consumer("jobs", on_error="continue")
    tries = []
    while not tries or tries[-1] < 2:
        for message in consumer.claim():
            tries.append(message.attempt)
            with message, message.transaction(connection) as mine:
                assert mine is connection
                mine.execute("INSERT INTO effect VALUES (?)", (f"try {message.attempt}",))
                if message.attempt == 1:
                    raise ZeroDivisionError
    consumer.close()
    connection.close()
    assert tries == [1, 2]
    assert shop.effects() == ["try 2"]
    assert states(shop) == []


@pytest.mark.parametrize("kind", ["engine", "sessionmaker", "session", "connection", "psycopg"])
def test_a_transaction_begins_with_whatever_the_library_has(kind, tmp_path, postgres_url):
    """An engine, a factory, a session, a connection."""
    import psycopg
    import sqlalchemy
    from sqlalchemy.orm import Session, sessionmaker

    shop = Shop(tmp_path, postgres_url)
    engine = sqlalchemy.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    made = {
        "engine": lambda: engine, "sessionmaker": lambda: sessionmaker(engine), "session": lambda: Session(engine),
        "connection": engine.connect, "psycopg": lambda: psycopg.connect(postgres_url, autocommit=True),
    }[kind]()  # fmt: skip
    Peer(shop.node).push(b"one", b"two")
    for message in shop.node.receive("jobs", wait=0):
        with message.transaction(made) as mine:
            if kind == "psycopg":
                mine.execute("INSERT INTO effect VALUES ('x')")
            else:
                mine.execute(sqlalchemy.text("INSERT INTO effect VALUES ('x')"))
    assert shop.effects() == ["x", "x"]
    assert states(shop) == []
    if kind not in ("engine", "sessionmaker"):
        made.close()
    engine.dispose()
    shop.close()


def test_a_batch_may_be_one_transaction(shop):
    """Each of its messages is acknowledged within it."""
    Peer(shop.node).push(b"one", b"two", b"three")
    connection = sqlite3.connect(shop.outbox.database.name)
    for batch in shop.node.receive_batches("jobs", wait=0):
        with connection:
            for message in batch:
                connection.execute("INSERT INTO effect VALUES (?)", (message.body.decode(),))
                message.ack(connection=connection)
    assert shop.effects() == ["one", "three", "two"]
    assert states(shop) == []
    connection.close()


def test_twice_is_refused(shop):
    """A message takes effect with one transaction."""
    Peer(shop.node).push(b"one")
    connection = sqlite3.connect(shop.outbox.database.name)
    (message,) = shop.node.consumer("jobs").claim()
    message.ack(connection=connection)
    with pytest.raises(LeaseLost):
        message.ack(connection=connection)
    with pytest.raises(UsageError, match="one is open"), message.transaction(connection):
        pass
    connection.commit()
    connection.close()
