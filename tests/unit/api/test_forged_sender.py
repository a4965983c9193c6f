"""The name of a sender is the one that was proven with the pair's key, at every place where somebody reads it."""

import json
import sys

import pytest
from click.testing import CliRunner
from support.lanes import SHOP, THERE, Node, ident

import dropr_core as dropr
from dropr_core.api.handler_call import as_work
from dropr_core.builtin.handlers.command import Command, Options
from dropr_core.cli.app import application
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Job
from dropr_core.errors import ConfigError
from dropr_core.model import envelope
from dropr_core.model.message import Message
from dropr_core.protocol import messages as wire
from dropr_core.protocol.batches import accept_push
from dropr_core.system.clock import FakeClock


def forged(name):
    """An envelope that says another sender than the peer that brings it."""
    return envelope.encode(Message(id=ident(1), sender=name, channel="orders"), b"x")


@pytest.fixture
def node(tmp_path):
    """A node with a store on disk, whose inbox got a forged message from the peer ``eve``."""
    file = tmp_path / "node.yaml"
    file.write_text(json.dumps({"node": THERE, "insecure": True, "peers": {"eve": {"mode": "pull"}}}))
    with dropr.open(file) as node:
        node.inbox.put("orders", 5, "eve", [Job(ident(1), forged("boss"))])
        yield node


def test_a_consumer_sees_who_proved_to_be_the_sender(node):
    """`sender`, `message.sender` and what a handler gets are the peer; the other name has a name that says so."""
    (received,) = node.receive("orders", wait=0, limit=1)
    assert received.sender == received.message.sender == "eve"
    assert as_work(received).message.sender == "eve"
    assert received.claimed_sender == "boss"


def test_an_honest_message_claims_nothing_else(node):
    """Where envelope and proof agree there is no other name; the node's own messages are its own."""
    node.put(b"x", channel="mine")
    (received,) = node.receive("mine", wait=0, limit=1)
    assert (received.sender, received.message.sender, received.claimed_sender) == (THERE, THERE, None)


def test_show_says_who_brought_it_and_what_it_claims(node, tmp_path):
    """On the command line as well the proven name is the sender."""
    run = CliRunner().invoke(application(), ["show", "-c", str(tmp_path / "node.yaml"), "--json", str(dropr_id())])
    document = json.loads(run.stdout)["message"]
    assert (document["sender"], document["claimed_sender"]) == ("eve", "boss")
    text = CliRunner().invoke(application(), ["show", "-c", str(tmp_path / "node.yaml"), str(dropr_id())]).stdout
    assert "from eve (it claims to be from boss)" in text


def dropr_id():
    """The id of the forged message as text."""
    from dropr_core.model.names import format_id

    return format_id(ident(1))


def test_a_program_is_told_the_proven_name(node, tmp_path):
    """DROPR_SENDER of ``command:`` is the peer, whatever the envelope says."""
    script = tmp_path / "handler.py"
    script.write_text("import os; print(os.environ['DROPR_SENDER'], end='')")
    (received,) = node.receive("orders", wait=0, limit=1)
    result = Command(Options(target=f"{sys.executable} {script}")).handle(as_work(received))
    assert result == b"eve"


@pytest.mark.parametrize("name", ["boss\nDROPR_ADMIN=1", "", "boss\0", "a" * 65, "../boss"])
def test_a_name_that_no_node_can_have_is_refused_at_the_door(name):
    """Newlines and the like never reach a store, not even as a claim."""
    there = Node(THERE, SHOP, FakeClock())
    part = wire.LanePart("orders", 5, (0, bytes(16)), (1, ident(1)), [forged(name)])
    (verdict,), _ = accept_push(there.inbox, SHOP, b"s" * 8, [part], lambda _channel: True, None)
    assert [code for _, code, _ in verdict.rejected] == ["bad_message"]


def test_a_forged_name_comes_in_by_the_name_of_its_bringer():
    """Through the real door: what the store knows of the sender is the authenticated peer."""
    there = Node(THERE, SHOP, FakeClock())
    part = wire.LanePart("orders", 5, (0, bytes(16)), (1, ident(1)), [forged("boss")])
    accept_push(there.inbox, SHOP, b"s" * 8, [part], lambda _channel: True, None)
    (claim,) = there.inbox.claim(["orders"], 1, there.consumer)
    assert claim.sender == SHOP


def test_configured_names_are_names():
    """No peer can be configured under a name that could be mistaken for two."""
    with pytest.raises(ConfigError):
        from_mapping({"node": "a\nb"}, None)
