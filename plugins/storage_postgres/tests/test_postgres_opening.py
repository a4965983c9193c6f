"""What a store in PostgreSQL is opened with, and when it is not."""

import os
import threading

import pytest

pytest.importorskip("psycopg")
import psycopg
from dropr_storage_postgres import Options, dropr_storage
from dropr_storage_postgres.engine import schema
from dropr_storage_postgres.engine.address import default_schema, make_place
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.engine.opening import open_store
from postgres_stores import COUNT, context_of, cut_all, put

from dropr_core.errors import ConfigError, StoreBusy, StoreError, StoreGone, StoreReadOnly, StoreTooNew


def opens(tmp_path, url, node="shop", **more):
    dropr_storage(Options(url=url, wait=0.1, **more), context_of(tmp_path, node)).close()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_forgets_is_refused(setting, tmp_path, own_postgres):
    """A store is not opened where a power cut destroys what was promised."""
    own_postgres.configure(**{setting: "off"})
    own_postgres.reload()
    with pytest.raises(StoreError, match=f"{setting}.*off"):
        opens(tmp_path, own_postgres.url())


def test_what_is_wrong_with_an_address_is_said(tmp_path, postgres_server, postgres_url):
    """No server, no database, no rights, no sense: each has words of its own."""
    with pytest.raises(StoreBusy, match="cannot be reached"):
        opens(tmp_path, "postgresql://127.0.0.1:9/x")
    with pytest.raises(StoreError, match=r'"nowhere" does not exist.*createdb'):
        opens(tmp_path, postgres_server.url("nowhere"))
    with pytest.raises(ConfigError, match=r"storage\.url"):
        opens(tmp_path, "postgresql://[")
    with pytest.raises(ConfigError, match=r"storage\.schema"):
        opens(tmp_path, postgres_url, schema="A b")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        role = f"poor_{os.urandom(4).hex()}"
        connection.execute(f"CREATE ROLE {role} LOGIN")
    poor = postgres_url.replace("dropr@", f"{role}@")
    with pytest.raises(StoreReadOnly, match="GRANT CREATE ON DATABASE"):
        opens(tmp_path, poor)


def test_another_nodes_store_is_refused(tmp_path, postgres_url):
    """Two nodes whose names make the same schema, or whose YAML names one, are kept apart."""
    assert default_schema("A.b") == default_schema("a-b")
    opens(tmp_path, postgres_url, "a-b")
    with pytest.raises(ConfigError, match="is the store of node 'a-b'"):
        opens(tmp_path, postgres_url, "A.b")


def test_a_store_that_vanished_is_not_begun_anew(tmp_path, postgres_url):
    """An empty database in place of the one that was used from here is said."""
    opens(tmp_path, postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning; DROP SCHEMA dropr_shop CASCADE")
    with pytest.raises(StoreGone, match=r"store\.json"):
        opens(tmp_path, postgres_url)
    (tmp_path / "shop" / "store.json").unlink()
    opens(tmp_path, postgres_url)


def test_a_newer_store_and_a_strangers_schema_are_left_alone(tmp_path, postgres_url):
    """What this dropr does not know is not touched."""
    opens(tmp_path, postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("UPDATE dropr_shop.meta SET n = 99 WHERE key = 'version outbox'")
        connection.execute("CREATE SCHEMA strange; CREATE TABLE strange.t(n int)")
    with pytest.raises(StoreTooNew, match="format 99"):
        opens(tmp_path, postgres_url)
    with pytest.raises(StoreGone, match="none of a store"):
        opens(tmp_path, postgres_url, "other", schema="strange")


def test_a_store_that_is_in_use_is_not_migrated(tmp_path, engine_at, postgres_url, monkeypatch):
    """A newer dropr changes no tables that others work on: it says who they are, and does it when they are gone."""
    engine = engine_at(postgres_url)
    newer = {**schema.PARTS, "outbox": (*schema.OUTBOX, "CREATE TABLE fresh(n int)")}
    monkeypatch.setattr(schema, "PARTS", newer)
    with pytest.raises(StoreBusy, match=r"outbox 1 to 2.*dropr shop outbox"):
        opens(tmp_path, postgres_url)
    engine.write(put(1))
    engine.close()
    opens(tmp_path, postgres_url)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM dropr_shop.fresh").fetchone() == (0,)
    monkeypatch.undo()
    with pytest.raises(StoreTooNew, match=r"its outbox has format 2, of dropr \d"):
        opens(tmp_path, postgres_url)


def test_another_store_in_its_place_is_not_written_to(engine_at, postgres_server, postgres_url, tmp_path):
    """Whoever comes back to a server finds the store that was opened, or an error: never another one."""
    engine = engine_at(postgres_url)
    engine.write(put(1))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER SCHEMA dropr_shop RENAME TO elsewhere")
    cut_all(postgres_server, postgres_url)
    (tmp_path / "shop" / "store.json").unlink()
    opens(tmp_path, postgres_url)
    with pytest.raises(StoreGone, match="another store"):
        engine.write(put(2))


def test_many_open_an_empty_database_at_once(tmp_path, postgres_url):
    """Whoever comes first makes the tables, the others find them."""
    errors: list[Exception] = []

    def open_one(number):
        try:
            directory = tmp_path / str(number)
            directory.mkdir()
            opens(directory, postgres_url)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_looking_changes_nothing(tmp_path, engine_at, postgres_url):
    """A store that is opened to look is not made, and refuses writes."""
    with pytest.raises(StoreGone, match="no store yet"):
        dropr_storage(Options(url=postgres_url), context_of(tmp_path, read_only=True))
    engine_at(postgres_url)
    context = context_of(tmp_path, read_only=True)
    place = make_place(postgres_url, None, None, "shop", 0.02, 1.0)
    looking = Engine(place, "outbox", open_store(place, context).times, context)
    assert looking.query(COUNT) == [(0,)]
    with pytest.raises(StoreReadOnly):
        looking.write(put(1))
    looking.close()


def test_errors_name_no_password(tmp_path):
    """What a store is called in errors and logs holds nothing secret."""
    place = make_place("postgresql://me:hush@127.0.0.1:9/x", None, None, "shop", 0.02, 0.05)
    assert place.name == "PostgreSQL 127.0.0.1:9 database x, schema dropr_shop"
    assert "hush" not in repr(place) + repr(Options(url="postgresql://me:hush@h/x", password="hush"))
    with pytest.raises(StoreBusy) as caught:
        open_store(place, context_of(tmp_path))
    assert "hush" not in str(caught.value)
