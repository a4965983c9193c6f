"""Health: progress and not existence, and what keeps a node from taking work."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner
from support.nodes import Road, eventually

from dropr_core.angel.heartbeat import Heartbeat
from dropr_core.cli.app import application
from dropr_core.config.node import load
from dropr_core.monitor.health import live, ready
from dropr_core.monitor.metrics_routes import health_routes
from dropr_core.monitor.routes import Request
from dropr_core.processes.mainloop import MainLoop
from dropr_core.system.locks import FileLock
from dropr_core.system.presence import Presence
from dropr_core.system.turns import Turns, is_stopped, turn_of


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    made = Road(tmp_path)
    yield made
    made.close()


@pytest.fixture
def config(tmp_path):
    """A node that shall run a daemon and a worker, of which nothing runs."""
    file = tmp_path / "node.yaml"
    file.write_text("node: shop\nlimits: {min_free: 0}\npeers: {}\nrun: [worker]\nangel: {hang: 60s}\n")
    (tmp_path / "shop-data" / "run").mkdir(parents=True)
    return load(file)


@contextlib.contextmanager
def worker(config):
    """This process stands for a worker."""
    presence = Presence(config.data / "run", "worker")
    presence.announce({})
    yield presence
    presence.withdraw()


def test_a_main_loop_shows_where_it_is(monkeypatch):
    """Working, asleep until a time, or too late; whoever knows the process id sees it, without a file on a disk."""
    turns = Turns()
    try:
        assert turn_of(os.getpid()).late < 60
        turns.asleep(3600)
        assert turn_of(os.getpid()).late == 0
        now = time.monotonic()
        monkeypatch.setattr("dropr_core.system.turns._now", lambda: now + 3700)
        assert 99 < turn_of(os.getpid()).late < 101
        turns.awake()
        monkeypatch.setattr("dropr_core.system.turns._now", lambda: now + 3770)
        assert 69 < turn_of(os.getpid()).late < 71
        assert not turn_of(os.getpid()).stopping
        turns.stopping()
        turns.awake()
        assert turn_of(os.getpid()).stopping
    finally:
        turns.close()
        turns.close()
    assert turn_of(os.getpid()) is None
    turns.awake()  # and harms nobody


def test_a_sleep_of_the_main_loop_is_shown():
    """While it sleeps it says until when, and when it is awake again that it works."""
    with MainLoop(Heartbeat(None, None, 3600.0)) as loop:
        seen = []

        def look():
            eventually(lambda: turn_of(os.getpid()) is not None)
            seen.append(turn_of(os.getpid()))
            loop.wake()

        watcher = threading.Thread(target=look)
        watcher.start()
        loop.sleep(60)
        watcher.join()
        assert seen[0].late < 60
        assert turn_of(os.getpid()).late < 60


def test_a_process_that_shows_nothing_is_nobodys_fault():
    """Of a process without the page, or that is gone, nothing is known."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert turn_of(process.pid) is None
        assert not is_stopped(process.pid)
    finally:
        process.communicate(b"\n")
    assert turn_of(process.pid) is None


def test_where_nothing_runs_nothing_is_alive(config):
    """And it is not ready either."""
    assert not live(config).ok
    assert "dropr up" in live(config).problems[0]
    assert not ready(config).ok


def test_a_silent_main_loop_is_no_life(config, monkeypatch):
    """A process that exists, and whose loop has not turned for longer than `angel.hang`."""
    turns = Turns()
    try:
        with worker(config):
            assert live(config).ok
            assert ready(config).ok
            now = time.monotonic()
            monkeypatch.setattr("dropr_core.system.turns._now", lambda: now + 61)
            assert [text for text in live(config).problems if "makes no progress" in text]
            assert not ready(config).ok
    finally:
        turns.close()


def test_who_drains_is_alive_and_not_ready(config):
    """After SIGTERM no new work is wanted, and nobody needs to kill anything."""
    turns = Turns()
    try:
        with worker(config):
            turns.stopping()
            turns.awake()
            assert live(config).ok
            assert "drains" in " ".join(ready(config).problems)
    finally:
        turns.close()


def test_what_shall_run_and_does_not_is_missed(config):
    """Every role of `run:` must be there to be ready; what is there is alive all the same."""
    lock = FileLock(config.data / "daemon.lock")
    lock.acquire("test")
    try:
        (config.data / "run" / "daemon.json").write_text(json.dumps({"pid": os.getpid()}))
        assert live(config).ok
        assert ready(config).problems == ("no worker is ready, though `run:` names it",)
    finally:
        lock.release()


def test_a_full_disk_is_not_ready(config, tmp_path, monkeypatch):
    """Below the floor, and where a write fails; nothing of the try is left."""
    with worker(config):
        file = tmp_path / "node.yaml"
        file.write_text(file.read_text().replace("min_free: 0", "min_free: 1000000GiB"))
        assert "the floor is" in " ".join(ready(load(file)).problems)
        assert live(load(file)).ok

        def full(_fd, _data):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("dropr_core.monitor.health.os.write", full)
        assert "nothing can be stored" in " ".join(ready(config).problems)
    assert not list((config.data / "run").glob("probe-*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full_is_not_ready(tmp_path):
    """On a file system without a free block."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this machine mounts nothing: {mounted.stderr!r}")
    try:
        file = tmp_path / "node.yaml"
        file.write_text(f"node: shop\ndata: {disk}\nlimits: {{min_free: 0}}\npeers: {{}}\nrun: [worker]\n")
        (disk / "run").mkdir()
        with worker(load(file)):
            assert ready(load(file)).ok
            with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(4096))
            assert "nothing can be stored" in " ".join(ready(load(file)).problems)
            assert live(load(file)).ok
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_routes_say_yes_or_no_without_a_token(config):
    """200 or 503, open for those who restart and route; they tell names of processes and nothing of messages."""

    class Runtime:
        pass

    runtime = Runtime()
    runtime.config = config
    routes = {route.path: route for route in health_routes(runtime, None)}
    assert all(route.open for route in routes.values())
    assert routes["/livez"].function(Request("GET", "/livez")).status == 503
    with worker(config):
        assert routes["/livez"].function(Request("GET", "/livez")).status == 200
        answer = routes["/readyz"].function(Request("GET", "/readyz"))
        assert (answer.status, json.loads(answer.body)) == (200, {"ok": True, "problems": []})


@pytest.mark.e2e
def test_a_stopped_process_is_not_alive_and_one_that_goes_on_is(road):
    """A real daemon, stopped in the middle (SIGSTOP): `dropr health` says no with exit code 1, and yes again after
    SIGCONT; what the kernel says is enough, though the daemon may sleep for long.
    """
    (shop,) = road.build("shop", shop={"run": ["daemon"]})
    daemon = shop.run("daemon")

    def health(*words):
        done = CliRunner().invoke(application(), ["health", "-c", str(shop.file), "--json", *words])
        return done.exit_code, json.loads(done.stdout)

    eventually(lambda: health("--ready")[0] == 0, what="a daemon that is ready")
    daemon.signal(signal.SIGSTOP)
    eventually(lambda: is_stopped(daemon.pid), what="a daemon that is stopped")
    code, told = health()
    assert code == 1
    assert f"daemon {daemon.pid} is stopped by a signal" in told["problems"][0]
    assert health("--ready")[0] == 1
    daemon.signal(signal.SIGCONT)
    eventually(lambda: health()[0] == 0, what="a daemon that goes on")
    assert daemon.stop() == 0
    assert health()[0] == 1
