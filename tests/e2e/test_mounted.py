"""A node's answering side inside of somebody else's web application."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support.nodes import eventually, free_port, key_of

import dropr_core as dropr

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.e2e
def test_the_example_application_serves_pages_and_takes_mail(tmp_path):
    """One port for both: a page is answered, a message arrives through the mounted path."""
    port, key = free_port(), key_of("shop", "ware")
    shop, ware = tmp_path / "shop.yaml", tmp_path / "ware.yaml"
    shop.write_text(
        f"node: shop\nlimits: {{min_free: 0}}\npeers: {{ware: {{url: 'http://127.0.0.1:{port}/dropr/', key: {key}}}}}\n"
    )
    ware.write_text(f"node: ware\nlimits: {{min_free: 0}}\npeers: {{shop: {{mode: pull, key: {key}}}}}\n")
    web = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "examples.starlette_app:app", "--port", str(port),
         "--log-level", "warning", "--timeout-graceful-shutdown", "2"],
        cwd=ROOT, env={**os.environ, "DROPR_CONFIG": str(ware)},
    )  # fmt: skip
    daemon = subprocess.Popen([sys.executable, "-m", "dropr_core", "daemon", "-c", str(shop), "-q"])

    def page():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return answer.read()
        except OSError:
            return b""

    try:
        assert eventually(page) == b"the warehouse\n"
        with dropr.open(shop) as node:
            node.send(b"hello", to="ware", channel="orders")
        with dropr.open(ware) as node:
            (received,) = node.receive("orders", limit=1, wait=30)
            assert received.body == b"hello"
    finally:
        for process in (web, daemon):
            process.terminate()
            process.wait(40)
