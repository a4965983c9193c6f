"""The EventSource of browsers, as Node.js has it, on the stream of a channel."""

import json
import subprocess

import pytest
from support import clients
from support.nodes import PATIENCE, free_port

pytestmark = pytest.mark.e2e


def listening(door, count):
    """A program that takes so many messages from a stream."""
    node = clients.node("eventsource")
    command = [node, str(clients.NPM / "eventsource.js"), door.url, "orders", str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(program):
    """What it has shown; it ends by itself."""
    try:
        out, err = program.communicate(timeout=2 * PATIENCE)
    finally:
        program.kill()
        program.wait()
    assert program.returncode == 0, err
    return json.loads(out)


def send(door, *texts):
    for text in texts:
        assert door.ask("POST", "/channels/orders/messages", data=text.encode()).status_code == 201


def test_eventsource_takes_what_is_there_and_what_comes(door):
    """In order, each with its id; each is settled by its handle, which makes room for the next."""
    send(door, "one", "zwei ä", "three")
    program = listening(door, 5)
    assert program.stderr.readline() == b"open\n"
    send(door, "four", "five")
    got = ended(program)
    assert [text for text, _, _ in got] == ["one", "zwei ä", "three", "four", "five"]
    assert {(same, status) for _, same, status in got} == {(True, 204)}
    assert door.counts("orders")["ready"] == door.counts("orders")["leased"] == 0


def test_eventsource_comes_back_after_the_gateway_was_killed(make_door):
    """The client connects again by itself, as browsers do, and nothing is lost; what it had acknowledged stays so."""
    door = make_door({"listen": f"http://127.0.0.1:{free_port()}"}).start()
    program = listening(door, 3)
    assert program.stderr.readline() == b"open\n"
    send(door, "before")
    assert program.stderr.readline() == b"settled\n"
    door.kill()
    door.start()
    send(door, "after", "and again")
    got = ended(program)
    assert [text for text, _, _ in got] == ["before", "after", "and again"]
