"""The transport `loopback` keeps the contract of transports."""

import pytest

from dropr_core.builtin import loopback
from dropr_core.testing import TransportCase, TransportContract


class TestLoopback(TransportContract):
    """The suite for the transport `loopback`."""

    @pytest.fixture
    def transport_case(self):
        hub = loopback.Hub()
        return TransportCase(
            make=lambda: loopback.LoopbackTransport(hub), listen="loopback://0", nobody="loopback://nobody"
        )
