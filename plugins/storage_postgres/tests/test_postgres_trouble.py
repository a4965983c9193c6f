"""Servers that crash, disks that fill up: what was acknowledged is there, what was not is said, and it goes on."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres import Options, dropr_storage
from postgres_rig import PostgresServer

from dropr_core.errors import QueueFull, StoreBusy, StoreError
from dropr_core.system.clock import SystemClock
from dropr_core.testing.builders import LANE, make_context, outgoing

SENDERS = 3


def opened(server, directory, wait=60.0, **more):
    directory.mkdir(exist_ok=True)
    return dropr_storage(Options(url=server.url(), wait=wait), make_context(directory, SystemClock(), **more))


class Senders:
    """Threads that send, one message at a time and in small batches, until they are told to stop."""

    def __init__(self, outbox):
        self.outbox, self.told, self.errors, self.stop = outbox, [], [], threading.Event()
        self.threads = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(100)

    def _send(self, number):
        while not self.stop.is_set():
            messages = [outgoing() for _ in range(1 + 4 * (number % 2))]
            try:
                placed = self.outbox.append(messages)
            except StoreError as error:
                self.errors.append(error)
            else:
                self.told += [(one.sequences[0], one.id) for one in placed]

    def wait_for(self, count):
        """Until so many more were acknowledged."""
        until, aim = time.monotonic() + 90, len(self.told) + count
        while len(self.told) < aim:
            assert time.monotonic() < until, self.errors[-1:]
            time.sleep(0.005)


def stored(outbox):
    """(sequence, id) of all that waits, which must be without gap or double."""
    entries = []
    while batch := outbox.take(LANE, 10_000, 1 << 30, mark_in_flight=True):
        entries += [(entry.sequence, entry.id) for entry in batch.entries]
        outbox.settle(LANE, batch.upto)
    assert [sequence for sequence, _ in entries] == list(range(1, len(entries) + 1))
    assert len({identity for _, identity in entries}) == len(entries)
    return entries


HURTS = {
    "kill a backend": lambda server: server.kill(server.backends("postgres", like="dropr%outbox")[0]),
    "cut a session": lambda server: server.cut_all("postgres", like="dropr%outbox"),
    "restart": PostgresServer.restart,
    "crash": lambda server: (server.stop(signal.SIGQUIT), server.start()),
    "kill -9 all of it": lambda server: (server.kill9(), server.start()),
}


@pytest.mark.parametrize("hurt", HURTS)
def test_nothing_acknowledged_is_lost(hurt, own_postgres, tmp_path):
    """Whatever happens to the server while messages are sent: each that was acknowledged is there once, at the number
    that was told; senders wait for the server, and hear of nothing.
    """
    storage = opened(own_postgres, tmp_path / "data")
    with Senders(storage.outbox) as senders:
        for _ in range(3):
            senders.wait_for(30)
            HURTS[hurt](own_postgres)
        senders.wait_for(30)
    assert senders.errors == []
    assert sorted(senders.told) == stored(storage.outbox)
    storage.close()


def test_a_cut_line_is_a_pause(own_postgres, tmp_path):
    """With the line between machine and server cut nothing is sent, and with it mended it goes on by itself."""
    directory = tmp_path / "data"
    directory.mkdir()
    with own_postgres.line() as line:
        storage = dropr_storage(Options(url=line.url(), wait=60.0), make_context(directory, SystemClock()))
        with Senders(storage.outbox) as senders:
            for _ in range(3):
                senders.wait_for(30)
                line.cut()
                line.mend()
            senders.wait_for(30)
        assert senders.errors == []
        assert sorted(senders.told) == stored(storage.outbox)
        storage.close()


@pytest.fixture
def small_disk():
    """A file system of 120 MiB, where the server's user may go; unmounted afterwards."""
    with tempfile.TemporaryDirectory(prefix="dropr-disk-") as directory:
        place = Path(directory) / "disk"
        place.mkdir()
        place.parent.chmod(0o755)
        mount = ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", place]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("mounting needs root")
        yield place
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_said_and_heals(small_disk, tmp_path):
    """On a full disk of the server sends fail with words about it, nothing acknowledged is lost, and with room again it
    goes on without a restart of anything.
    """
    server = PostgresServer(base=small_disk, max_wal_size="32MB", min_wal_size="8MB")
    try:
        storage = opened(server, tmp_path / "data", wait=0.2)
        told = []
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            for _ in range(15):
                file.write(bytes(1 << 22))
                file.flush()
                if os.statvfs(small_disk).f_bavail * 4096 < 12 << 20:
                    break
        with pytest.raises((QueueFull, StoreBusy)) as caught:
            for _ in range(20_000):
                message = outgoing(os.urandom(30_000))
                told += [(one.sequences[0], one.id) for one in storage.outbox.append([message])]
        assert "disk is full" in str(caught.value) or "cannot be reached" in str(caught.value)
        ballast.unlink()
        until = time.monotonic() + 100
        while True:
            try:
                told += [(one.sequences[0], one.id) for one in storage.outbox.append([outgoing()])]
                break
            except StoreBusy:  # it recovers from its log
                assert time.monotonic() < until
                if server._process.poll() is not None:  # it gave up: a service manager starts it again
                    server.stop()
                    server.start()
        assert told == stored(storage.outbox)
        storage.close()
    finally:
        server.remove()
