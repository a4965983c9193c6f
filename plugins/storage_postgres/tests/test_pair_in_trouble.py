"""Two nodes over PostgreSQL by real processes, under load, while their database has every kind of trouble.

Each time: nothing that was acknowledged is lost, nothing enters the peer's queue twice, the logs say it in a few lines
and not with each try, and it goes on by itself.
"""

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("psycopg")
import psycopg
from postgres_rig import PostgresServer
from support.nodes import Road, eventually

from dropr_core.errors import DroprError

BATCH, MOST = 20, 300
"""Messages in a commit, and about how many are on their way at once."""
LINES = 6
"""Lines above `info` that a process may write for one trouble: its going and its coming, for each half and peer."""


class Traffic:
    """A program that sends and one that receives, each in a thread, whatever happens."""

    def __init__(self, sender, receiver):
        self._sender, self._receiver = sender, receiver
        self.acknowledged, self.refused = [], []
        self.first, self.seen = [], set()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def _send(self):
        number = 0
        while not self._stop.is_set():
            numbers = range(number, number + BATCH)
            number += BATCH
            try:
                with self._sender.batch() as batch:
                    for one in numbers:
                        batch.send(str(one).encode(), to="ware")
            except DroprError as error:
                self.refused.append(error)
                time.sleep(0.02)
            else:
                self.acknowledged += numbers
                time.sleep(0.002 if len(self.acknowledged) - len(self.seen) < MOST else 0.1)

    def _receive(self):
        while not (self._stop.is_set() and self.missing() == 0):
            with contextlib.suppress(DroprError):  # taken again
                for message in self._receiver.receive("common", wait=0.2):
                    number = int(message.body)
                    self.seen.add(number)
                    if message.attempt == 1:
                        self.first.append((number, message.claim.number))

    def missing(self):
        """How many of those that were acknowledged have not come."""
        return len(set(self.acknowledged) - self.seen)

    def more(self, many=100):
        """Until so many more have gone the whole way."""
        before = len(self.seen)
        eventually(lambda: len(self.seen) >= before + many, 90, "more messages")

    def check(self):
        """All that was acknowledged comes, and nothing entered the queue twice."""
        eventually(lambda: self.missing() == 0, 90, "all that was acknowledged")
        jobs = {}
        for number, job in self.first:
            jobs.setdefault(number, set()).add(job)
        assert {number: found for number, found in jobs.items() if len(found) > 1} == {}, "some entered the queue twice"


@pytest.fixture
def road(tmp_path):
    road = Road(tmp_path)
    yield road
    road.close()


@pytest.fixture
def pair(road):
    """Lets shop and ware use these addresses of databases, and starts their processes."""

    def start(shop_url, ware_url):
        shop, ware = road.build("shop", "ware")
        for place, url in ((shop, shop_url), (ware, ware_url)):
            place.write(storage={"use": "postgres", "url": url, "wait": "2s"})
        ware.run("server")
        shop.run("daemon")
        return shop, ware

    return start


def check_logs(*places):
    """What the processes said: no traceback, and nothing again and again."""
    for place in places:
        for process in place.processes:
            text = process.text
            assert process.alive, text
            assert "Traceback" not in text, text
            loud = [line for line in text.splitlines() if " WARNING " in line or " ERROR " in line]
            assert len(loud) <= LINES, "\n".join(loud)


def two(server):
    """Addresses of two databases."""
    return [server.url(server.database()) for _ in range(2)]


@pytest.mark.parametrize(
    "how", [pytest.param("restart", marks=pytest.mark.stress), pytest.param("backend", marks=pytest.mark.stress),
            "crash", "away"],
)  # fmt: skip
def test_a_server_that_comes_back_has_lost_nothing(pair, own_postgres, how):
    """Restarted, killed, one of its processes killed, or away for longer than anybody waits."""
    shop, ware = pair(*two(own_postgres))
    with shop.opened() as here, ware.opened() as there, Traffic(here, there) as traffic:
        traffic.more()
        if how == "restart":
            own_postgres.restart()
        elif how == "crash":
            own_postgres.kill9()
            own_postgres.start()
        elif how == "backend":
            with own_postgres.connect() as connection:
                (pid,) = connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'dropr ware%' LIMIT 1"
                ).fetchone()
            own_postgres.kill(pid)
        else:
            own_postgres.stop()
            eventually(lambda: len(traffic.refused) > 20, 60, "refusals")
            own_postgres.start()
        traffic.more()
        traffic.check()
        check_logs(shop, ware)


def test_without_a_free_connection_it_goes_on_when_there_is_one(pair, own_postgres):
    """All places of the server are taken and its sessions cut: words about it, and then all is well by itself."""
    shop, ware = pair(*two(own_postgres))
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'dropr %'"
    with shop.opened() as here, ware.opened() as there, Traffic(here, there) as traffic:
        traffic.more()
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(own_postgres.connect())
            for _ in range(10):  # some session may come between: there is always one that takes it
                connection.execute(cut)
                with contextlib.suppress(psycopg.OperationalError):
                    while True:
                        stack.enter_context(own_postgres.connect())
                if any("no connection left" in str(error) for error in traffic.refused):
                    break
                time.sleep(0.5)
            eventually(lambda: any("no connection left" in str(error) for error in traffic.refused), 60, "a refusal")
        traffic.more()
        traffic.check()
        check_logs(shop, ware)


@pytest.fixture
def small_disk():
    """A server whose disk has 160 MiB."""
    place = Path(tempfile.mkdtemp(prefix="dropr-small-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", place]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        place.rmdir()
        pytest.skip("mounting needs root")
    place.chmod(0o755)
    try:
        server = PostgresServer(base=place)
        yield server
        server.remove()
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


def test_a_full_disk_is_said_and_heals(pair, small_disk):
    """What was sent is delivered, what cannot be stored is refused with words, and with room it goes on."""
    shop, ware = pair(*two(small_disk))
    ballast = small_disk.base / "ballast"
    with shop.opened() as here, ware.opened() as there, Traffic(here, there) as traffic:
        traffic.more()
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
        eventually(lambda: traffic.refused, 60, "a refusal")
        ballast.unlink()
        if small_disk._process.poll() is not None:  # its log found no room: PostgreSQL ends itself then
            small_disk.stop()
            small_disk.start()
        traffic.more()
        traffic.check()
        check_logs(shop, ware)
