"""The threads of the daemon: who wakes them, what becomes of trouble, when large bodies go."""

import logging
import sqlite3
import time

import pytest
from support.one_node import configure
from support.transactions import Shop, application

from dropr_core.api.node import Node
from dropr_core.errors import StoreError, TooBig
from dropr_core.model.backoff import Backoff
from dropr_core.outboxes import relays as relays_module
from dropr_core.outboxes.care import Care
from dropr_core.outboxes.relay import Relay
from dropr_core.outboxes.relays import Relays
from dropr_core.transactions.statements import Statement

LARGE = b"z" * 200_000


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("outbox app")]


@pytest.fixture(params=["sqlite3", "psycopg"])
def way(request):
    return request.param


@pytest.fixture
def shop(way, request, tmp_path):
    made = Shop(tmp_path, request.getfixturevalue("postgres_url") if way == "psycopg" else None)
    yield made
    made.close()


def test_a_commit_wakes_the_daemon(shop, way, monkeypatch):
    """Without looking again by itself: PostgreSQL notifies, a program on SQLite says that it writes."""
    monkeypatch.setattr(relays_module, "LOOK_SELDOM", 3600.0)
    relays = Relays(shop.node.runtime, logging.getLogger("dropr.daemon"))
    with application(way, shop) as (given, hands):
        for number in range(3):
            shop.node.send(number, channel="orders", connection=given)
            hands.commit()
            until(lambda number=number: len(shop.queued()) == number + 1)
    relays.close()
    relays.close()
    assert shop.rows() == []


def test_the_trouble_of_one_outbox_is_nobody_elses(tmp_path, caplog):
    """One database is missing: one line says so, the other is served, and its messages come when it is there."""
    for name in ("good.db",):
        sqlite3.connect(tmp_path / name).close()
    shop = Shop(tmp_path / "unused", None) if (tmp_path / "unused").mkdir() is None else None
    config = configure(tmp_path, channels={"orders": {"to": "berlin", "serializer": "json"}},
                       outboxes={"bad": {"url": "sqlite:///bad.db"}, "app": {"url": shop.url}})  # fmt: skip
    with Node.open(config) as node, caplog.at_level(logging.INFO):
        relays = Relays(node.runtime, logging.getLogger("dropr.daemon"))
        connection = sqlite3.connect(shop.outbox.database.name)
        node.send(1, channel="orders", connection=connection)
        connection.commit()
        connection.close()
        until(node.outbox.lanes)
        until(lambda: relays.report["bad"])
        assert relays.report["app"] == ""
        relays.close()
    said = [record.getMessage() for record in caplog.records if "outbox bad" in record.getMessage()]
    assert len(said) == 1
    assert "there is no such file" in said[0]
    shop.close()


def test_a_server_that_goes_away_is_found_again(tmp_path, own_postgres, caplog):
    """What was committed before and after is sent once; the log has a line for each change."""
    name = own_postgres.database()
    shop = Shop(tmp_path, own_postgres.url(name))
    with caplog.at_level(logging.INFO):
        relays = Relays(shop.node.runtime, logging.getLogger("dropr.daemon"))
        with application("psycopg", shop) as (given, hands):
            shop.node.send(1, channel="orders", connection=given)
            hands.commit()
        until(lambda: shop.queued() == [b"1"])
        own_postgres.kill9()
        until(lambda: relays.report["app"])
        own_postgres.restart()
        with application("psycopg", shop) as (given, hands):
            shop.node.send(2, channel="orders", connection=given)
            hands.commit()
        until(lambda: shop.queued() == [b"1", b"2"])
        until(lambda: not relays.report["app"])
        relays.close()
    trouble, again = said(caplog)
    assert trouble.startswith("outbox app: its messages wait")
    assert again == "outbox app works again"
    shop.close()


@pytest.mark.parametrize(("cls", "name"), [(Care, "keep_promises"), (Care, "forget_effects"), (Relay, "step")])
def test_a_connection_that_is_lost_is_one_line_whoever_meets_it(tmp_path, postgres_url, monkeypatch, caplog, cls, name):
    """A chore or the look for messages: the log says once that messages wait, and once that they go again."""
    shop = Shop(tmp_path, postgres_url)
    monkeypatch.setattr(relays_module, "RESTS", Backoff(0.01, 0.01))
    real = getattr(cls, name)

    def lose(self, link):
        monkeypatch.setattr(cls, name, real)
        link.run(Statement("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(cls, name, lose)
    with caplog.at_level(logging.INFO):
        relays = Relays(shop.node.runtime, logging.getLogger("dropr.daemon"))
        until(lambda: said(caplog)[1:])
        with application("psycopg", shop) as (given, hands):
            shop.node.send(1, channel="orders", connection=given)
            hands.commit()
        until(lambda: shop.queued() == [b"1"])
        relays.close()
    trouble, again = said(caplog)
    assert trouble.startswith("outbox app: its messages wait")
    assert again == "outbox app works again"
    shop.close()


@pytest.mark.parametrize("way", ["sqlite3"], indirect=True)
@pytest.mark.parametrize("name", ["keep_promises", "forget_effects"])
def test_a_chore_that_fails_while_messages_go_is_one_line(shop, way, monkeypatch, caplog, name):
    """However often it is tried: one line when it begins to fail, one when it works again."""
    monkeypatch.setattr(relays_module, "CARE_EVERY", 0.0)
    monkeypatch.setattr(relays_module, "FORGET_EVERY", 0.0)
    monkeypatch.setattr(relays_module, "LOOK_AGAIN", 0.01)
    real, failed = getattr(Care, name), []

    def fail(self, link):
        if len(failed) < 5:
            failed.append(name)
            raise StoreError("permission denied")
        return real(self, link)

    monkeypatch.setattr(Care, name, fail)
    with caplog.at_level(logging.INFO):
        relays = Relays(shop.node.runtime, logging.getLogger("dropr.daemon"))
        until(lambda: said(caplog)[1:])
        assert relays.report == {"app": ""}
        relays.close()
    assert len(failed) == 5
    assert said(caplog) == ["outbox app: what is needed no more is forgotten later: permission denied",
                            "outbox app: what is needed no more is forgotten again"]  # fmt: skip


def test_a_large_body_stays_as_long_as_a_transaction_may_bring_its_message(shop, way):
    """No sweep takes it while the transaction is open, nor before the daemon has come; a roll-back lets it go."""
    runtime, care = shop.node.runtime, Care(shop.node.runtime, shop.outbox)

    def bodies():
        return len(list((runtime.config.data / "bodies" / "sent").iterdir()))

    with application(way, shop) as (given, hands):
        shop.node.send(LARGE, to="berlin", connection=given)
        if way == "psycopg":  # in SQLite it would wait for the writer
            assert care.keep_promises(shop.link) == 0
        assert runtime.sweep_bodies() == 0
        hands.commit()
        assert care.keep_promises(shop.link) == 0
        assert runtime.sweep_bodies() == 0
        shop.relayed()
        assert runtime.sweep_bodies() == 0
        assert care.keep_promises(shop.link) == 1  # from now on the outbox of the store says whether it is needed
        assert runtime.sweep_bodies() == 0
        assert bodies() == 1
        shop.node.send(LARGE, to="berlin", connection=given)
        hands.rollback()
        assert bodies() == 2
        assert care.keep_promises(shop.link) == 1
        assert runtime.sweep_bodies() == 1
        assert bodies() == 1


def test_a_body_whose_program_died_before_the_insert_goes(shop):
    """Its transaction cannot have been committed."""
    runtime = shop.node.runtime
    composed = shop.node._sender.compose(LARGE, {"to": "berlin"})
    beginning = runtime.outboxes.promises.begin(composed.outgoing.id, "app")
    care = Care(runtime, shop.outbox)
    assert care.keep_promises(shop.link) == 0  # its process lives
    import os

    os.close(beginning._fd)
    composed.written.release()
    assert runtime.sweep_bodies() == 0
    assert care.keep_promises(shop.link) == 1
    assert runtime.sweep_bodies() == 1


def test_a_large_body_is_refused_where_another_machine_may_sweep_it(shop, way):
    """The store's bodies are not files of this machine: nobody there knows of the transaction."""
    shop.node.runtime.outboxes._large = False
    with application(way, shop) as (given, hands):
        with pytest.raises(TooBig, match="inline_body"):
            shop.node.send(LARGE, to="berlin", connection=given)
        shop.node.send(b"small", to="berlin", connection=given)
        hands.commit()
    assert shop.relayed() == [b"small"]
    assert shop.node.runtime.sweep_bodies() == 1


def test_a_number_that_a_crash_took_back_is_no_error(tmp_path, postgres_url):
    """The transaction is taken for one that may still come; numbers pass, and nothing else stops meanwhile."""
    shop = Shop(tmp_path, postgres_url)
    composed = shop.node._sender.compose(LARGE, {"to": "berlin"})
    beginning = shop.node.runtime.outboxes.promises.begin(composed.outgoing.id, "app")
    beginning.made("4000000000")
    beginning.close(made=True)
    composed.written.release()
    care = Care(shop.node.runtime, shop.outbox)
    assert care.keep_promises(shop.link) == 0
    assert shop.node.runtime.sweep_bodies() == 0
    shop.close()
