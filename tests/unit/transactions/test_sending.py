"""`send(connection=)`: a message is part of the application's own transaction, whatever library it uses."""

import sqlite3
import subprocess
import sys

import pytest
from support.one_node import open_node
from support.transactions import BLOCKING, Shop, application, django_connection, of_way

from dropr_core.errors import BadName, StoreError, TooBig, UnknownPeer, UsageError
from dropr_core.model.message import State


@pytest.fixture(params=BLOCKING)
def way(request):
    return request.param


@pytest.fixture
def shop(way, tmp_path, request):
    made = of_way(way, tmp_path, request)
    yield made
    made.close()


@pytest.fixture
def on_sqlite(tmp_path):
    made = Shop(tmp_path, None)
    yield made
    made.close()


def test_a_message_is_committed_with_the_transaction_and_gone_with_it(shop, way):
    """What is rolled back was never sent; what is committed is sent once, together with the application's own rows."""
    with application(way, shop) as (given, hands):
        hands.do("gone")
        shop.node.send({"gone": 1}, channel="orders", connection=given)
        hands.rollback()
        assert shop.relayed() == []
        hands.do("stays")
        sent = shop.node.send({"stays": 1}, channel="orders", connection=given)
        assert shop.relayed() == []  # not committed yet
        hands.commit()
        assert shop.relayed() == [b'{"stays":1}']
        assert shop.relayed() == [b'{"stays":1}']
        assert shop.effects() == ["stays"]
        assert shop.rows() == []
        assert sent.durability == "transaction"
        assert sent.state is State.QUEUED


def test_a_savepoint_that_is_rolled_back_takes_its_messages_with_it(shop, way):
    """What was sent before and after it is sent."""
    with application(way, shop) as (given, hands):
        hands.do("one")
        shop.node.send(1, channel="orders", connection=given)
        hands.execute("SAVEPOINT inner_one")
        shop.node.send(2, channel="orders", connection=given)
        hands.execute("ROLLBACK TO SAVEPOINT inner_one")
        shop.node.send(3, channel="orders", connection=given)
        hands.commit()
        assert shop.relayed() == [b"1", b"3"]


def test_a_batch_is_part_of_it_and_keeps_its_order(shop, way):
    """More messages than one statement takes come out in the order in which they were sent, with their handles."""
    with application(way, shop) as (given, hands):
        hands.do("all")
        with shop.node.batch(connection=given) as batch:
            for number in range(120):
                batch.send(number, channel="orders")
        hands.commit()
        assert [int(body) for body in shop.relayed()] == list(range(120))
        assert len({one.id for one in batch.sent}) == 120


def test_what_is_wrong_is_refused_at_send_and_leaves_nothing(on_sqlite):
    """Peer, channel, body and options are checked as ever, before anything is written."""
    node = on_sqlite.node
    connection = sqlite3.connect(on_sqlite.outbox.database.name)
    for options, kind in (({"to": "nobody"}, UnknownPeer), ({"to": "berlin", "channel": "a b"}, BadName),
                          ({"to": "berlin", "headers": {"h": "x" * 70_000}}, TooBig),
                          ({"to": "berlin", "delay": "soon"}, UsageError)):  # fmt: skip
        with pytest.raises(kind):
            node.send(b"x", connection=connection, **options)
    connection.commit()
    connection.close()
    assert on_sqlite.rows() == []


def test_a_connection_without_a_transaction_is_refused_with_what_to_do(tmp_path, postgres_url):
    """In autocommit mode a message would be sent though the rest is rolled back: the error names the way out."""
    import psycopg
    import sqlalchemy

    shop = Shop(tmp_path, postgres_url)
    engine = sqlalchemy.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with (
        psycopg.connect(postgres_url, autocommit=True) as connection,
        engine.connect() as alchemy,
        django_connection(shop) as django,
    ):
        automatic = alchemy.execution_options(isolation_level="AUTOCOMMIT")
        for given, words in ((connection, "connection.transaction"), (automatic, "AUTOCOMMIT"), (django, "atomic")):
            with pytest.raises(UsageError, match=words):
                shop.node.send(1, channel="orders", connection=given)
        with connection.transaction():
            shop.node.send(2, channel="orders", connection=connection)
    engine.dispose()
    assert shop.relayed() == [b"2"]
    shop.close()


def test_an_sqlite_connection_in_autocommit_needs_begin(on_sqlite):
    """With isolation_level=None a transaction must be open."""
    connection = sqlite3.connect(on_sqlite.outbox.database.name, isolation_level=None)
    with pytest.raises(UsageError, match="BEGIN"):
        on_sqlite.node.send(1, channel="orders", connection=connection)
    connection.execute("BEGIN")
    on_sqlite.node.send(2, channel="orders", connection=connection)
    connection.execute("COMMIT")
    connection.close()
    assert on_sqlite.relayed() == [b"2"]


def test_a_failed_transaction_is_refused(tmp_path, postgres_url):
    """PostgreSQL takes nothing after an error; the words say so instead of the driver's."""
    import psycopg

    shop = Shop(tmp_path, postgres_url)
    with psycopg.connect(postgres_url) as connection:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT nothing")
        with pytest.raises(UsageError, match="roll it back first"):
            shop.node.send(1, channel="orders", connection=connection)
        connection.rollback()
    shop.close()


def test_the_outbox_of_another_database_is_not_taken(on_sqlite, tmp_path):
    """Nobody would look into that table: the error names what is configured."""
    for connection in (sqlite3.connect(tmp_path / "other.db"), sqlite3.connect(":memory:")):
        with pytest.raises(UsageError, match=r"no outbox of the configuration.*app \(sqlite"):
            on_sqlite.node.send(1, channel="orders", connection=connection)
        connection.close()
    with pytest.raises(UsageError, match="is none of these"):
        on_sqlite.node.send(1, channel="orders", connection=object())


def test_a_missing_table_is_said_with_the_command_that_makes_it(tmp_path):
    """Instead of what the driver says."""
    sqlite3.connect(tmp_path / "app.db").close()
    with open_node(tmp_path, outboxes={"app": {"url": "sqlite:///app.db"}}) as node:
        connection = sqlite3.connect(tmp_path / "app.db")
        with pytest.raises(StoreError, match="dropr outbox install"):
            node.send(b"x", to="berlin", connection=connection)
        connection.close()


def test_of_two_outboxes_the_one_of_the_connection_is_taken(tmp_path):
    """Each database has its own table."""
    for name in ("one.db", "two.db"):
        sqlite3.connect(tmp_path / name).close()
    with open_node(tmp_path, outboxes={n: {"url": f"sqlite:///{n}.db"} for n in ("one", "two")}) as node:
        connection = sqlite3.connect(tmp_path / "two.db")
        with pytest.raises(StoreError, match="outbox two"):
            node.send(b"x", to="berlin", connection=connection)
        connection.close()


def test_the_same_id_in_two_transactions_is_one_message(on_sqlite):
    """As with `send` without a connection: an id, or a dedup_key, that comes again with the same content."""
    with application("sqlite3", on_sqlite) as (given, hands):
        for _ in range(2):
            on_sqlite.node.send({"n": 1}, channel="orders", dedup_key="order 1", connection=given)
            hands.commit()
        assert on_sqlite.relayed() == [b'{"n":1}']
        on_sqlite.node.send({"n": 2}, channel="orders", dedup_key="order 1", connection=given)
        hands.commit()
        assert on_sqlite.relayed() == [b'{"n":1}']
        ((_, problem),) = on_sqlite.rows()
        assert "was sent before with other content" in problem


def test_nothing_of_a_database_is_imported_to_recognise_one():
    """Who has no database pays for none: neither its library nor sqlite3."""
    code = (
        "import sys; from dropr_core.transactions.recognise import library_of; assert library_of(object()) == '';"
        "assert not {'sqlite3', 'psycopg', 'sqlalchemy', 'django'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_class_derived_from_a_librarys_is_recognised(on_sqlite):
    """Applications wrap their connections."""

    class Mine(sqlite3.Connection):
        pass

    connection = sqlite3.connect(on_sqlite.outbox.database.name, factory=Mine)
    on_sqlite.node.send(1, channel="orders", connection=connection)
    connection.commit()
    connection.close()
    assert on_sqlite.relayed() == [b"1"]
