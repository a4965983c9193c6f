"""Damaged ZeroMQ traffic against real processes: nobody who reaches a port ends the process behind it."""

import contextlib
import select
import socket
import struct
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest
import zmq
from dropr_transport_zmq import engine
from dropr_transport_zmq.frames import Kind, pack
from dropr_transport_zmq.handshakes import Handshakes

from dropr_core.errors import Unanswered
from dropr_core.testing.echo import Echo, request

WAIT = 30.0
HEARTBEAT = 0.9
BEATS = 5
"""Heartbeats after which a process that can die of one has died."""

BAD_FRAMES = {
    "plain text where CURVE belongs": b"\x00\x05hello",
    "a command where CURVE belongs": b"\x04\x05hello",
    "a message that nobody encrypted": b"\x00\x40\x07MESSAGE" + b"\xff" * 56,
    "a flag that is none": b"\xff" * 40,
}

PROCESS = """
import logging, sys
from dropr_transport_zmq import Options, make
from dropr_core.testing.echo import Echo, request
transport = make(Options(curve=True, heartbeat=float(sys.argv[3]), key=sys.argv[2]), logging.getLogger("process"))
if sys.argv[1] == "listen":
    print(transport.listen("zmq+tcp://127.0.0.1:0", Echo()).url, flush=True)
for url in sys.stdin:
    error = transport.connect(url.strip()).ask(request(20, "hold"), idle=600).exception(60)
    print(type(error).__name__, flush=True)
"""


@pytest.fixture
def start(secret):
    """A function that starts a process which listens or asks over CURVE."""
    running = []

    def start(role):
        running.append(subprocess.Popen([sys.executable, "-c", PROCESS, role, secret, str(HEARTBEAT)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE))  # fmt: skip
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


class Road:
    """Carries bytes between callers and a port; counts what the port says; adds a bad frame and cuts, when told."""

    def __init__(self, port):
        self._door = socket.create_server(("127.0.0.1", 0))
        self._port = port
        self.where = self._door.getsockname()[1]
        self._ends = []
        self._told = threading.Condition()
        self._heard = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        try:
            self._near, _ = self._door.accept()
            self._far = socket.create_connection(("127.0.0.1", self._port))
            self._ends = [self._near, self._far]
            while True:
                for end in select.select(self._ends, [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    (self._near if end is self._far else self._far).sendall(data)
                    with self._told:
                        self._heard += end is self._far
                        self._told.notify_all()
        except (OSError, ValueError):
            pass
        finally:
            with self._told:
                self._heard = -1
                self._told.notify_all()

    def hears(self, times):
        """Whether the port says something so many times more."""
        with self._told:
            upto = self._heard + times
            return self._told.wait_for(lambda: self._heard < 0 or self._heard >= upto, WAIT) and self._heard >= upto

    def damage(self, frame, *, towards):
        """Add a bad frame towards the ``far`` (the port) or the ``near`` (the caller), then reset both."""
        assert self.hears(1)  # libzmq only errs when its last event is some milliseconds old
        (self._far if towards == "far" else self._near).sendall(frame)
        # A reset would overtake what was not read yet; who reads such a frame should hang up. Who does not, dies of the
        # next heartbeat after the reset, and only if that comes before the time-out of the one before.
        with self._told:
            self._told.wait_for(lambda: self._heard < 0, HEARTBEAT / 6)
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):  # it is gone already
                end.shutdown(socket.SHUT_RD)
        self.close()

    def close(self):
        self._door.close()
        for end in self._ends:
            end.close()


@pytest.fixture
def road():
    """A function that lays a road to a port."""
    roads = []

    def lay(url):
        roads.append(Road(urlsplit(url).port))
        return roads[-1], url.replace(str(urlsplit(url).port), str(roads[-1].where))

    yield lay
    for one in roads:
        one.close()


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_bad_frame_and_a_reset_do_not_end_the_listener(start, road, raw, transport, frame):
    """A stranger with a key of its own, one invalid frame, a reset: the process lives through the next heartbeats."""
    process = start("listen")
    url = process.stdout.readline().strip()
    beats, honest = road(url)
    assert transport(heartbeat=HEARTBEAT).connect(honest).ask(request(20), idle=WAIT).result(WAIT) == request(20)
    way, where = road(url)
    stranger = raw(zmq.DEALER, server=url.partition("?curve=")[2])
    stranger.connect(where.removeprefix("zmq+").partition("?")[0])
    stranger.send_multipart([pack(Kind.ASK, 1, 20), request(20)])
    stranger.recv_multipart()
    way.damage(frame, towards="far")
    assert beats.hears(BEATS), f"the process is gone: {process.wait(WAIT)}"
    assert transport().connect(url).ask(request(20), idle=WAIT).result(WAIT) == request(20)


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_bad_frame_and_a_reset_do_not_end_the_asker(start, road, transport, echo, secret, frame):
    """A road that damages what a listener says ends what was asked as unknown, and not the process that asked."""
    url = transport(key=secret, heartbeat=HEARTBEAT).listen("zmq+tcp://127.0.0.1:0", echo).url
    process = start("ask")
    beats, steady = road(url)
    way, where = road(url)
    for one in (where, steady):
        process.stdin.write(one + "\n")
        process.stdin.flush()
        assert echo.asked.acquire(timeout=WAIT)
        if one is where:
            way.damage(frame, towards="near")
            assert process.stdout.readline().strip() == Unanswered.__name__
    assert beats.hears(BEATS), f"the process is gone: {process.wait(WAIT)}"


def test_the_event_that_libzmq_cannot_tell_safely_is_never_asked_for():
    """Nothing in this transport monitors HANDSHAKE_FAILED_PROTOCOL, which ends the process (see engine.EVENTS)."""
    assert not engine.EVENTS & zmq.Event.HANDSHAKE_FAILED_PROTOCOL


def test_failed_handshakes_are_counted_without_that_event(transport, secret, caplog):
    """Whoever comes with a wrong key is said in the log once the time for a handshake is over; who succeeds is not."""
    url = transport(key=secret, connect=0.5).listen("zmq+tcp://127.0.0.1:0", Echo()).url
    for _ in range(3):
        assert transport().connect(url).ask(request(20), idle=WAIT).result(WAIT) == request(20)
    with socket.create_connection(("127.0.0.1", urlsplit(url).port)) as line:
        line.sendall(b"GET / HTTP/1.1\r\n\r\n")
        for _ in range(500):
            if "failed the handshake (1 so far)" in caplog.text:
                return
            assert transport().connect(url).ask(request(20), idle=WAIT).result(WAIT) == request(20)
    raise AssertionError(caplog.text)


def test_each_handshake_ends_as_a_success_or_a_failure():
    """Counted by time: what began and was not matched by a success within the patience has failed."""
    shakes = Handshakes(5.0)
    assert shakes.due is None
    assert [shakes.begun(now) for now in (0.0, 1.0, 2.0)] == [5.0] * 3
    shakes.succeeded()
    assert shakes.look(4.5) == 0
    assert (shakes.look(5.0), shakes.due) == (1, 6.0)
    assert (shakes.look(9.0), shakes.due) == (2, None)
