"""Transports that are closed after the test, echoes, raw ZeroMQ peers that misbehave, and raw sockets."""

import logging
import sys
import threading
from pathlib import Path

import pytest
import zmq
from dropr_transport_zmq import Options, make
from dropr_transport_zmq.keys import new_secret, public_to_z85, secret_to_z85

from dropr_core.testing.echo import Echo

sys.path.insert(0, str(Path(__file__).parent))  # zmq_peer

LOG = logging.getLogger("test.zmq")


@pytest.fixture
def secret():
    """The secret key of the listener."""
    return new_secret()


@pytest.fixture
def transport():
    """A function that makes a transport from options."""
    opened = []

    def start(**options):
        opened.append(make(Options(**options), LOG))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def echo():
    """An answerer; whatever it holds is let go in the end."""
    echo = Echo()
    yield echo
    echo.let_go()


@pytest.fixture
def raw():
    """A function that makes a bare ZeroMQ socket, closed after the test."""
    context = zmq.Context()
    opened = []

    def start(kind, *, server=None, secret=None):
        socket = context.socket(kind)
        opened.append(socket)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 20_000)
        if server:
            mine = secret_to_z85(secret or new_secret())
            socket.setsockopt(zmq.CURVE_SERVERKEY, public_to_z85(server))
            socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(mine))
            socket.setsockopt(zmq.CURVE_SECRETKEY, mine)
        return socket

    yield start
    for socket in opened:
        socket.close()
    # libzmq was seen once to wait here for ever, with every socket closed and nothing to linger for. What is tested is
    # the transport, which has a context of its own: the run goes on.
    end = threading.Thread(target=context.term, name="dropr-test-zmq-term", daemon=True)
    end.start()
    end.join(20)


@pytest.fixture
def peer(raw):
    """A bare ROUTER in plain text that answers by hand."""
    router = raw(zmq.ROUTER)
    router.setsockopt(zmq.RCVHWM, 16)
    router.bind("tcp://127.0.0.1:0")
    return router


@pytest.fixture
def connect(transport):
    def connect(url, **options):
        return transport(curve=False, **options).connect(url)

    return connect
