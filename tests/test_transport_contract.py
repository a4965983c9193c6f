"""The transport contract, held by both transports that come with dropr."""

import logging

import pytest
from dropr_transport_curl import CurlTransport, Options

from dropr_core.builtin import loopback
from dropr_core.testing.transport_contract import TransportCase, TransportContract


class TestLoopback(TransportContract):
    @pytest.fixture
    def transport_case(self):
        hub = loopback.Hub()
        return TransportCase(
            make=lambda: loopback.LoopbackTransport(hub), listen="loopback://0", nobody="loopback://nobody"
        )


class TestCurl(TransportContract):
    @pytest.fixture
    def transport_case(self):
        return TransportCase(
            make=lambda: CurlTransport(Options(), logging.getLogger("test.curl")),
            listen="http://127.0.0.1:0/dropr",
            nobody="http://127.0.0.1:9/dropr",
        )
