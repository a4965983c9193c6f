"""The node contract over every pair of a bundled storage and a bundled transport."""

import logging

import pytest

from dropr_core.builtin import loopback
from dropr_core.builtin.memory import MemoryStorage
from dropr_core.plugin.registry import create
from dropr_core.testing import NodeCase, NodeContract
from dropr_core.testing.builders import make_context

STORAGES = ["memory", "sqlite", "fs"]


def storage(name):
    """Opens a storage by its name."""
    return lambda context: create("storage", name, {}, context)


class TestLoopback(NodeContract):
    @pytest.fixture(params=STORAGES)
    def node_case(self, request):
        hub = loopback.Hub()
        make = MemoryStorage if request.param == "memory" else storage(request.param)
        return NodeCase(make, lambda: loopback.LoopbackTransport(hub), "loopback://0", between_processes=False)


class TestCurl(NodeContract):
    @pytest.fixture(params=STORAGES)
    def node_case(self, request, tmp_path):
        from dropr_transport_curl import CurlTransport, Options

        return NodeCase(
            storage(request.param), lambda: CurlTransport(Options(), logging.getLogger("test.curl")),
            "http://127.0.0.1:0/dropr",
        )  # fmt: skip


class TestZmq(NodeContract):
    @pytest.fixture(params=["zmq+tcp://127.0.0.1:0", "zmq+ipc://{}/s"])
    def node_case(self, request, tmp_path):
        pytest.importorskip("dropr_transport_zmq")
        return NodeCase(
            storage("sqlite"),
            lambda: create("transport", "zmq", {"curve": False}, make_context(tmp_path, None)),
            request.param.format(tmp_path),
        )
