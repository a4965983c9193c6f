"""Schedules with real processes: a daemon that is killed again and again, and a webhook that is called by the clock."""

import http.server
import json
import subprocess
import sys
import threading

import pytest
from support.nodes import Road, eventually

from dropr_core.contracts.storage import Selection
from dropr_core.model.names import due_of_run
from dropr_core.schedules.state import StateFile
from dropr_core.system.shared_document import FileDocuments

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


def happened(node):
    """The due times of what waits here, in seconds."""
    return sorted(due_of_run(one.id) // 1000 for one in node.inbox.all(Selection(channel="ticks")))


def test_a_daemon_killed_again_and_again_neither_loses_nor_doubles_a_due_time(road):
    """With `missed: all` every second from the first to the last happens once, here and at a peer."""
    shop, _ware = road.build("shop", "ware")
    options = ("--every", "1s", "--text", "tick", "--missed", "all", "-c", str(shop.file))
    for name, way in {"here": ["--channel", "ticks"], "there": ["--channel", "far", "--to", "ware"]}.items():
        subprocess.run(
            [sys.executable, "-m", "dropr_core", "schedule", "add", name, *way, *options],
            check=True,
            capture_output=True,
        )
    daemon = shop.run("daemon")
    with shop.opened() as node:
        for _ in range(4):
            before = len(happened(node))
            eventually(lambda before=before: len(happened(node)) > before + 1, what="it goes on")
            daemon.kill()
            daemon.start()
        before = len(happened(node))
        eventually(lambda: len(happened(node)) > before, what="it goes on")
        daemon.stop()
        here, there = happened(node), sorted(due_of_run(one.id) // 1000 for one in node.outbox.all(Selection()))
    assert here == list(range(here[0], here[-1] + 1))
    assert there == list(range(there[0], there[-1] + 1))


@pytest.mark.parametrize("added", [False, True])
def test_a_webhook_is_called_at_its_time_and_its_answer_is_kept(road, added):
    """In the file or added: by the worker, with the value as JSON; `dropr schedule show` has what the server said."""
    calls = []

    class Site(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            calls.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(b"rows: 7")

        def log_message(self, *_arguments):
            """Nothing."""

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        (shop,) = road.build("shop")
        address = f"http://127.0.0.1:{site.server_port}/"
        if added:
            more = ("--every", "1s", "--webhook", address, "--value", '{"a": 1}', "-c", str(shop.file))
            subprocess.run(
                [sys.executable, "-m", "dropr_core", "schedule", "add", "ping", *more], check=True, capture_output=True
            )
        else:
            shop.write(schedules={"ping": {"every": "1s", "webhook": address, "value": {"a": 1}}})
        shop.run("daemon")
        shop.run("worker")
        file = StateFile(FileDocuments(shop.data), "ping")
        eventually(lambda: any(run.state == "processed" for run in file.look().runs), what="an answer is kept")
        shown = subprocess.run(
            [sys.executable, "-m", "dropr_core", "schedule", "show", "ping", "--json", "-c", str(shop.file)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    finally:
        site.shutdown()
        site.server_close()
    assert json.loads(calls[0]) == {"a": 1}
    assert "rows: 7" in [one["result"] for one in json.loads(shown)["runs"]]
