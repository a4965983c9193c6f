"""Several processes send into one store, and are killed again and again, each in the middle of a send.

What one of them stores for others, and what it leaves behind, is found by whoever goes on: what was acknowledged is
there, once, and nobody else's `send` fails for it.
"""

import random
import subprocess
import sys
import time

import pytest

import dropr_core as dropr
from dropr_core.contracts.storage import Selection

SENDERS, KILLS = 5, 25
PATIENCE = 120.0
LINE = 33
"""Bytes that a sender writes for each message it was told is stored."""
YAML = """
node: shop
data: ./data
storage: {storage}
peers: {{ware: {{url: "http://127.0.0.1:9", key: "{key}"}}}}
channels: {{orders: {{to: ware}}}}
limits: {{min_free: 0}}
"""
SENDER = """
import os, sys
import dropr_core as dropr
with dropr.open(sys.argv[1]) as node:
    told = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        os.write(told, (node.send(b"x", channel="orders").id.replace("-", "") + "\\n").encode())
"""


class Senders:
    """The processes, and what each was told."""

    def __init__(self, directory, storage):
        self.file, self._directory = directory / "shop.yaml", directory
        self.file.write_text(YAML.format(storage=storage, key="k" * 40))
        self.file.chmod(0o600)
        self.running, self.complaints, self._count = [], [], 0

    def start(self):
        told = self._directory / f"told-{self._count}"
        self._count += 1
        words = [sys.executable, "-c", SENDER, str(self.file), str(told)]
        self.running.append((subprocess.Popen(words, stderr=subprocess.PIPE, text=True), told))

    def lets_send(self, number, count):
        """Return once one of them was told of so many more."""
        process, told = self.running[number]
        ends, wanted = time.monotonic() + PATIENCE, self._size(told) + count * LINE
        while self._size(told) < wanted:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < ends, "it sends no more"
            time.sleep(0.001)

    def kill(self, number):
        process, _ = self.running.pop(number)
        process.kill()
        self.complaints.append(process.communicate()[1])

    def told(self):
        return [line for file in self._directory.glob("told-*") for line in file.read_text().splitlines()]

    @staticmethod
    def _size(file):
        return file.stat().st_size if file.exists() else 0


@pytest.mark.parametrize("storage", ["sqlite", "fs"])
def test_senders_that_are_killed_lose_and_double_nothing(tmp_path, storage):
    """All that any of them was told is stored is there, once; nobody was told of an error."""
    senders, chance = Senders(tmp_path, storage), random.Random(7)
    try:
        for _ in range(SENDERS):
            senders.start()
        for _ in range(KILLS):
            number = chance.randrange(SENDERS)
            senders.lets_send(number, chance.randrange(1, 60))
            senders.kill(number)
            senders.start()
    finally:
        while senders.running:
            senders.kill(0)
    with dropr.open(senders.file) as node:
        there = [bytes(one.id).hex() for one in node.runtime.outbox.all(Selection())]
    told = senders.told()
    assert set(told) <= set(there)
    assert len(set(there)) == len(there)
    assert len(told) > KILLS
    assert not any(senders.complaints), "".join(senders.complaints)
