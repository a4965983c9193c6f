"""One node in this process over the storage `memory`: for tests of what an application does with it.

Owns its configuration and how its time is moved. Must not know what is tested.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropr_core.api.node import Node
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Arrival, Job
from dropr_core.model import envelope
from dropr_core.model.message import Message
from dropr_core.model.names import START, Head, MessageId, SourceLane, StoreId

KEY = "k" * 40
SENDER, STORE = "berlin", StoreId(b"store--1")


def configure(directory: Path, **fields: Any) -> Any:
    """A node `shop` with peers `berlin` and `rome` and a group of both; ``fields``: more of its file."""
    peers = {name: {"url": "http://127.0.0.1:9", "key": KEY} for name in ("berlin", "rome")}
    mapping: dict[str, Any] = {
        "node": "shop", "data": str(directory / "data"), "storage": "memory", "limits": {"min_free": 0},
        "peers": peers, "groups": {"all": ["berlin", "rome"]}, **fields,
    }  # fmt: skip
    return from_mapping(mapping, directory)


def open_node(directory: Path, **fields: Any) -> Node:
    """It, opened."""
    return Node.open(configure(directory, **fields))


def pass_time(node: Node, seconds: float) -> None:
    """Let node time pass."""
    node.runtime.clock.base += seconds


class Peer:
    """A peer that pushes into one lane of a node, message after message."""

    def __init__(self, node: Node, channel: str = "jobs", priority: int = 5) -> None:
        self._node = node
        self._lane = SourceLane(SENDER, STORE, channel, priority)
        self._head = START

    def push(self, *bodies: bytes, raw: bytes | None = None, **fields: Any) -> list[MessageId]:
        """One message for each body; ``raw``: this envelope instead. The ids."""
        jobs = []
        for number, body in enumerate(bodies, self._head.sequence + 1):
            identity = MessageId(number.to_bytes(16, "big"))
            message = Message(id=identity, sender=SENDER, channel=self._lane.channel, priority=self._lane.priority)
            jobs.append(Job(identity, envelope.encode(message, body) if raw is None else raw, number, **fields))
        head = Head(self._head.sequence + len(jobs), jobs[-1].id)
        (answer,) = self._node.inbox.accept([Arrival(self._lane, self._head, head, jobs)])
        assert answer.taken
        self._head = head
        return [job.id for job in jobs]


def facts(message: Any) -> Mapping[str, object]:
    """Everything that an envelope says, but the id and the moment."""
    header = envelope.header_of(message.envelope)
    return {name: getattr(header, name) for name in header.__struct_fields__ if name not in {"id", "created_at"}}
