"""Large bodies at the door: never in memory, never half, and named where they lie."""

import json
import shutil
import socket
import subprocess

import pytest
from http_callers import receive, send

pytestmark = pytest.mark.e2e


def test_a_large_body_is_never_in_memory(door, tmp_path):
    """Two hundred megabytes in and out through curl: the process grows by less than 64 MiB at its highest."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    size = 200 << 20
    movie = tmp_path / "movie"
    with movie.open("wb") as file:
        piece = bytes(range(256)) * 4096
        for number in range(size >> 20):
            file.write(number.to_bytes(8, "big") + piece[8:])
    send(door, b"warm")
    door.ask("DELETE", "/channels/orders/messages")
    idle = peak_of(door.pid)
    url = f"{door.url}/channels/movies/messages"
    put = ["curl", "-sS", "--fail", "-X", "POST", "-T", str(movie), "-H", "Content-Type: video/x-matroska", url]
    sent = json.loads(subprocess.run(put, check=True, capture_output=True, timeout=120).stdout)
    got, head = tmp_path / "got", tmp_path / "head"
    take = ["curl", "-sS", "--fail", "-D", str(head), "-o", str(got), f"{url}?wait=30"]
    subprocess.run(take, check=True, capture_output=True, timeout=120)
    assert subprocess.run(["cmp", str(movie), str(got)], check=False).returncode == 0
    assert sent["id"] in head.read_text()
    assert peak_of(door.pid) - idle < 64 << 20


def peak_of(pid: int) -> int:
    """The most memory that a process ever had, bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:  # noqa: PTH123
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def test_a_torn_upload_stores_nothing(door):
    """A caller that dies in the middle of a large body leaves no message and no file."""
    host, port = door.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(b"POST /channels/orders/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n")
        line.sendall(bytes(3 << 20))
    assert send(door, b"whole").status_code == 201
    assert receive(door).content == b"whole"
    assert receive(door, query="").status_code == 204


def test_a_large_message_in_json_names_its_place(door):
    """Its body is left out, and fetched by the handle."""
    body = bytes(300_000)
    send(door, body)
    (got,) = receive(door, query="wait=30&as=json").json()["messages"]
    assert (got["size"], "text" in got, "base64" in got) == (300_000, False, False)
    assert door.ask("GET", f"/leases/{got['handle']}/body").content == body
    assert door.ask("POST", f"/leases/{got['handle']}/ack").status_code == 204
