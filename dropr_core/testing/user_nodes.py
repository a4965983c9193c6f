"""Nodes for the tests of applications: in the memory of this process, with what carries their mail in threads.

Owns `Nodes` (some nodes that are peers of each other, and their plugs) and how one node is opened. The nodes are those
of production over the storage `memory` and the transport `loopback`: no socket, no process, no file that stays. What
authors of plugins need stands in node_rig.py. Must not know pytest.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dropr_core.api.node import Node
from dropr_core.config.node import from_mapping
from dropr_core.delivery.transports import Transports
from dropr_core.errors import WaitTimeout
from dropr_core.testing.node_rig import LOG, Daemon, Door

PATIENCE = 30.0
LOOK = 0.005
USUAL = frozenset({"node", "shop", "warehouse", "one", "two", "three"})
"""Names of nodes of all fixtures: one configuration may serve tests of each of them."""


def open_node(directory: Path, name: str, more: Mapping[str, Any] | None = None) -> Node:
    """A node of that name in memory; ``more`` goes over what is usual, as in its file. Raises ConfigError."""
    usual = {"node": name, "data": str(directory / name), "storage": "memory", "limits": {"min_free": 0}}
    return Node.open(from_mapping({**usual, **(more or {})}, directory))


class Nodes:
    """Nodes that are peers of each other; what one sends to another arrives, while both are plugged in."""

    def __init__(self, directory: Path, names: tuple[str, ...], more: Mapping[str, Mapping[str, Any]]) -> None:
        """``more``: by name, what its file says besides. Raises ConfigError, ValueError for a name that is none."""
        unknown = set(more) - set(names) - USUAL
        if unknown:
            raise ValueError(f"dropr_config names {', '.join(sorted(unknown))}; the nodes are {', '.join(names)}")
        mark = uuid.uuid4().hex[:12]
        self._urls = {name: f"loopback://{mark}-{name}" for name in names}
        self._nodes: dict[str, Node] = {}
        self._running: dict[str, ExitStack] = {}
        try:
            for name in names:
                self._nodes[name] = open_node(directory, name, {**self._usual(mark, name), **more.get(name, {})})
            for name in names:
                self.plug_in(name)
        except BaseException:
            self.close()
            raise

    def _usual(self, mark: str, name: str) -> dict[str, Any]:
        others = [other for other in self._urls if other != name]
        return {
            "peers": {
                other: {"url": self._urls[other], "key": "-".join([mark, *sorted((name, other)), "key"])}
                for other in others
            },
            "delivery": {"backoff_min": "10ms", "backoff_max": "50ms"},
        }

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def __iter__(self) -> Iterator[Node]:
        """The nodes in order, so that ``shop, warehouse = dropr_pair``."""
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def unplug(self, name: str) -> None:
        """From now on nothing reaches this node, and nothing leaves it, as if its network were down. Sending to it and
        from it goes on. Safe twice.
        """
        running = self._running.pop(name, None)
        if running is not None:
            running.close()

    def plug_in(self, name: str) -> None:
        """Let mail come and go again; safe twice."""
        if name in self._running:
            return
        node = self._nodes[name]
        with ExitStack() as stack:
            listening = Transports({}, node.runtime.context(LOG), node.config.where)
            url = self._urls[name]
            stack.callback(Door(node, listening.for_url(url), url).close)
            asking = Transports({}, node.runtime.context(LOG), node.config.where)
            stack.callback(Daemon(node, asking).close)  # type: ignore[arg-type]  # the daemon's road: it picks transports
            self._running[name] = stack.pop_all()

    def deliver(self, timeout: float = PATIENCE) -> None:
        """Wait until everything that was sent between nodes that are plugged in has arrived. Raises WaitTimeout."""
        ends = time.monotonic() + timeout
        while left := self._on_the_way():
            if time.monotonic() >= ends:
                raise WaitTimeout(f"not delivered within {timeout:g} s: {', '.join(left)}")
            time.sleep(LOOK)

    def _on_the_way(self) -> list[str]:
        return [
            f"{state.waiting} from {name} to {peer}"
            for name in self._running
            for peer, state in self._nodes[name].outbox.peers().items()
            if state.waiting and peer in self._running
        ]

    def close(self) -> None:
        """Unplug all and close them; safe twice."""
        for name in list(self._running):
            self.unplug(name)
        for node in self._nodes.values():
            node.close()


__all__ = ["Nodes", "open_node"]
