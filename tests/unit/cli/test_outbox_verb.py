"""`dropr outbox`: the tables in an application's database are made, looked at and mended."""

import json
import sqlite3

import pytest
from click.testing import CliRunner

from dropr_core.cli.app import application
from dropr_core.system.exit_codes import Exit


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs the verb in a directory with a node `shop` and an empty database; (exit code, output)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dropr.yaml").write_text(
        "node: shop\ninsecure: true\npeers: {berlin: {url: 'http://127.0.0.1:9'}}\n"
        "channels: {orders: {to: berlin}}\noutboxes: {app: {url: 'sqlite:///app.db'}}\n"
    )
    sqlite3.connect(tmp_path / "app.db").close()

    def run(*arguments):
        result = CliRunner().invoke(application(), ["outbox", *arguments])
        return result.exit_code, result.output

    return run


def insert(tmp_path, **columns):
    with sqlite3.connect(tmp_path / "app.db") as connection:
        places = ", ".join("?" * len(columns))
        connection.execute(f"INSERT INTO dropr_outbox ({', '.join(columns)}) VALUES ({places})", [*columns.values()])
    connection.close()


def test_install_makes_both_tables_once(call, tmp_path):
    """A second time nothing changes; whose messages they are is the node's name."""
    assert [one["made"] for one in json.loads(call("install", "--json")[1])["tables"]] == [True, True]
    assert [one["made"] for one in json.loads(call("install", "app", "--json")[1])["tables"]] == [False, False]
    insert(tmp_path, channel="orders", body=b"x")
    (outbox,) = json.loads(call("list", "--json")[1])["outboxes"]
    assert [(one["node"], one["waiting"], one["set_aside"]) for one in outbox["nodes"]] == [("shop", 1, 0)]


def test_print_shows_the_sql_that_makes_them(call, tmp_path):
    """It can be run by hand, by who may not let dropr do it; nothing is changed."""
    code, text = call("install", "--print")
    assert code == 0
    connection = sqlite3.connect(tmp_path / "app.db")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.executescript(text)
    connection.close()
    assert "is there already" in call("install")[1]
    assert "LANGUAGE plpgsql" in call("install", "postgresql://user@host/shop", "--print", "--node", "kiel")[1]
    assert "DEFAULT 'kiel'" in call("install", "postgresql://user@host/shop", "--print", "--node", "kiel")[1]


def test_what_was_set_aside_is_listed_with_its_reason_and_redriven(call, tmp_path):
    """All of it, or the rows that are named."""
    call("install")
    for channel in ("a", "b", "c"):
        insert(tmp_path, channel=channel, problem=f"no route for {channel}")
    code, text = call("list")
    assert code == 0
    assert "3 set aside" in text
    assert "no route for b" in text
    assert json.loads(call("redrive", "app", "--row", "2", "--json")[1]) == {"redriven": 1}
    assert [row["row"] for row in json.loads(call("list", "--json")[1])["outboxes"][0]["refused"]] == [1, 3]
    assert "2 rows redriven" in call("redrive")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("list", "other"), Exit.NO_INPUT, "no outbox is called other (known: app)"),
        (("list",), None, "'dropr outbox install' makes it"),
        (("install", "mysql://x/y"), Exit.USAGE, "begins with 'mysql'"),
        (("install", "sqlite:///nothing.db"), None, "there is no such file"),
        (("list", "--print"), Exit.USAGE, "goes with 'dropr outbox install'"),
    ],
)
def test_what_cannot_be_done_is_said(call, arguments, code, words):
    """In words that name what is there, and what to do."""
    found, text = call(*arguments)
    assert found == code if code is not None else found != 0
    assert words in text
