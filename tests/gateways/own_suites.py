"""The test suites of foreign clients as they are, against our doors: `make own-suite SUITE=… SOURCE=…`.

Owns what those suites expect around them: a new node's door for each test where a beanstalkd would listen, a broker
at the address that stomp-py's tests read from the environment, and a node for what Celery and Kombu test their brokers
with. Their files are given by whoever runs this, from a
source tree of the client; none of them is kept here. Must not know what they test.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PID = "DROPR_OWN_SUITE_PID"
STAND_IN = f"""#!/bin/sh
trap 'kill -TERM "${PID}"' USR1
trap 'kill "$child"; exit 0' TERM
sleep 60 & child=$!
while kill -0 "$child" 2>/dev/null; do wait "$child"; done
"""
"""What the tests start and end as beanstalkd. SIGUSR1 makes that one drain; a gateway drains while it stops."""

GREENSTALK_LEFT_OUT = [
    "test_drain_mode",  # a gateway that drains ends at once what has no job in hand: docs/gateways/beanstalk.md
]
STOMP_FILES = [
    "activemq", "basic", "context", "misc", "nonascii", "override_threading", "rabbitmq", "s10", "s11", "s12",
    "stompserver", "threading", "transport", "utils",
]  # fmt: skip
"""The files of stomp-py's suite that need no more than a broker, and those that need none."""
STOMP_LEFT_OUT = [
    "basic.py::TestBasic::test_timeout",  # connects to a machine that is not this one
]
CELERY_FILES = ["canvas", "inspect", "loader", "tasks"]
"""The files of Celery's integration tests that are about a broker and a result backend. They need `pip install redis
pytest-rerunfailures pytest-subtests pytest-order`, and a Redis at $REDIS_PORT in which some tasks leave their marks."""
KOMBU = """
import kombu
import pytest

import dropr_kombu
from t.integration import common


@pytest.fixture
def connection(tmp_path):
    (tmp_path / "node.yaml").write_text("node: shop\\nlimits: {min_free: 0}\\n")
    return kombu.Connection(f"dropr://{tmp_path}/node.yaml")


@pytest.fixture
def invalid_connection(tmp_path):
    return kombu.Connection(f"dropr://{tmp_path}/none.yaml")


@pytest.fixture
def failover_connection(connection):
    return kombu.Connection(f"{connection.hostname};{connection.hostname}")


class TestBasicFunctionality(common.BasicFunctionality): ...
class TestExchangeTypes(common.BaseExchangeTypes): ...
class TestMessage(common.BaseMessage): ...
class TestTimeToLive(common.BaseTimeToLive): ...
class TestFailover(common.BaseFailover): ...
class TestPriority(common.BasePriority):
    PRIORITY_ORDER = "asc"
"""
"""What Kombu's authors write for each of their transports."""
KOMBU_LEFT_OUT = [
    "test_publish_consume and TestPriority",  # wants several messages of one drain_events; we give one, as with Redis
    "test_publish_requeue_consume",  # the same
    "test_reject_requeue", "test_requeue",  # wants it back at once; here it comes with backoff: docs/guide/celery.md
]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run one suite; the exit code of pytest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=sorted(RUNS))
    parser.add_argument("source", type=Path, help="the source tree of the client, with its tests")
    parser.add_argument("rest", nargs="*", help="more words for pytest")
    said = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        return RUNS[said.suite](said.source.resolve(), Path(directory), said.rest)


def greenstalk(source: Path, directory: Path, rest: Sequence[str]) -> int:
    """Its suite starts a beanstalkd for each test, and connects 0.1 s later: somebody listens all the time."""
    import pytest

    stand_in = directory / "beanstalkd"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    os.environ["BEANSTALKD_PATH"] = str(stand_in)
    sys.path.insert(0, str(source / "src"))
    plain = ["-c", os.devnull, "--rootdir", str(source), "-p", "no:cacheprovider", str(source / "tests")]
    left_out = ["-k", " and ".join(f"not {name}" for name in GREENSTALK_LEFT_OUT)]
    return int(pytest.main([*plain, *left_out, *rest], plugins=[NodeForEach(directory)]))


class NodeForEach:
    """A plugin of pytest: before each test there is a new node, and what connects where its beanstalkd would listen has
    the door of that node."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._count, self._door = directory, 0, ""
        self._ends, self._until_all = contextlib.ExitStack(), contextlib.ExitStack()

    def pytest_collection_finish(self, session: Any) -> None:
        """Listen where the tests expect a beanstalkd."""
        module = session.items[0].module
        with contextlib.suppress(FileNotFoundError):
            Path(module.DEFAULT_UNIX_ADDRESS).unlink()
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(module.DEFAULT_UNIX_ADDRESS)
        unix.listen()
        for listener in (unix, socket.create_server(module.DEFAULT_INET_ADDRESS)):
            threading.Thread(target=self._pass_on, args=(listener,), daemon=True).start()
        self._until_all.callback(Path(module.DEFAULT_UNIX_ADDRESS).unlink)

    def pytest_runtest_logstart(self) -> None:
        """Start the node of a test."""
        self._count += 1
        place = self._directory / str(self._count)
        place.mkdir()
        self._door = f"{place}/door"
        gateway = self._ends.enter_context(_gateway(place, {"beanstalk": {"listen": f"unix://{self._door}"}}))
        os.environ[PID] = str(gateway.processes[0].pid)

    def pytest_runtest_logfinish(self) -> None:
        """End it."""
        self._ends.close()

    def pytest_sessionfinish(self) -> None:
        """Leave nothing."""
        self._until_all.close()

    def _pass_on(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            door = socket.socket(socket.AF_UNIX)
            try:
                door.connect(self._door)
            except OSError:  # the test is over
                client.close()
                door.close()
                continue
            for one, other in ((client, door), (door, client)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def stomp(source: Path, directory: Path, rest: Sequence[str]) -> int:
    """Its suite asks the environment for the address of a broker. Run with its own source, for client and tests."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    files = [f"tests/test_{name}.py" for name in STOMP_FILES]
    left_out = [word for name in STOMP_LEFT_OUT for word in ("--deselect", f"tests/test_{name}")]
    with _gateway(directory, stomp_gateways("tcp://127.0.0.1:61613")) as place:
        env = {**os.environ, **stomp_environment(place)}
        return subprocess.run([*command, *files, *left_out, *rest], cwd=source, env=env, check=False).returncode


def stomp_gateways(listen: str) -> dict[str, Any]:
    """The doors that its suite wants: one for two users, and one for everybody."""
    users = {"admin": "password", "guest": "guest"}
    return {"stomp": {"listen": listen, "users": users}, "anyone": {"use": "stomp", "listen": "tcp://127.0.0.1:0"}}


def stomp_environment(place: Any) -> dict[str, str]:
    """What tells its suite where they are."""
    doors = {"STD": "stomp", "RABBITMQ": "stomp", "STOMPSERVER": "anyone"}
    ports = {who: place.doors()[door][0].rpartition(":")[2] for who, door in doors.items()}
    return {name: value for who, port in ports.items() for name, value in (
        (f"{who}_HOST", "127.0.0.1"), (f"{who}_PORT", port),
    )}  # fmt: skip


def celery(source: Path, directory: Path, rest: Sequence[str]) -> int:
    """Its integration tests ask the environment for the broker and the backend; their worker is a thread of pytest."""
    node = directory / "node.yaml"
    node.write_text("node: shop\nlimits: {min_free: 0}\n")
    url = f"dropr://{node}"
    env = {**os.environ, "TEST_BROKER": url, "TEST_BACKEND": url, "PYTHONPATH": str(source)}
    files = [f"t/integration/test_{name}.py" for name in CELERY_FILES]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "celery.contrib.pytest"]
    command += ["-o", "addopts=", "-o", "xfail_strict=false"]  # some are expected to fail, and do not with us
    return subprocess.run([*command, *files, *rest], cwd=source, env=env, check=False).returncode


def kombu(source: Path, directory: Path, rest: Sequence[str]) -> int:
    """What it tests its own transports with."""
    test = directory / "test_dropr.py"
    test.write_text(KOMBU)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(directory)]
    left_out = ["-k", " and ".join(f"not ({name})" for name in KOMBU_LEFT_OUT)]
    env = {**os.environ, "PYTHONPATH": str(source)}
    return subprocess.run([*command, str(test), *left_out, *rest], cwd=directory, env=env, check=False).returncode


@contextlib.contextmanager
def _gateway(directory: Path, gateways: dict[str, Any]) -> Iterator[Any]:
    from support.nodes import Road

    road = Road(directory)
    try:
        (place,) = road.build("shop", shop={"gateways": gateways})
        place.run("gateway")
        yield place
    finally:
        road.close()


RUNS = {"celery": celery, "greenstalk": greenstalk, "kombu": kombu, "stomp-py": stomp}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main(sys.argv[1:]))
