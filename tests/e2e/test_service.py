"""The unit that `dropr install` writes, started as systemd would start it."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys

import pytest
from support.nodes import PATIENCE, Road

pytestmark = pytest.mark.e2e


def test_the_written_unit_starts_a_node_that_is_ready_and_stops(tmp_path):
    """Run with a manager that listens, its line brings READY=1 and signs of life, reloads, and ends with 0."""
    road = Road(tmp_path)
    (shop, _) = road.build("shop", "warehouse")
    command = [sys.executable, "-m", "dropr_core", "install", "--user", "--print", "-c", str(shop.file)]
    unit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    found = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    address = f"@dropr-service-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line, (tmp_path / "log").open("wb") as log:
        line.bind("\0" + address[1:])
        line.settimeout(PATIENCE)

        def hear(start):
            while not (text := line.recv(4096).decode()).startswith(start):
                pass
            return text

        node = subprocess.Popen(
            shlex.split(found["ExecStart"]), cwd=found["WorkingDirectory"], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "PATH": os.defpath},
        )  # fmt: skip
        try:
            hear("READY=1")
            hear("WATCHDOG=1")
            reload = found["ExecReload"].replace("$MAINPID", str(node.pid)).split()
            subprocess.run([re.sub(r"^/bin/", "", reload[0]), *reload[1:]], check=True, timeout=PATIENCE)
            hear("RELOADING=1")
            hear("READY=1")
        finally:
            node.send_signal(signal.SIGTERM)
            code = node.wait(PATIENCE)
    assert code == 0, (tmp_path / "log").read_text()
