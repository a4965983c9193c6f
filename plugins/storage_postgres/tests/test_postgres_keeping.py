"""A connection that keeps its cursors gives what one without would give."""

import pytest

pytest.importorskip("psycopg")
import psycopg
from dropr_storage_postgres.engine import keeping
from dropr_storage_postgres.engine.keeping import KeepingConnection

ECHO = "SELECT %s"


@pytest.fixture
def connection(postgres_url):
    with KeepingConnection.connect(postgres_url, autocommit=True, prepare_threshold=0) as connection:
        yield connection


def test_a_statement_has_one_cursor_and_each_call_its_own_rows(connection):
    """What psycopg learnt about a statement is there at the next call, and nothing of the rows before."""
    first = connection.execute("SELECT generate_series(1, %s)", (3,))
    assert first.fetchall() == [(1,), (2,), (3,)]
    again = connection.execute("SELECT generate_series(1, %s)", (2,))
    assert again is first
    assert again.fetchall() == [(1,), (2,)]
    assert connection.execute("SELECT 1") is not first


def test_a_value_of_another_type_is_written_as_what_it_is(connection):
    """The types of the last call's values say nothing about those of this one."""
    for value in (1, None, "text", b"bytes", [1, 2], 2.5, 1):
        assert connection.execute(ECHO, (value,)).fetchone() == (value,)


def test_a_statement_that_failed_works_again(connection):
    """An error leaves nothing behind in the cursor that is kept."""
    for _ in range(2):
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / %s::int", (0,))
        assert connection.execute("SELECT 1 / %s::int", (1,)).fetchone() == (1,)


def test_statements_without_end_do_not_fill_the_memory(connection, monkeypatch):
    """Beyond the limit a statement works, and its cursor is not kept."""
    monkeypatch.setattr(keeping, "KEPT", 2)
    for number in range(5):
        assert connection.execute(f"SELECT {number}").fetchone() == (number,)
    assert len(connection._cursors) == 2


def test_a_closed_connection_is_free_at_once(connection):
    """Its cursors refer to it, and would keep it until the collector comes."""
    connection.execute(ECHO, (1,))
    connection.close()
    assert not connection._cursors
    with pytest.raises(psycopg.OperationalError):
        connection.execute(ECHO, (1,))
