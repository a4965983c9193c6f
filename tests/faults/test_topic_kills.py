"""A process that copies what is published is killed again and again: no copy is lost, none is doubled."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dropr_core.api.node import Node

PATIENCE = 120.0
YAML = """
node: shop
data: ./data
storage: {storage}
topics: {{prices: {{}}}}
limits: {{min_free: 0}}
"""


@pytest.fixture(params=["sqlite", "fs"])
def file(request, tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(YAML.format(storage=request.param))
    return path


def worker(file):
    return subprocess.Popen(
        [sys.executable, "-m", "dropr_core", "worker", "-c", str(file)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def test_kills_lose_and_double_no_copy(file):
    """Whatever the worker was doing: each subscription has each message once, and its subscriber may be faster."""
    got = {"one": [], "two": []}
    with Node.open(file) as node:
        channels = {name: node.subscribe("prices", name) for name in got}
        want = []
        for round_number in range(4):
            mine = [b"%d.%d" % (round_number, number) for number in range(40)]
            want += mine
            for body in mine:
                node.publish("prices", body)
            process = worker(file)
            try:
                last = round_number == 3
                ends = time.monotonic() + PATIENCE
                need = len(want) if last else 40 * round_number + 1 + 7 * round_number
                while len(got["one"]) < need or (last and len(got["two"]) < need):
                    assert time.monotonic() < ends, {name: len(bodies) for name, bodies in got.items()}
                    assert process.poll() is None
                    for name, channel in channels.items():
                        got[name] += [one.body for one in node.receive(channel, wait=0.05)]
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(PATIENCE)
        for name, channel in channels.items():
            got[name] += [one.body for one in node.receive(channel, wait=0)]
    for name, bodies in got.items():
        assert sorted(bodies) == sorted(want), name
