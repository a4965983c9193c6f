"""The page of a node, served by its real processes."""

import http.client
import json
import socket

import pytest
from click.testing import CliRunner
from support.nodes import Road, eventually

from dropr_core.cli.app import application
from dropr_core.system.exit_codes import Exit

pytestmark = pytest.mark.e2e


def test_the_server_serves_the_page_and_answers_peers_without_it(tmp_path):
    """A port that is taken costs the page alone; `dropr dashboard` shows the link of the page that is there."""
    road = Road(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"http://127.0.0.1:{taken.getsockname()[1]}"
        pages = {"shop": {"monitor": {"listen": "http://127.0.0.1:0"}}, "ware": {"monitor": {"listen": busy}}}
        try:
            shop, ware = road.build("shop", "ware", **pages)
            server = ware.run("server")
            eventually(lambda: "the page cannot be shown, everything else goes on" in server.text)
            shop.run("server")
            shop.run("daemon")
            with shop.opened() as node:
                sent = node.send(b"over", to="ware", channel="orders")
                eventually(lambda: sent.status.state == "accepted")
            running = _status(shop.file)
            assert running["pages"]
            assert running["monitors"] == []  # the server is one process
            shown = eventually(lambda: (r := _dashboard(shop.file)).exit_code == 0 and r)
            (link,) = json.loads(shown.stdout)["links"]
            place, _, token = link.removeprefix("http://").partition("/#token=")
            assert token == (shop.data / "monitor.token").read_text().strip()
            connection = http.client.HTTPConnection(place, timeout=30)
            connection.request("GET", "/nowhere", headers={"Authorization": f"Bearer {token}"})
            assert connection.getresponse().status == 404
            connection.close()
            assert _dashboard(ware.file).exit_code == Exit.FAILED
        finally:
            road.close()


def test_a_process_of_its_own_serves_the_page_and_ends_when_told(tmp_path):
    """It is listed with its number as every process is, says what it does, and SIGTERM ends it well."""
    road = Road(tmp_path)
    try:
        (shop,) = road.build("shop", shop={"listen": [], "monitor": {"listen": "http://127.0.0.1:0"}})
        process = shop.run("monitor")
        (url,) = eventually(lambda: _status(shop.file)["pages"])
        (listed,) = _status(shop.file)["monitors"]
        assert (listed["pid"], listed["name"], listed["urls"]) == (process.pid, "monitor", [url])
        assert process.stop() == Exit.OK
        assert "monitor stopped" in process.text
    finally:
        road.close()


def _status(file):
    shown = CliRunner().invoke(application(), ["status", "--json", "-c", str(file)])
    return json.loads(shown.stdout)["processes"]


def _dashboard(file):
    return CliRunner().invoke(application(), ["dashboard", "--json", "-c", str(file)])
