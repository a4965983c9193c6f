"""Real nodes whose gateway speaks STOMP, and a client that shows every frame."""

import contextlib
import secrets
import socket
from urllib.parse import urlsplit

import pytest
from dropr_gateway_stomp.frames import Beat, FrameReader, Version, encode
from support.nodes import PATIENCE, Road


class Client:
    """One connection; frames out, frames in."""

    def __init__(self, url, version="1.2", connect=True, **headers):
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), PATIENCE)
        self.version = Version(version)
        self._reader = FrameReader()
        self._reader.version = self.version
        if connect:
            self.connected = self.ask("CONNECT", accept_version=version, host="test", **headers)
            assert self.connected.command == "CONNECTED", self.connected

    def say(self, command, body=b"", extra=(), **headers):
        named = [(name.replace("_", "-"), str(value)) for name, value in headers.items()]
        if b"\0" in body:
            named.append(("content-length", str(len(body))))
        self.socket.sendall(encode(command, [*named, *dict(extra).items()], body, self.version))

    def hear(self):
        """The next frame; None at the end."""
        while True:
            frame = self._reader.next()
            if frame is Beat.BEAT:
                continue
            if frame is not None:
                return frame
            data = b""
            with contextlib.suppress(ConnectionResetError):
                data = self.socket.recv(65536)
            if not data:
                return None
            self._reader.feed(data)

    def ask(self, command, body=b"", extra=(), **headers):
        self.say(command, body, extra, **headers)
        return self.hear()

    def send(self, destination, body=b"", **headers):
        """Durable when this returns."""
        extra = {name: headers.pop(name) for name in list(headers) if "_" in name}
        answer = self.ask("SEND", body, extra, destination=destination, receipt="stored", **headers)
        assert answer.headers.get("receipt-id") == "stored", answer
        return answer

    def subscribe(self, destination, name="s", **headers):
        answer = self.ask("SUBSCRIBE", destination=destination, id=name, receipt=f"sub-{name}", **headers)
        assert answer.headers.get("receipt-id") == f"sub-{name}", answer

    def silent(self):
        """Nothing has come for us: what is asked now is the next thing to be answered."""
        self.say("BEGIN", transaction="probe", receipt="probe")
        answer = self.hear()
        self.say("ABORT", transaction="probe")
        return answer.command == "RECEIPT" and answer.headers["receipt-id"] == "probe"

    def close(self):
        self.socket.close()


@pytest.fixture
def road(tmp_path):
    """Nodes in processes of their own; whatever was started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


@pytest.fixture
def build(road):
    """Make a node whose gateway runs, with options of the gateway and of the node."""

    def made(name="shop", *, node=None, **options):
        gateway = {"listen": "tcp://127.0.0.1:0", **options}
        (place,) = road.build(name, **{name: {"gateways": {"stomp": gateway}, **(node or {})}})
        place.run("gateway")
        return place

    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A node alone, for all tests of a file: each has queues of its own."""
    road = Road(tmp_path_factory.mktemp("road"))
    (place,) = road.build("shop", shop={"gateways": {"stomp": {"listen": "tcp://127.0.0.1:0"}}})
    place.run("gateway")
    yield place
    road.close()


@pytest.fixture
def q():
    """The name of a queue that no other test uses."""
    return f"q-{secrets.token_hex(4)}"


@pytest.fixture
def client(request):
    """A function that connects to the gateway of `place`, or of another; all are closed after the test."""
    with contextlib.ExitStack() as stack:

        def connect(at=None, **headers):
            made = Client((at or request.getfixturevalue("place")).doors()["stomp"][0], **headers)
            stack.callback(made.close)
            return made

        yield connect
