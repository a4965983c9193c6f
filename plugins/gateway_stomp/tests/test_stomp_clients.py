"""Real clients of STOMP, in four languages' libraries, send to a node and take from it."""

import json
import queue
from urllib.parse import urlsplit

import pytest
from support import clients

pytestmark = pytest.mark.e2e

PERL = """
use strict; use Net::Stomp;
my ($port, $queue, @bodies) = @ARGV;
my $stomp = Net::Stomp->new({hostname => '127.0.0.1', port => $port});
my $hello = $stomp->connect({login => '', passcode => ''});
die $hello->as_string unless $hello->command eq 'CONNECTED';
$stomp->send_with_receipt({destination => $queue, body => $_, timeout => 30}) or die 'no receipt' for @bodies;
$stomp->subscribe({destination => $queue, ack => 'client', 'activemq.prefetchSize' => 1});
for (@bodies) {
    my $frame = $stomp->receive_frame({timeout => 30}) or die 'nothing came';
    print $frame->body, "\\n";
    $stomp->ack({frame => $frame});
}
$stomp->disconnect;
"""
BODIES = ["one", "two: a\\b", "three ä"]


def port_of(place):
    return str(urlsplit(place.doors()["stomp"][0]).port)


def nothing_left(place, client, q):
    """All of it was acknowledged."""
    one = client()
    one.subscribe(f"/queue/{q}", "left")
    assert one.silent()


def test_perls_net_stomp(place, client, q):
    """STOMP 1.0, as Perl programs have spoken it to ActiveMQ for fifteen years."""
    perl = clients.perl("Net::Stomp", "libnet-stomp-perl")
    out = clients.run(perl, "-e", PERL, port_of(place), f"/queue/{q}", *BODIES)
    assert out.decode().splitlines() == BODIES
    nothing_left(place, client, q)


def test_stompit(place, client, q):
    """A streaming client of Node.js, with heart-beats."""
    node = clients.node("stompit")
    out = clients.run(node, clients.NPM / "stompit.js", port_of(place), f"/queue/{q}", *BODIES)
    assert json.loads(out) == BODIES
    nothing_left(place, client, q)


def test_stompjs_over_websocket(place, client, q):
    """The client of browsers, at the address of plain STOMP."""
    node = clients.node("@stomp/stompjs")
    url = f"ws://127.0.0.1:{port_of(place)}/stomp"
    out = clients.run(node, clients.NPM / "stomp_ws.js", url, f"/queue/{q}", *BODIES)
    assert json.loads(out) == ["1.2", [[body, "red"] for body in BODIES]]
    nothing_left(place, client, q)


def test_a_web_page_may_not_connect_unless_it_is_named(build):
    """Without passcodes a page in somebody's browser could put messages into this machine's queues."""
    place = build(origins=["https://shop.example"])
    for origin, status in (("https://evil.example", b"403"), ("https://shop.example", b"101")):
        parts = urlsplit(place.doors()["stomp"][0])
        with clients.socket.create_connection((parts.hostname, parts.port), 30) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                          b"Origin: " + origin.encode() + b"\r\n\r\n")  # fmt: skip
            assert plain.recv(4096).split()[1] == status


@pytest.mark.parametrize("version", [10, 11, 12])
def test_stomp_py(place, client, q, version):
    """Python's client in each version: transaction, acknowledgement, receipt of the disconnect."""
    stomp = clients.module("stomp")
    frames, receipts = queue.Queue(), queue.Queue()

    class Listener(stomp.ConnectionListener):
        def on_message(self, frame):
            frames.put(frame)

        def on_receipt(self, frame):
            receipts.put(frame.headers["receipt-id"])

    connection = getattr(stomp, f"Connection{version}")([("127.0.0.1", int(port_of(place)))])
    connection.set_listener("", Listener())
    connection.connect("", "", wait=True)
    transaction = connection.begin()
    for body in BODIES:
        connection.send(f"/queue/{q}", body, transaction=transaction)
    connection.commit(transaction, receipt="committed")
    assert receipts.get(timeout=30) == "committed"
    named = {} if version == 10 else {"id": "s"}
    connection.subscribe(f"/queue/{q}", ack="client", **named)
    got = [frames.get(timeout=30) for _ in BODIES]
    assert [frame.body for frame in got] == BODIES
    last = got[-1].headers
    if version == 12:
        connection.ack(last["ack"], receipt="acked")
    elif version == 11:
        connection.ack(last["message-id"], "s", receipt="acked")
    else:
        connection.ack(last["message-id"], receipt="acked")
    assert receipts.get(timeout=30) == "acked"
    connection.disconnect(receipt="bye")
    assert receipts.get(timeout=30) == "bye"
    nothing_left(place, client, q)
