"""`ack(connection=)` and `message.transaction(...)`: effect and acknowledgement are committed together."""

import asyncio
import sqlite3

import pytest
from support.one_node import Peer
from support.transactions import BLOCKING, Shop, application, of_way

from dropr_core.contracts.storage import Selection
from dropr_core.errors import AlreadyProcessed, LeaseLost, UsageError
from dropr_core.model.message import State
from dropr_core.model.names import MessageId
from dropr_core.outboxes.care import Care
from dropr_core.transactions.databases import SqliteLink, connect
from dropr_core.transactions.inbox_table import Mark


@pytest.fixture
def shop(tmp_path):
    made = Shop(tmp_path, None, channels={"jobs": {"retry_backoff_min": 0, "attempts": 50}})
    yield made
    made.close()


def states(shop):
    """State of each message of the queue, as far as it is kept."""
    return [one.state for one in shop.node.inbox.all(Selection())]


def marks(shop):
    return len(shop.execute("SELECT id FROM dropr_inbox"))


def forget_the_settlement(shop, identity, channel="jobs", sender="berlin"):
    """What a process leaves that is killed after its commit: the mark, and a message that comes again."""
    mark = Mark("shop", identity, channel, sender)
    with shop.link.transaction():
        assert not shop.link.carry_out(shop.outbox.inbox.note(mark, b"42", "application/json")).before


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


@pytest.mark.parametrize("fails", [False, True], ids=["done", "raises afterwards"])
def test_a_handler_has_transactions_too(shop, fails):
    """Its result goes home; what it raises after its commit is only said; what took effect before is not repeated."""
    (identity,) = Peer(shop.node).push(b"one", receipt=True)

    @shop.node.on("jobs")
    def handle(work):
        connection = sqlite3.connect(shop.outbox.database.name)
        with work.transaction(connection):
            connection.execute("INSERT INTO effect VALUES ('once')")
        connection.close()
        if fails:
            raise ValueError("afterwards")
        return "result"

    assert shop.node.work(wait=0) == 1
    assert shop.effects() == ["once"]
    assert states(shop) == []
    (outcome,) = shop.node.inbox.outcomes("berlin", None, 0, 10)[1]
    assert outcome.result == (None if fails else b"result")
    assert outcome.id == identity


def test_a_handler_that_would_repeat_its_effect_is_ended(shop):
    """Its transaction is rolled back, the message is acknowledged."""
    (identity,) = Peer(shop.node).push(b"one")
    forget_the_settlement(shop, identity)

    @shop.node.on("jobs")
    def handle(work):
        connection = sqlite3.connect(shop.outbox.database.name)
        try:
            with work.transaction(connection):
                connection.execute("INSERT INTO effect VALUES ('twice')")
        finally:
            connection.close()

    shop.node.work(wait=0)
    assert shop.effects() == []
    assert states(shop) == []


def test_a_handler_that_rolls_back_makes_an_attempt(shop):
    """It returns as if all was well; the message comes again."""
    Peer(shop.node).push(b"one")
    attempts = []

    @shop.node.on("jobs")
    def handle(work):
        attempts.append(work.attempt)
        connection = sqlite3.connect(shop.outbox.database.name)
        work.ack(connection=connection)
        if work.attempt == 1:
            connection.rollback()
        else:
            connection.commit()
        connection.close()

    shop.node.work(wait=0)
    shop.node.work(wait=0)
    assert attempts == [1, 2]
    assert states(shop) == []


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


def test_asyncio(tmp_path, postgres_url):
    """`await message.ack(connection=...)` with a connection for asyncio."""
    import psycopg
    from support.one_node import configure

    import dropr_core as dropr

    shop = Shop(tmp_path, postgres_url)

    async def work():
        config = configure(tmp_path / "other", channels={"jobs": {"retry_backoff_min": 0}},
                           outboxes={"app": {"url": postgres_url}})  # fmt: skip
        async with dropr.aopen(config) as node, await psycopg.AsyncConnection.connect(postgres_url) as connection:
            await node.put(b"one", channel="jobs")
            async for message in node.receive("jobs", wait=0):
                await connection.execute("INSERT INTO effect VALUES ('x')")
                await message.ack(connection=connection)
                if message.attempt == 1:
                    await connection.rollback()
                else:
                    await connection.commit()
            return [one.state for one in node.node.inbox.all(Selection())]

    (tmp_path / "other").mkdir()
    assert asyncio.run(work()) == []
    assert shop.effects() == ["x"]
    shop.close()


@pytest.mark.parametrize("kind", ["engine", "session", "psycopg"])
def test_asyncio_has_the_form_that_does_all_of_it(kind, tmp_path, postgres_url):
    """`async with message.transaction(...)` with whatever the library has."""
    import psycopg
    import sqlalchemy
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from support.one_node import configure

    import dropr_core as dropr

    shop = Shop(tmp_path, postgres_url)

    async def work():
        engine = create_async_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
        given = engine if kind == "engine" else AsyncSession(engine)
        if kind == "psycopg":
            given = await psycopg.AsyncConnection.connect(postgres_url, autocommit=True)
        config = configure(tmp_path / "other", outboxes={"app": {"url": postgres_url}})
        async with dropr.aopen(config) as node:
            await node.put(b"one", channel="jobs")
            async for message in node.receive("jobs", wait=0):
                async with message, message.transaction(given) as mine:
                    sql = "INSERT INTO effect VALUES ('x')"
                    await mine.execute(sql if kind == "psycopg" else sqlalchemy.text(sql))
            left = [one.state for one in node.node.inbox.all(Selection())]
        if kind != "engine":
            await given.close()
        await engine.dispose()
        return left

    (tmp_path / "other").mkdir()
    assert asyncio.run(work()) == []
    assert shop.effects() == ["x"]
    shop.close()


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
