"""Connections to the gateway: versions, users, heart-beats, garbage, TLS, and a gateway that stops."""

import socket
import ssl
import subprocess
from urllib.parse import urlsplit

import pytest
from support.nodes import eventually

pytestmark = pytest.mark.e2e


def refuses(url):
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), 30).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_every_version(client, version, q):
    """Send, receive and acknowledge as each version does."""
    one = client(version=version)
    assert one.connected.headers["version"] == version
    one.send(f"/queue/{q}", b"x\0y", a="b")
    one.subscribe(f"/queue/{q}", ack="client")
    got = one.hear()
    assert (got.body, got.headers["a"]) == (b"x\0y", "b")
    assert ("ack" in got.headers) is (version == "1.2")
    name = {"id": got.headers["ack"]} if version == "1.2" else {"message-id": got.headers["message-id"]}
    if version == "1.1":
        name["subscription"] = "s"
    assert one.ask("ACK", b"", name, receipt="a").command == "RECEIPT"
    assert one.ask("DISCONNECT", receipt="bye").headers["receipt-id"] == "bye"
    assert one.hear() is None


def test_only_users_with_their_passcode_are_let_in(build, client):
    """The answer does not say which of the two was wrong, and the log does not show the passcode."""
    place = build(users={"app": "s3cret-word"})
    client(place, login="app", passcode="s3cret-word").send("/queue/q")
    for login, passcode in (("app", "wrong-word"), ("nobody", "s3cret-word"), ("app", "")):
        one = client(place, connect=False)
        answer = one.ask("CONNECT", accept_version="1.2", login=login, passcode=passcode)
        assert (answer.command, answer.headers["message"]) == ("ERROR", "login or passcode is wrong")
        assert one.hear() is None
    [gateway] = place.processes
    assert "wrong-word" not in gateway.text
    assert "s3cret-word" not in gateway.text


def test_heart_beats_are_sent_and_missed(client):
    """The gateway beats as it was asked to; a client that promised beats and is silent is sent away."""
    one = client(heart_beat="1000,1000")
    assert one.connected.headers["heart-beat"] == "1000,1000"
    answer = one.hear()  # beats are skipped; what comes after our silence is the end
    assert "heart-beats" in answer.headers["message"]
    assert one.hear() is None


def test_garbage_is_answered_and_harms_nobody(client, q):
    """What is no STOMP gets an ERROR frame; others do not notice."""
    good = client()
    for data in (b"\x16\x03\x01\x02\x00\x01\0\n\n\0", b"POST / HTTP/1.1\r\n\r\n\0", b"x" * 20_000):
        one = client(connect=False)
        one.socket.sendall(data)
        answer = one.hear()
        assert answer is None or answer.command == "ERROR"
    good.send(f"/queue/{q}")


def test_many_sends_in_one_write_keep_their_order(client, q):
    """Pipelined frames are put together, and their receipts come in order."""
    one = client()
    for number in range(300):
        one.say("SEND", b"%d" % number, destination=f"/queue/{q}", receipt=str(number))
    assert [one.hear().headers["receipt-id"] for _ in range(300)] == [str(number) for number in range(300)]
    one.subscribe(f"/queue/{q}")
    assert [one.hear().body for _ in range(300)] == [b"%d" % number for number in range(300)]


def test_a_gateway_that_stops_says_so_and_takes_its_last_acknowledgements(build, client):
    """Nothing new is delivered, what is acknowledged counts, then the client is sent away to come again."""
    place = build()
    one, url = client(place), place.doors()["stomp"][0]
    one.send("/queue/q", b"1")
    one.subscribe("/queue/q", ack="client", prefetch_count=1)
    got = one.hear()
    one.send("/queue/q", b"2")
    [gateway] = place.processes
    gateway.signal(15)
    eventually(lambda: refuses(url), what="the gateway listens no more")
    assert one.ask("ACK", id=got.headers["ack"], receipt="a").headers["receipt-id"] == "a"
    assert "being stopped" in one.hear().headers["message"]
    assert gateway.wait() == 0
    with place.opened() as node:
        assert [one.body for one in node.receive("q", wait=0)] == [b"2"]


def test_tls(build, client, tmp_path):
    """The same over TLS."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-days", "1", "-subj", "/CN=localhost"], cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    place = build(listen=f"tls://127.0.0.1:0?cert={tmp_path}/cert.pem&key={tmp_path}/key.pem")
    parts = urlsplit(place.doors()["stomp"][0])
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    plain = socket.create_connection((parts.hostname, parts.port), 30)
    with context.wrap_socket(plain, server_hostname="localhost") as secure:
        secure.sendall(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0")
        assert secure.recv(4096).startswith(b"CONNECTED\n")
