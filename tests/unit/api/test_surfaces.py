"""The verbs of sending and receiving are the same on every surface, and type checkers know them."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dropr_core as dropr
from dropr_core.api.aio import AsyncBatch, AsyncNode, AsyncReceived, AsyncSent
from dropr_core.api.batch import Batch
from dropr_core.api.node import Node
from dropr_core.api.received import Received
from dropr_core.api.send_options import PutOptions, SendOptions
from dropr_core.api.sent import Sent
from dropr_core.config.node import parse

ROOT = Path(dropr.__file__).resolve().parents[1]

YAML = f"""
node: shop
storage: memory
limits: {{min_free: 0}}
peers: {{w: {{url: "http://127.0.0.1:9", key: {"k" * 40}}}}}
"""

SURFACES = [(Node, AsyncNode), (Batch, AsyncBatch), (Received, AsyncReceived), (Sent, AsyncSent)]


def verbs(one, other):
    """Names of the functions that both have."""
    return sorted(
        name
        for name in vars(one).keys() & vars(other).keys()
        if not name.startswith("_") and inspect.isfunction(vars(one)[name]) and inspect.isfunction(vars(other)[name])
    )


@pytest.mark.parametrize(
    ("one", "other", "verb"), [(one, other, verb) for one, other in SURFACES for verb in verbs(one, other)]
)
def test_both_surfaces_take_the_same_arguments(one, other, verb):
    """Names, kinds, defaults and types of a verb's arguments are the same for asyncio."""
    mine, theirs = (inspect.signature(getattr(surface, verb)) for surface in (one, other))
    assert mine.parameters == theirs.parameters


def test_the_verbs_are_found():
    """The comparison above sees the verbs that matter."""
    assert {"send", "put", "receive", "receive_batches", "find", "status", "batch"} <= set(verbs(Node, AsyncNode))
    assert verbs(Batch, AsyncBatch) == ["send"]


@pytest.mark.parametrize("facts", [(Received, AsyncReceived)])
def test_facts_have_the_same_types(facts):
    """Each fact of a message has the type that it has for the blocking surface, and none is left to chance."""
    one, other = facts
    assert "__getattr__" not in vars(other)
    for name, value in vars(other).items():
        if isinstance(value, property) and isinstance(vars(one)[name], property):
            mine, theirs = (inspect.signature(kind.fget).return_annotation for kind in (vars(one)[name], value))
            assert mine == theirs, name


def test_send_takes_whatever_put_takes():
    """What may be said about a message for this node may be said about one for peers."""
    assert PutOptions.__annotations__.keys() < SendOptions.__annotations__.keys()


def test_an_option_that_does_not_exist_is_refused_with_the_near_one(tmp_path):
    """A wrong option is a TypeError at the call, as for any function, and nothing is stored."""
    with Node.open(parse(YAML, tmp_path)) as node:
        with pytest.raises(TypeError, match=r"send\(\) has no option 'prioritty'; did you mean 'priority'"):
            node.send(b"x", to="w", prioritty=3)
        with pytest.raises(TypeError, match=r"put\(\) has no option 'receipt' \(known: at, delay, "):
            node.put(b"x", receipt=True)
        with node.batch() as batch, pytest.raises(TypeError, match="no option 'colour'"):
            batch.send(b"x", to="w", colour="red")
        assert node.outbox.lanes() == []
        assert node.inbox.counts() == {}


WRONG = """
import dropr_core as dropr


def blocking(node: dropr.Node) -> None:
    node.send(b"x", to="w", priority=1, delay="5m", receipt=True, timeout=1.0)
    node.send(b"x", to="w", colour="red")  # error: Unexpected keyword argument "colour"
    node.send(b"x", to="w", priority="high")  # error: Argument "priority"
    node.put(b"x", channel="jobs", key="k")
    node.put(b"x", dedup_key="k")  # error: Unexpected keyword argument "dedup_key"
    with node.batch() as batch:
        batch.send(b"x", to="w", key="k")
        batch.send(b"x", to="w", kee="k")  # error: Unexpected keyword argument "kee"


async def looped(node: dropr.AsyncNode) -> None:
    await node.send(b"x", to="w", expires_in=5)
    await node.send(b"x", to="w", expires=5)  # error: Unexpected keyword argument "expires"
    await node.put(b"x", headers={"a": 1})  # error: Dict entry 0
    async with node.batch() as batch:
        batch.send(b"x", receipt="yes")  # error: Argument "receipt"
    async for message in node.receive("jobs", prefetch=10, on_error="sometimes"):  # error: Argument "on_error"
        message.body.hex()
        message.headers["a"].upper()
        message.bodi  # error: "AsyncReceived" has no attribute "bodi"
        await message.ack({"done": True})
    async for some in node.receive_batches("jobs"):
        await some[0].bury("no")
        some[0].claim  # error: "AsyncReceived" has no attribute "claim"


def kinds() -> list[type]:
    names: list[type] = [
        dropr.Node, dropr.NodeConfig, dropr.Received, dropr.Sent, dropr.MessageStatus, dropr.AsyncNode, dropr.Message,
        dropr.State, dropr.Work, dropr.DroprError, dropr.Conflict, dropr.QueueFull, dropr.LeaseLost,
        dropr.DeliveryFailed, dropr.WaitTimeout, dropr.Retry, dropr.Reject,
    ]
    wrong: dropr.Retry = dropr.Reject("no")  # error: Incompatible types in assignment
    return [*names, type(wrong)]
"""


def test_a_type_checker_refuses_a_wrong_option_on_every_surface(tmp_path):
    """mypy says which option is wrong, and has nothing to say about the right ones."""
    snippet = tmp_path / "snippet.py"
    snippet.write_text(WRONG)
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-codes", str(snippet)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    expected = {
        number: line.partition("# error: ")[2]
        for number, line in enumerate(WRONG.splitlines(), 1)
        if "# error: " in line
    }
    found = {int(match[1]): match[2] for match in re.finditer(r"snippet\.py:(\d+): error: (.*)", ran.stdout)}
    assert found.keys() == expected.keys(), ran.stdout + ran.stderr
    assert all(expected[number] in found[number] for number in expected), ran.stdout
