"""The asking side and processes: forked, suspended and killed ones, the heart-beat, and what it starts and leaves."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zmq
from dropr_transport_zmq import Options
from dropr_transport_zmq.dealer import settle
from zmq_peer import WAIT

from dropr_core.errors import Closed, Unanswered, Unreachable
from dropr_core.testing.echo import Echo, request


def test_fault_18_after_a_fork_the_child_gets_closed(transport, secret):
    """In a forked child the transport says Closed and closes without a hang; the parent's goes on."""
    echo = Echo()
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    asking = transport()
    connection = asking.connect(url)
    assert connection.ask(request(20), idle=WAIT).result(WAIT) == request(20)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            error = connection.ask(request(20), idle=WAIT).exception(WAIT)
            asking.close()
            code = 0 if isinstance(error, Closed) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert connection.ask(request(20), idle=WAIT).result(WAIT) == request(20)


LISTENER = """
import logging, sys
from dropr_transport_zmq import Options, make
from dropr_core.testing.echo import Echo
echo = Echo()
transport = make(Options(curve=False), logging.getLogger("listener"))
print(transport.listen("zmq+tcp://127.0.0.1:0", echo).url, flush=True)
while True:
    echo.asked.acquire()
    print("asked", flush=True)
"""


@pytest.fixture
def listener():
    """A listener in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_fault_28_a_suspended_peer_is_noticed_by_its_heart(listener, connect):
    """A peer whose machine hangs leaves its connection open; the missing heartbeats end it before the idle time."""
    connection = connect(listener.stdout.readline().strip(), heartbeat=0.1)
    future = connection.ask(request(20, "hold"), idle=600)
    assert listener.stdout.readline() == "asked\n"
    listener.send_signal(signal.SIGSTOP)
    try:
        assert isinstance(future.exception(WAIT), Unanswered)
        assert isinstance(connection.ask(request(20), idle=0.5).exception(WAIT), Unreachable)
    finally:
        listener.send_signal(signal.SIGCONT)
    for _ in range(50):
        if connection.ask(request(20), idle=WAIT).exception(WAIT) is None:
            return
    raise AssertionError("it did not come back")


@pytest.mark.parametrize("curve", [False, True])
@pytest.mark.parametrize("heartbeat", [0.1, 10.0, 60.0, 66.0, 3600.0])
def test_the_heart_is_asked_early_enough(raw, curve, heartbeat):
    """Asking and waiting for the answer take the option 'heartbeat' together, and the other side is told no less."""
    options = Options(curve=curve, heartbeat=heartbeat)
    socket = raw(zmq.DEALER)
    settle(socket, options)
    asks, waits = socket.getsockopt(zmq.HEARTBEAT_IVL), socket.getsockopt(zmq.HEARTBEAT_TIMEOUT)
    assert asks + waits == heartbeat * 1000
    assert 0 < asks < waits
    ttl = socket.getsockopt(zmq.HEARTBEAT_TTL)
    assert ttl == (heartbeat * 1000 if heartbeat < 65 else 0)
    assert ttl < 1 << 16, "libzmq's PING carries 16 bits of it, and reads them as 16 bits of milliseconds"


def test_a_killed_peer_is_noticed_at_once(listener, connect):
    """A process that dies ends what it was asked as unknown, whatever the idle time."""
    connection = connect(listener.stdout.readline().strip())
    future = connection.ask(request(20, "hold"), idle=600)
    assert listener.stdout.readline() == "asked\n"
    listener.kill()
    assert isinstance(future.exception(WAIT), Unanswered)
    assert isinstance(connection.ask(request(20), idle=600).exception(WAIT), Unreachable)


def test_nothing_asked_starts_nothing(transport):
    """A transport that only made connections has started no thread and opened no socket."""
    before = threading.active_count()
    transport(curve=False).connect("zmq+tcp://127.0.0.1:9")
    assert threading.active_count() == before


def open_files():
    """How many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_open_and_close(transport, secret):
    """Connections leave nothing behind: file descriptors do not grow with their number."""
    echo = Echo()
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    asking = transport()

    def use():
        connection = asking.connect(url)
        connection.ask(request(20), idle=WAIT).result(WAIT)
        connection.close()

    for _ in range(10):
        use()
    before = open_files()
    for _ in range(40):
        use()
    keeper = asking.connect(url)
    for _ in range(500):  # ZeroMQ reaps in a thread of its own
        if open_files() <= before + 20:
            break
        keeper.ask(request(20), idle=WAIT).result(WAIT)
    assert open_files() <= before + 20
