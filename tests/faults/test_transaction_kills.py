"""Killed before and after every statement, nothing that is sent or done within a transaction is lost or doubled.

A child process sends (or handles) messages with a database of an application; each statement of the application's and
of ours, and each call of the store, is a point at which one run is killed by SIGKILL. Whoever comes next finishes. Then
every committed effect has its message, exactly one, and every message its effect, exactly one.
"""

import logging
import os
import signal
import sqlite3
import traceback

import pytest

from dropr_core.api.node import Node
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Selection
from dropr_core.model import envelope
from dropr_core.outboxes.relay import Relay
from dropr_core.transactions.databases import PostgresLink, SqliteLink, connect
from dropr_core.transactions.of_psycopg import PsycopgTransaction
from dropr_core.transactions.of_sqlite3 import Sqlite3Transaction
from dropr_core.transactions.outbox_layout import inbox_statements, install, outbox_statements
from dropr_core.transactions.statements import Statement

pytestmark = pytest.mark.e2e

LOG = logging.getLogger("dropr.daemon")
MESSAGES = 2
MOST = 400
"""Points at most: a run that has more is a defect of this test."""
ENDED, WRONG = 0, 3


class Points:
    """Where a run can be killed."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at

    def pass_one(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function):
        def call(*arguments, **options):
            self.pass_one()
            result = function(*arguments, **options)
            self.pass_one()
            return result

        return call

    def put_on(self, owner, *names: str) -> None:
        for name in names:
            setattr(owner, name, self.around(getattr(owner, name)))


class Place:
    """One node and one database of an application, empty."""

    def __init__(self, directory, url: str | None) -> None:
        directory.mkdir()
        self.kind = "sqlite" if url is None else "postgresql"
        self.url = url or f"sqlite:///{directory / 'app.db'}"
        self.file = directory / "app.db"
        mapping = {
            "node": "shop", "data": str(directory / "data"), "limits": {"min_free": 0}, "insecure": True,
            "peers": {"berlin": {"url": "http://127.0.0.1:9"}},
            "channels": {"orders": {"to": "berlin"}, "jobs": {"retry_backoff_min": 0, "attempts": 1000}},
            "outboxes": {"app": {"url": self.url}},
        }  # fmt: skip
        self.config = from_mapping(mapping, directory)
        if url is None:
            sqlite3.connect(self.file).close()
        self.reset()

    def application(self):
        """A connection as an application has it."""
        if self.kind == "sqlite":
            return sqlite3.connect(self.file)
        import psycopg

        return psycopg.connect(self.url)

    def execute(self, connection, sql, *parameters):
        return connection.execute(sql if self.kind == "sqlite" else sql.replace("?", "%s"), parameters)

    def reset(self) -> None:
        node = Node.open(self.config)
        (outbox,) = node.runtime.outboxes.all
        link = connect(outbox.database, "shop")
        for table in ("effect", "dropr_outbox", "dropr_inbox"):
            link.run(Statement(f"DROP TABLE IF EXISTS {table}"))
        link.run(Statement("CREATE TABLE effect (what TEXT)"))
        link.carry_out(install(self.kind, "dropr_outbox", outbox_statements(self.kind, "dropr_outbox", "shop")))
        link.carry_out(install(self.kind, "dropr_inbox", inbox_statements(self.kind, "dropr_inbox")))
        link.close()
        node.close()

    def effects(self) -> list[str]:
        connection = self.application()
        found = [row[0] for row in connection.execute("SELECT what FROM effect ORDER BY what").fetchall()]
        connection.close()
        return found


def forked(work) -> int | None:
    """Run in a child; its exit status, None if it was killed."""
    pid = os.fork()
    if pid == 0:
        status = WRONG
        try:
            work()
            status = ENDED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return (
        None if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else os.waitstatus_to_exitcode(status)
    )


def relay_all(node) -> None:
    (outbox,) = node.runtime.outboxes.all
    link = connect(outbox.database, "shop")
    relay = Relay(node.runtime, outbox, LOG)
    while relay.step(link):
        pass
    link.close()


def send(place, points) -> None:
    """An application that writes and sends, and a daemon after it."""
    with Node.open(place.config) as node:
        if points:
            for owner in (Sqlite3Transaction, PsycopgTransaction, SqliteLink, PostgresLink):
                points.put_on(owner, "run")
            points.put_on(node.runtime.storage.outbox, "append")
        point = points.pass_one if points else lambda: None
        connection = place.application()
        for number in range(MESSAGES):
            place.execute(connection, "INSERT INTO effect VALUES (?)", str(number))
            point()
            node.send(b"%d" % number, channel="orders", connection=connection)
            point()
            connection.commit()
            point()
        connection.close()
        relay_all(node)


def handle(place, points) -> None:
    """An application that writes for each message, in both forms by turns."""
    with Node.open(place.config) as node:
        if points:
            for owner in (Sqlite3Transaction, PsycopgTransaction, SqliteLink, PostgresLink):
                points.put_on(owner, "run")
            points.put_on(node.runtime.storage.inbox, "claim", "claim_at_once", "settle", "acknowledge")
        point = points.pass_one if points else lambda: None
        connection = place.application()
        for message in node.receive("jobs", wait=0):
            if message.body == b"0":
                point()
                place.execute(connection, "INSERT INTO effect VALUES (?)", message.body.decode())
                point()
                message.ack(connection=connection)
                point()
                connection.commit()
                point()
            else:
                with message.transaction(connection):
                    point()
                    place.execute(connection, "INSERT INTO effect VALUES (?)", message.body.decode())
                    point()
                point()
        connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request, scratch):
    """Makes places, each with nothing of the last one in it."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    count = iter(range(MOST + 1))
    return lambda: Place(scratch / f"p{next(count)}", url)


@pytest.mark.timeout(300)
def test_sending_loses_and_doubles_nothing(places):
    """What is committed is in its lane once; what is not committed is nowhere."""
    killed = 0
    for kill_at in range(1, MOST):
        place = places()
        status = forked(lambda place=place, kill_at=kill_at: send(place, Points(kill_at)))
        with Node.open(place.config) as node:
            relay_all(node)
            sent = [
                envelope.body_of(entry.envelope).decode()
                for lane in node.outbox.lanes()
                for entry in node.outbox.take(lane.lane, 100, 1 << 20, mark_in_flight=False).entries
            ]
            assert sent == place.effects(), f"killed at point {kill_at}"
        if status is not None:
            assert status == ENDED
            assert len(sent) == MESSAGES
            break
        killed += 1
    assert killed > 15


@pytest.mark.timeout(300)
def test_what_takes_effect_takes_effect_once(places):
    """Whoever is killed in between: each message has its effect, and has it once."""
    killed = 0
    for kill_at in range(1, MOST):
        place = places()
        with Node.open(place.config) as node:
            for number in range(MESSAGES):
                node.put(b"%d" % number, channel="jobs")
        status = forked(lambda place=place, kill_at=kill_at: handle(place, Points(kill_at)))
        if status is None:
            killed += 1
            assert forked(lambda place=place: handle(place, None)) == ENDED
        assert place.effects() == [str(number) for number in range(MESSAGES)], f"killed at point {kill_at}"
        with Node.open(place.config) as node:
            assert list(node.inbox.all(Selection())) == []
        if status is not None:
            assert status == ENDED
            break
    assert killed > 15
