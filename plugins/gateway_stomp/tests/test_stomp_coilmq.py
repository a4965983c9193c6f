"""The same frames to CoilMQ, the STOMP broker that pip installs, and to this door: what comes back is compared."""

import socket
import sys
from types import SimpleNamespace

from support import clients

FREE = {
    "ack", "content-length", "content-type", "expires", "heart-beat", "JMSXDeliveryCount", "message", "message-id",
    "persistent", "priority", "server", "session", "timestamp",
}  # fmt: skip
"""Headers that a server words or adds as it likes."""
DIFFERENT = {
    "message": "CoilMQ hands the sender's receipt header to the receiver",
    "message 1.0": "the same",
    "message 1.1": "the same",
    "unsubscribed": "CoilMQ wants a destination here, the specification only the id",
    "connected 1.0": "CoilMQ does not name the version 1.0",
    "unknown command": "CoilMQ hangs up without a word, this door says ERROR first",
}
"""Step → why the answers differ, and may."""


def test_the_transcript_is_that_of_coilmq(place, client, tmp_path):
    """Frame for frame, but for the steps that DIFFERENT names, and at each of these there is a difference."""
    clients.module("coilmq")
    coilmq = [sys.executable, "-m", "coilmq.start", "--host", "127.0.0.1", "--port", "{port}"]
    with clients.server(coilmq, tmp_path / "coilmq.log") as port:
        original = SimpleNamespace(doors=lambda: {"stomp": [f"tcp://127.0.0.1:{port}"]})
        theirs = transcript(lambda version: connected(client, original, version))
    ours = transcript(lambda version: connected(client, place, version))
    assert {step for step in ours if ours[step] != theirs[step]} == set(DIFFERENT), (ours, theirs)


def connected(client, at, version):
    """A client, and what it was told. CoilMQ wants the machine's own name for a host."""
    made = client(at, version=version, connect=False)
    return made, made.ask("CONNECT", accept_version=version, host=socket.getfqdn())


def seen(frame):
    """What counts of an answer."""
    if frame is None:
        return "the end"
    headers = {name: value for name, value in frame.headers.items() if name not in FREE}
    return frame.command, headers, b"" if frame.command == "ERROR" else frame.body


def transcript(connect):
    """Step → what came back."""
    steps = {}

    def hear(step, client):
        steps[step] = seen(client.hear())

    one, answer = connect("1.2")
    steps["connected"] = seen(answer)
    one.say("SEND", b"one", destination="/queue/coil-a", receipt="stored", colour="red")
    hear("receipt", one)
    one.say("SUBSCRIBE", destination="/queue/coil-a", id="s1", ack="auto")
    hear("message", one)
    one.say("UNSUBSCRIBE", id="s1", receipt="over")
    hear("unsubscribed", one)
    one.close()

    two, _ = connect("1.2")
    two.say("BEGIN", transaction="t")
    two.say("SEND", b"inside", destination="/queue/coil-b", transaction="t")
    two.say("SUBSCRIBE", destination="/queue/coil-b", id="s2")
    steps["nothing before COMMIT"] = two.silent()
    two.say("COMMIT", transaction="t")
    hear("message of a transaction", two)
    two.say("BEGIN", transaction="t")
    two.say("SEND", b"never", destination="/queue/coil-b", transaction="t")
    two.say("ABORT", transaction="t", receipt="aborted")
    hear("aborted", two)
    steps["nothing after ABORT"] = two.silent()

    three, _ = connect("1.2")
    for client, name in ((two, "t2"), (three, "t3")):
        client.say("SUBSCRIBE", destination="/topic/coil", id=name, receipt=name)
        hear(f"topic {name}", client)
    three.say("SEND", b"to all", destination="/topic/coil")
    hear("one of a topic", two)
    hear("another of a topic", three)
    three.say("DISCONNECT", receipt="bye")
    hear("disconnected", three)
    two.close()
    three.close()

    for version in ("1.0", "1.1"):
        older, answer = connect(version)
        steps[f"connected {version}"] = seen(answer)
        older.say("SEND", b"old", destination=f"/queue/coil-{version}", receipt="stored")
        hear(f"receipt {version}", older)
        older.say("SUBSCRIBE", destination=f"/queue/coil-{version}", id="s")
        hear(f"message {version}", older)
        older.close()

    for step, command, headers in (
        ("no destination", "SEND", {}),
        ("no id", "SUBSCRIBE", {"destination": "/queue/coil-a"}),
        ("no transaction", "COMMIT", {}),
        ("unknown transaction", "COMMIT", {"transaction": "nobody's"}),
        ("unknown command", "WHATEVER", {}),
    ):
        wrong, _ = connect("1.2")
        wrong.say(command, **headers)
        hear(step, wrong)
        wrong.close()
    return steps
