"""A real PostgreSQL for tests: started when the first test wants it, gone when the process of the tests is gone.

Owns `PostgresServer` (start, stop, kill, restart, count connections, run out of them), the fixtures `postgres_server`
(one for each process of pytest), `postgres_url` (a fresh database for one test), `postgres_schema` (an empty schema of
a database that tests share: the cheaper one) and `own_postgres` (a server that one test may break), and `Line`, a
connection to it that can be cut. Where the programs come from is in `postgres_programs`.
A watcher (`postgres_watcher`), a process of its own, waits for the end of this one, however it comes, then stops the
server and removes its directory. Must not know dropr.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from postgres_line import Line
from postgres_programs import NoPostgres, find_programs, roomy, server_user

if TYPE_CHECKING:
    import psycopg

PATIENCE = 60.0
"""Seconds that the server has for each of its steps: it takes a tenth of one, but tests run under load."""

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",  # the directory is the server's alone, and root's
    "max_connections": "60",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
    "autovacuum_naptime": "10s",
    "log_line_prefix": "%m [%p] %u@%d ",
    "logging_collector": "off",
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
}
"""Everything that is promised is left as it is: fsync, full_page_writes, synchronous_commit."""


class PostgresServer:
    """One server with a data directory of its own. Ports are numbers in the names of sockets, until `listen`."""

    def __init__(self, *, base: Path | None = None, **settings: str) -> None:
        """``base``: an empty directory for everything, as a small file system; else one in memory or in TMPDIR.
        ``settings``: of postgresql.conf. Starts the server. Raises NoPostgres.
        """
        programs = find_programs()
        self._user = server_user()
        self.base = base or Path(tempfile.mkdtemp(prefix="dropr-pg-", dir=roomy()))
        self._watcher = _watch(self.base)
        try:
            if self._user is not None:
                os.chown(self.base, self._user.pw_uid, self._user.pw_gid)
            self.bin = self._reachable(programs)
            self.data = self.base / "data"
            self.port, self.host = 5432, str(self.base)
            self._process: subprocess.Popen[bytes] | None = None
            self.run(
                "initdb", "--pgdata", str(self.data), "--auth=trust", "--username=dropr", "--encoding=UTF8",
                "--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=4",
            )  # fmt: skip
            self.configure(**(SETTINGS | {"unix_socket_directories": str(self.base)} | settings))
            self.start()
        except BaseException:
            self.remove()
            raise

    # ── the server's life ────────────────────────────────────────────────────────────────────────

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it takes connections (``wait``)."""
        assert self._process is None
        log = (self.base / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self.bin / "postgres", "-D", str(self.data), "-p", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, env=_environment(),
                **self._as_user(),
            )  # fmt: skip
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until it takes connections, after a start or a crash of a backend."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.connect(dbname="template1").close()
            except _psycopg().OperationalError as error:
                if self._process is None or self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the server does not start: {error}\n{self.log()}") from error
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT cuts all connections and leaves everything in order, SIGTERM waits for them to end, SIGQUIT
        is a crash of the server in its own words.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        process.wait(PATIENCE)

    def restart(self) -> None:
        """Stop it, and start it again: connections are cut, nothing that was committed is lost."""
        self.stop()
        self.start()

    def kill9(self) -> None:
        """Kill all its processes at once, as the kernel would for want of memory. `start` recovers it."""
        assert self._process is not None
        process, self._process = self._process, None
        # First the postmaster: it would clean up after a backend. They share its process group.
        process.kill()
        process.wait(PATIENCE)
        for pid in _children_of_group(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + PATIENCE
        while _children_of_group(process.pid):
            assert time.monotonic() < until
            time.sleep(0.01)

    def remove(self) -> None:
        """Stop it and remove everything it wrote; safe twice. The watcher does it."""
        with contextlib.suppress(AttributeError, subprocess.TimeoutExpired):
            self.stop(signal.SIGQUIT)
        if self._watcher.stdin is not None and not self._watcher.stdin.closed:
            self._watcher.stdin.close()
            self._watcher.wait(PATIENCE)

    def configure(self, **settings: str) -> None:
        """Write settings into its configuration; `reload` or `restart` brings them in."""
        with (self.data / "postgresql.conf").open("a") as file:
            for name, value in settings.items():
                file.write(f"{name} = '{value}'\n")

    def reload(self) -> None:
        """Let it read its configuration again; done when it says that it has."""
        with self.connect() as connection:
            before = connection.execute("SELECT pg_conf_load_time()").fetchone()
            connection.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + PATIENCE
        while True:
            with self.connect() as connection:
                if connection.execute("SELECT pg_conf_load_time()").fetchone() != before:
                    return
            assert time.monotonic() < until
            time.sleep(0.01)

    def listen(self, host: str = "127.0.0.1") -> int:
        """Restart it with a TCP port on an address as well; returns the port."""
        with socket.socket() as probe:
            probe.bind((host, 0))
            self.port = probe.getsockname()[1]
        self.configure(listen_addresses=host)
        self.restart()
        return self.port

    def restore(self, saved: Path) -> None:
        """Begin with what `copy` made: a roll-back. Stops the server, if it runs, and starts it again."""
        self.stop()
        shutil.rmtree(self.data)
        shutil.copytree(saved, self.data, symlinks=True)
        self._own(self.data)
        self.start()

    def copy(self, to: Path) -> None:
        """A copy of the data directory of the stopped server, which is started again."""
        self.stop()
        shutil.copytree(self.data, to, symlinks=True)
        self.start()

    def log(self) -> str:
        """What it said so far."""
        try:
            return (self.base / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # ── databases and connections ────────────────────────────────────────────────────────────────

    def url(self, database: str = "postgres", **parameters: str) -> str:
        """How a client in this machine reaches a database, through the socket."""
        more = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"postgresql://dropr@/{database}?host={self.host}&port={self.port}{more}"

    def connect(self, dbname: str = "postgres") -> "psycopg.Connection[Any]":
        """A connection in autocommit of the rig's own."""
        return _psycopg().connect(self.url(dbname), autocommit=True)

    def database(self, name: str | None = None) -> str:
        """Make a fresh database; returns its name."""
        name = name or f"d{os.urandom(6).hex()}"
        with self.connect("template1") as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def backends(self, database: str, *, like: str = "%") -> list[int]:
        """Process ids of the sessions in a database, by their application's name."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s AND "
            "backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
        )
        with self.connect() as connection:
            return [pid for (pid,) in connection.execute(query, (database, like))]

    def cut(self, pid: int) -> None:
        """End one session as an administrator does (pg_terminate_backend). Those who use other sessions go on."""
        with self.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 30000)", (pid,))

    def cut_all(self, database: str, *, like: str = "%") -> int:
        """End every session in a database; returns how many there were."""
        pids = self.backends(database, like=like)
        for pid in pids:
            self.cut(pid)
        return len(pids)

    def kill(self, pid: int) -> None:
        """Kill one backend with SIGKILL: the server cuts every session and recovers from its log. Waits for that."""
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + PATIENCE
        while self.log().rfind("ready to accept connections") < self.log().rfind(f"(PID {pid}) was terminated") or (
            f"(PID {pid}) was terminated" not in self.log()
        ):
            assert time.monotonic() < until, self.log()
            time.sleep(0.02)
        self.wait()

    def line(self) -> "Line":
        """A TCP address of this server that can be cut."""
        return Line(f"{self.host}/.s.PGSQL.{self.port}")

    # ── its programs ─────────────────────────────────────────────────────────────────────────────

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs as the server's user; returns what it printed."""
        done = subprocess.run(
            [self.bin / program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120, check=False, cwd="/", env=_environment(),
            **self._as_user(),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _own(self, tree: Path) -> None:
        if self._user is not None:
            for path in (tree, *tree.rglob("*")):
                os.chown(path, self._user.pw_uid, self._user.pw_gid, follow_symlinks=False)

    def _reachable(self, programs: Path) -> Path:
        """The programs where the server's user can run them: a home of root's is closed to it."""
        if self._user is None or all(one.stat().st_mode & 0o001 for one in programs.resolve().parents):
            return programs
        package = programs.parent.parent  # of the wheel: its libraries stand beside it
        for tree in (package, package.with_name(f"{package.name}.libs")):
            for part in (programs.parent.name,) if tree == package else ("",):
                shutil.copytree(tree / part, self.base / "wheel" / tree.name / part, symlinks=True)
        return self.base / "wheel" / package.name / programs.parent.name / "bin"


# ── fixtures ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this process of pytest. A test may cut its own sessions, but not stop it: `own_postgres`."""
    with _given() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of the test's own, which it may stop, kill and configure: a second more."""
    with _given() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a fresh database."""
    name = postgres_server.database()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture
def postgres_schema(postgres_server: PostgresServer) -> Iterator[tuple[str, str]]:
    """The address of a database that tests share, and the name of a schema that is not there yet and the test's own."""
    name = f"s{os.urandom(6).hex()}"
    yield postgres_server.url(), name
    with postgres_server.connect() as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


@contextlib.contextmanager
def _given() -> Iterator[PostgresServer]:
    try:
        server = PostgresServer()
    except NoPostgres as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error}; CI needs it")
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.remove()


def _environment() -> dict[str, str]:
    """Nothing of the user's: PGDATA, PGOPTIONS, a service file."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def _watch(base: Path) -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("postgres_watcher.py")
    return subprocess.Popen(
        [sys.executable, "-S", "-E", program, str(base)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
    )  # fmt: skip


def _children_of_group(leader: int) -> list[int]:
    """Living processes of the session that a server began."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def _psycopg() -> Any:
    import psycopg

    return psycopg
