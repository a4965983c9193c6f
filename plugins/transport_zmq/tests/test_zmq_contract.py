"""The transport contract over each way that ZeroMQ offers."""

import logging

import pytest
from dropr_transport_zmq import Options, make
from dropr_transport_zmq.keys import new_secret, public_of

from dropr_core.testing.transport_contract import TransportCase, TransportContract

LOG = logging.getLogger("test.zmq")


class TestCurve(TransportContract):
    @pytest.fixture
    def transport_case(self):
        secret = new_secret()
        return TransportCase(
            make=lambda: make(Options(key=secret), LOG),
            listen="zmq+tcp://127.0.0.1:0",
            nobody=f"zmq+tcp://127.0.0.1:9?curve={public_of(secret)}",
        )


class TestPlain(TransportContract):
    @pytest.fixture
    def transport_case(self):
        return TransportCase(
            make=lambda: make(Options(curve=False), LOG), listen="zmq+tcp://127.0.0.1:0", nobody="zmq+tcp://127.0.0.1:9"
        )


class TestIpc(TransportContract):
    @pytest.fixture
    def transport_case(self, tmp_path):
        return TransportCase(
            make=lambda: make(Options(), LOG), listen="zmq+ipc://*", nobody=f"zmq+ipc://{tmp_path}/nobody"
        )


class TestInproc(TransportContract):
    @pytest.fixture
    def transport_case(self):
        return TransportCase(make=lambda: make(Options(), LOG), listen="zmq+inproc://0", nobody="zmq+inproc://nobody")
