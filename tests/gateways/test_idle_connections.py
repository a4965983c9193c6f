"""Ten thousand connections on which nothing happens: `make stress`."""

import contextlib
import resource
import socket
from pathlib import Path

import pytest
from support.beanstalk import Wire
from support.nodes import PATIENCE

pytestmark = [pytest.mark.e2e, pytest.mark.stress, pytest.mark.timeout(600)]

MANY = 10_000
MOST_EACH = 64 * 1024
"""Bytes of memory that an idle connection may cost the gateway."""


@pytest.fixture
def descriptors():
    """Room for so many sockets in this process, and in the gateway, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may have {hard} descriptors here: ulimit -Hn {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_of(pid):
    """Bytes that a process has in memory for itself."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@pytest.mark.parametrize("says", [b"", b"watch mail\r\nignore default\r\nreserve\r\n"], ids=["silent", "waiting"])
def test_ten_thousand_idle_connections(road, descriptors, says, capsys):
    """They cost little memory, whether they say nothing or wait for a job; and a job is put and taken as ever."""
    gateways = {"beanstalk": {"listen": "tcp://127.0.0.1:0", "max_connections": MANY + 10}}
    (place,) = road.build("shop", shop={"gateways": gateways})
    gateway = place.run("gateway")
    port = int(place.doors()["beanstalk"][0].rpartition(":")[2])
    with Wire(port) as wire, contextlib.ExitStack() as idle:
        number = wire.put(b"first")
        assert wire.reserve() == (number, b"first")
        assert wire.ask(f"delete {number}") == b"DELETED\r\n"
        before = memory_of(gateway.pid)
        for _ in range(MANY):
            one = idle.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            if says:
                one.sendall(says)
                assert one.recv(100).startswith(b"WATCHING 2\r\n")
        wire.ask("use work")
        wire.ask("watch work")
        number = wire.put(b"x")
        assert wire.reserve() == (number, b"x")
        each = (memory_of(gateway.pid) - before) / MANY
    with capsys.disabled():
        print(f"\n{MANY:,} connections, {'waiting' if says else 'silent'}: {each / 1024:.1f} KiB each")
    assert each < MOST_EACH
