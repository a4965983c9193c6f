"""Channels of names that are none any more: what an older version stored can be looked at, taken out and wiped."""

import json

import pytest
from click.testing import CliRunner

import dropr_core as dropr
from dropr_core.cli.app import application
from dropr_core.contracts.storage import Job, NewMessage
from dropr_core.errors import BadName
from dropr_core.model import envelope
from dropr_core.model.message import Message
from dropr_core.model.names import MessageId, format_id
from dropr_core.system.exit_codes import Exit

OLD = ["a//b", "eve/../admin", "/"]


def ident(number):
    """An id that says its number."""
    return MessageId(number.to_bytes(16, "big"))


@pytest.fixture(params=["sqlite", "fs"])
def file(request, tmp_path):
    """A node whose store holds such channels in both halves, written past every check."""
    path = tmp_path / "node.yaml"
    peers = {"ware": {"mode": "pull"}}
    path.write_text(json.dumps({"node": "shop", "insecure": True, "storage": request.param, "peers": peers}))
    with dropr.open(path) as node:
        for number, name in enumerate(OLD, 1):
            data = envelope.encode(Message(id=ident(number), sender="ware", channel=name), b"in")
            node.inbox.put(name, 5, "ware", [Job(ident(number), data)])
            data = envelope.encode(Message(id=ident(number + 10), sender="shop", channel=name), b"out")
            node.outbox.append([NewMessage(ident(number + 10), name, 5, ("ware",), data)])
    return path


def test_what_came_in_is_received(file):
    """By the name that it has, through the same verb as everything."""
    with dropr.open(file) as node:
        assert [message.body for message in node.receive(*OLD, wait=0)] == [b"in"] * len(OLD)
        assert not list(node.receive(*OLD, wait=0))


def test_nothing_new_goes_there(file):
    """Neither by `send` nor by `put`."""
    with dropr.open(file) as node:
        for name in OLD:
            with pytest.raises(BadName):
                node.send(b"x", to="ware", channel=name)
            with pytest.raises(BadName):
                node.put(b"x", channel=name)


@pytest.mark.parametrize("name", OLD)
def test_the_command_line_looks_and_takes_out(file, name):
    """list, cancel, receive and kick take the name that stands there; send does not."""

    def run(verb, *words):
        return CliRunner().invoke(application(), [verb, "-c", str(file), *words])

    assert len(json.loads(run("list", "--json", "--channel", name).stdout)["messages"]) == 2
    assert run("receive", name, "--wait", "0").output.count("in") >= 1
    out = OLD.index(name) + 11
    assert run("cancel", format_id(ident(out))).exit_code == 0
    assert run("kick", "--channel", name).exit_code == 0
    assert run("send", "x", "--to", "ware", "--channel", name).exit_code == Exit.USAGE
    assert run("status").exit_code == 0
    assert run("fsck").exit_code == 0
