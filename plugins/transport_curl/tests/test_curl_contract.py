"""The transport `curl` keeps the contract of transports."""

import logging

import pytest
from dropr_transport_curl import CurlTransport, Options

from dropr_core.testing import TransportCase, TransportContract


class TestCurl(TransportContract):
    """The suite for the transport `curl`."""

    @pytest.fixture
    def transport_case(self):
        return TransportCase(
            make=lambda: CurlTransport(Options(), logging.getLogger("test.curl")),
            listen="http://127.0.0.1:0/dropr",
            nobody="http://127.0.0.1:9/dropr",
        )
