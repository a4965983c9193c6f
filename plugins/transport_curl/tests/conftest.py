"""Raw servers that misbehave on purpose, and TLS certificates made on the spot."""

import logging
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from dropr_transport_curl import CurlTransport, Options, asgi

from dropr_core.testing.transport_contract import Echo

sys.path.insert(0, str(Path(__file__).parent))  # curl_callers


class RawServer:
    """Accepts connections and lets ``script(socket)`` do whatever it wants with each."""

    def __init__(self, script):
        self._script = script
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/dropr"
        self.done = threading.Event()
        self.seen = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        with connection:
            connection.settimeout(30)
            try:
                self._script(connection, self)
            except OSError:
                pass

    def read_request(self, connection):
        """One whole request; returns its bytes."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                raise OSError("closed")
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        length = int(lengths[0]) if lengths else 0
        while len(body) < length:
            body += connection.recv(65536)
        self.seen.append((head, body))
        return body

    def close(self):
        self.done.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(35)


@pytest.fixture
def raw():
    """A function that starts a `RawServer` with a script, or with fixed bytes as the answer to each request."""
    servers = []

    def start(script):
        if isinstance(script, bytes):
            answer = script

            def script(connection, server):
                server.read_request(connection)
                connection.sendall(answer)

        servers.append(RawServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A directory with two authorities (ca, other) and a server's and a client's certificate signed by the first."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("the program openssl, which makes the certificates, is not on this machine")
    place = tmp_path_factory.mktemp("tls")

    def run(*words):
        subprocess.run([openssl, *words], cwd=place, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        run("req", "-x509", *new, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("stranger", "subjectAltName=DNS:stranger.example"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        (place / f"{name}.ext").write_text(extension + "\nbasicConstraints=CA:FALSE\n")
        run("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext")  # fmt: skip
    return place


@pytest.fixture
def _short_goodbyes(monkeypatch):
    monkeypatch.setattr(asgi, "_LINGER", 0.1)


@pytest.fixture
def serve():
    opened = []

    def start(url="http://127.0.0.1:0/dropr", **options):
        transport = CurlTransport(Options(**options), logging.getLogger("test.curl"))
        opened.append(transport)
        echo = Echo()
        return transport.listen(url, echo), echo

    yield start
    for transport in opened:
        transport.close()
