"""Where the monitor listens, and that it hurts nobody."""

import contextlib
import http.client
import logging
import socket
import sys

import pytest
from support.monitor import TOKEN
from support.nodes import free_port

from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.errors import PluginError, Unreachable
from dropr_core.monitor.host import MonitorHost, rehearse_monitor

LOG = logging.getLogger("dropr.test.monitor")


def config(tmp_path, *listen, **more):
    """A node in memory with a page."""
    monitor = {"listen": list(listen), "token": TOKEN}
    return from_mapping(
        {"node": "shop", "data": str(tmp_path / "data"), "storage": "memory", "monitor": monitor, **more}, tmp_path
    )


def status(connection):
    """Of one answer to a request for what is not there."""
    with contextlib.closing(connection):
        connection.request("GET", "/nowhere", headers={"Authorization": f"Bearer {TOKEN}"})
        return connection.getresponse().status


def test_it_listens_at_several_addresses(tmp_path):
    """Ports and socket files; the latter are for their owner alone, and gone after the end."""
    path = tmp_path / "page.sock"
    with Runtime.open(config(tmp_path, "http://127.0.0.1:0", f"unix://{path}")) as runtime:
        host = MonitorHost(runtime, LOG)
        host.open()
        try:
            assert status(http.client.HTTPConnection(host.urls[0].partition("://")[2], timeout=30)) == 404
            connection = http.client.HTTPConnection("anything", timeout=30)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(path))
            assert status(connection) == 404
            assert path.stat().st_mode & 0o777 == 0o600
        finally:
            host.close()
        assert not path.exists()
        host.close()


def test_a_port_that_is_taken_is_said_and_nothing_stays_open(tmp_path):
    """Not the addresses before it either."""
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Runtime.open(config(tmp_path, f"http://127.0.0.1:{free}", place)) as runtime:
            host = MonitorHost(runtime, LOG)
            with pytest.raises(Unreachable, match="cannot listen on"):
                host.open()
            with socket.create_server(("127.0.0.1", free)):
                pass


def test_without_its_libraries_it_says_what_to_install(tmp_path, monkeypatch):
    """When it would listen, and before, in `dropr check`."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "dropr_core.system.web", raising=False)
    with Runtime.open(config(tmp_path, "http://127.0.0.1:0")) as runtime:
        with pytest.raises(PluginError, match=r"pip install 'dropr-core\[web\]'"):
            MonitorHost(runtime, LOG).open()
        assert "dropr-core[web]" in rehearse_monitor(runtime.config)[0]


def test_check_names_a_certificate_that_is_not_there(tmp_path):
    """As it does for gateways."""
    problems = rehearse_monitor(config(tmp_path, "https://127.0.0.1:1?cert=no.pem&key=no.key"))
    assert len(problems) == 1
    assert problems[0].startswith("monitor.listen.0: cannot listen on https://127.0.0.1:1")
