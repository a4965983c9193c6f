"""The way from one format to the next, with a step that only these tests have."""

import logging
import threading

import pytest

pytest.importorskip("psycopg")
import psycopg
from dropr_storage_postgres import Options, dropr_storage
from dropr_storage_postgres.engine import schema

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import DroprError, StoreError, StoreTooNew
from dropr_core.model.names import IdMaker
from dropr_core.system.clock import SystemClock

STEP = """
CREATE TABLE extra(place bigint PRIMARY KEY, text text NOT NULL);
INSERT INTO extra SELECT place, encode(id, 'hex') FROM delivery;
UPDATE delivery SET flags = flags;
CREATE INDEX extra_text ON extra(text);
"""
make = IdMaker()


@pytest.fixture
def opened(postgres_url, tmp_path):
    """Opens the store, on this machine or another one."""
    stores = []

    def open_store(machine="here"):
        directory = tmp_path / machine
        directory.mkdir(exist_ok=True)
        context = Context("shop", directory, SystemClock(), logging.getLogger("test"), min_free=0)
        stores.append(dropr_storage(Options(url=postgres_url), context))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def backlog(opened):
    """A store of the format of today, with something in it; what it says of its lanes."""
    store = opened()
    store.outbox.append([NewMessage(make(), "orders", 5, ("peer",), b"x" * number) for number in range(1, 40)])
    said = [(str(stats.lane), stats.depth, stats.bytes) for stats in store.outbox.lanes()]
    store.close()
    return said


@pytest.fixture
def next_format(monkeypatch):
    """One step more of the outbox."""
    monkeypatch.setitem(schema.PARTS, "outbox", (*schema.OUTBOX, STEP))
    return monkeypatch


def lanes(store):
    """What a store says of its lanes."""
    return [(str(stats.lane), stats.depth, stats.bytes) for stats in store.outbox.lanes()]


def formats(url):
    """Version of the outbox in the database, and whether the step's table is there."""
    with psycopg.connect(url) as connection:
        (version,) = connection.execute("SELECT n FROM dropr_shop.meta WHERE key = 'version outbox'").fetchone()
        (extra,) = connection.execute("SELECT to_regclass('dropr_shop.extra') IS NOT NULL").fetchone()
    return version, extra


def test_a_backlog_is_migrated_once_though_several_machines_open_it(backlog, opened, next_format):
    """Everything is there on each of them, and the step ran one time."""
    found, errors = [], []

    def open_it(machine):
        try:
            found.append(lanes(opened(machine)))
        except DroprError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it, args=(f"machine-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert found == [backlog] * 4


def test_a_migration_whose_session_dies_at_any_statement_leaves_nothing(backlog, opened, postgres_url, next_format):
    """The old format stands, whole; the old version goes on, and the new one begins anew."""
    real, before = schema._script, formats(postgres_url)
    for number in range(1, 5):
        count = 0

        def dying(connection, script, number=number):
            nonlocal count
            for statement in filter(str.strip, script.split(";")):
                real(connection, statement)
                count += 1
                if count == number:
                    connection.pgconn.finish()  # as if the machine were gone
                    raise psycopg.OperationalError("gone")

        with next_format.context() as patch:
            patch.setattr(schema, "_script", dying)
            with pytest.raises(DroprError):
                opened("dies")
        assert formats(postgres_url) == before == (1, False)
        with next_format.context() as patch:
            patch.setitem(schema.PARTS, "outbox", schema.OUTBOX)
            old = opened("old")
            assert lanes(old) == backlog
            old.close()  # nobody is migrated under
    assert lanes(opened("new")) == backlog
    assert formats(postgres_url) == (2, True)


def everything(url, schema):
    """Rows of all tables, values of all sequences, functions, types and indexes of a schema, but for large bodies."""
    with psycopg.connect(url) as connection:
        connection.execute(f"SET search_path = {schema}")
        tables = [name for (name,) in connection.execute(TABLES, (schema,)).fetchall() if not name.startswith("body")]
        rows = {name: sorted(map(str, connection.execute(f"SELECT * FROM {name}").fetchall())) for name in tables}
        found = [connection.execute(query, {"schema": schema}).fetchall() for query in SHAPES]
        facts = [sorted(str(row) for row in one if not str(row[0]).startswith("body")) for one in found]
        return rows, facts


TABLES = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r' AND relname <> 'era'"
SHAPES = (
    "SELECT sequencename, last_value, max_value, cycle FROM pg_sequences WHERE schemaname = %(schema)s",
    (
        "SELECT proname, prosrc, pg_get_function_identity_arguments(oid) FROM pg_proc "
        "WHERE pronamespace = %(schema)s::regnamespace AND proname <> 'put_back'"
    ),
    (
        "SELECT relname, relkind, reloptions, relpersistence FROM pg_class "
        "WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'c')"
    ),
    (
        "SELECT tablename, replace(regexp_replace(indexdef, 'INDEX \\w+ ON', ''), %(schema)s || '.', '') "
        "FROM pg_indexes WHERE schemaname = %(schema)s"
    ),
    (
        "SELECT table_name, column_name, ordinal_position, data_type, column_default, is_identity, is_nullable "
        "FROM information_schema.columns WHERE table_schema = %(schema)s"
    ),
    (
        "SELECT attrelid::regclass::text, attname, attstorage FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
        "WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'r' AND attnum > 0"
    ),
)


def test_the_store_as_it_was_can_be_put_back(backlog, opened, next_format, postgres_url, caplog):
    """The copy is the old store to the last row, index and function; put back, the old version goes on with it."""
    before = everything(postgres_url, "dropr_shop")
    opened("new").close()
    assert "the schema dropr_shop_before has it as it was" in caplog.text
    assert everything(postgres_url, "dropr_shop_before") == before
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("SELECT dropr_shop_before.put_back()")
    next_format.undo()
    old = opened("old")
    assert lanes(old) == backlog
    old.outbox.append([NewMessage(make(), "orders", 5, ("peer",), b"y")])
    assert lanes(old)[0][1] == backlog[0][1] + 1
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM dropr_shop_migrated.extra").fetchone() == (39,)


def test_large_bodies_are_not_copied_and_put_back_as_they_are(backlog, opened, next_format, postgres_url):
    """Where their own tables do not change."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE dropr_shop.body_page_0a (LIKE dropr_shop.body_page INCLUDING ALL)")
        connection.execute("INSERT INTO dropr_shop.body_page_0a VALUES (10, 1, 'x')")
    opened().close()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        copied = connection.execute(TABLES, ("dropr_shop_before",)).fetchall()
        assert not [name for (name,) in copied if name.startswith("body")]
        connection.execute("SELECT dropr_shop_before.put_back()")
        assert connection.execute("SELECT data FROM dropr_shop.body_page_0a").fetchall() == [(b"x",)]
    next_format.undo()
    assert lanes(opened("old")) == backlog


def test_a_second_migration_copies_anew_and_somebody_elses_schema_stays(backlog, opened, next_format, postgres_url):
    """One copy is kept, of the last migration; where its name is taken nothing is migrated."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA dropr_shop_before CREATE TABLE precious(n int)")
    with pytest.raises(StoreError, match="has tables of somebody else's: rename it"):
        opened()
    with psycopg.connect(postgres_url) as connection:
        connection.execute("DROP TABLE dropr_shop_before.precious")
    opened("first").close()
    next_format.setitem(schema.PARTS, "outbox", (*schema.OUTBOX, STEP, "CREATE TABLE third(n int)"))
    assert lanes(opened("second")) == backlog
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM dropr_shop_before.extra").fetchone() == (39,)


def test_a_migrated_store_tells_an_older_dropr_who_made_it(backlog, opened, next_format):
    """Its version, what this one knows, and what to do."""
    opened().close()
    next_format.undo()
    with pytest.raises(StoreTooNew, match=r"has format 2, of dropr .+; this is dropr .+, which knows formats up to 1"):
        opened()
