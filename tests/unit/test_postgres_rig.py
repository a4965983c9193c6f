"""The PostgreSQL that tests get: alive when it is wanted, gone afterwards whatever happens."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

psycopg = pytest.importorskip("psycopg")

HERE = Path(__file__).parent.parent


def test_databases_are_fresh(postgres_url):
    """A test has a database with nothing in it, and may do in it what it likes."""
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        connection.execute("CREATE TABLE t(n int)")


def test_sessions_can_be_cut(postgres_server, postgres_url):
    """Sessions of a database are found by their names and can be ended; others go on."""
    one = psycopg.connect(postgres_url, autocommit=True, application_name="one")
    two = psycopg.connect(postgres_url, autocommit=True, application_name="two")
    assert postgres_server.cut_all(one.info.dbname, like="one") == 1
    with pytest.raises(psycopg.OperationalError):
        one.execute("SELECT 1")
    assert two.execute("SELECT 1").fetchone() == (1,)
    two.close()


def test_a_line_can_be_cut(postgres_server, postgres_url):
    """What runs over a line ends with it, new connections are refused, and mended it carries again."""
    with psycopg.connect(postgres_url) as direct:
        name = direct.info.dbname
    with postgres_server.line() as line:
        over = psycopg.connect(line.url(name), autocommit=True)
        line.cut()
        with pytest.raises(psycopg.OperationalError):
            over.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(line.url(name))
        line.mend()
        with psycopg.connect(line.url(name)) as again:
            assert again.execute("SELECT 1").fetchone() == (1,)


def test_what_was_committed_survives_every_end(own_postgres, tmp_path):
    """A killed backend, kill -9 of the whole server and a restart lose nothing committed; a restored copy does."""

    def put(number):
        with own_postgres.connect() as connection:
            connection.execute("INSERT INTO t VALUES (%s)", (number,))

    def seen():
        with own_postgres.connect() as connection:
            return [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n")]

    with own_postgres.connect() as connection:
        connection.execute("CREATE TABLE t(n int)")
    put(1)
    own_postgres.copy(tmp_path / "saved")
    put(2)
    with psycopg.connect(own_postgres.url(), autocommit=True) as victim:
        own_postgres.kill(victim.info.backend_pid)
    put(3)
    own_postgres.kill9()
    with pytest.raises(psycopg.OperationalError):
        own_postgres.connect()
    own_postgres.start()
    put(4)
    own_postgres.restart()
    assert seen() == [1, 2, 3, 4]
    own_postgres.restore(tmp_path / "saved")
    assert seen() == [1]


def test_it_ends_with_the_tests(postgres_server):
    """A killed process of tests leaves neither a server nor a file behind."""
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from postgres_rig import PostgresServer\n"
        "server = PostgresServer(); print(server.base, server._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(HERE)], stdout=subprocess.PIPE, text=True) as process:
        base, pid = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 60
    while Path(base).exists() or Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
