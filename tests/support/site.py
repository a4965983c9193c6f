"""Machines of one node in one process: data directories of their own, one store in memory that they share."""

from pathlib import Path

import attrs

from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.builtin.memory import MemoryStorage
from dropr_core.config.node import from_mapping
from dropr_core.testing.shared_memory import World


class Site:
    """Some machines of one node."""

    def __init__(self, directory, node="ware", **more):
        self.directory, self.node, self.more = Path(directory), node, more
        self.world = World()
        self.machines = []
        self.lines = []

    def machine(self, node=None, **more):
        """One more; its line to the store is the last of `lines`."""
        data = self.directory / f"machine-{len(self.lines)}"
        line = self.world.machine()
        self.lines.append(line)

        def make(context):
            storage = MemoryStorage(attrs.evolve(context, data=self.directory / "store"))
            storage.shared = line
            return storage

        mapping = {
            "node": node or self.node, "data": str(data), "storage": "memory", "limits": {"min_free": 0},
            **self.more, **more,
        }  # fmt: skip
        self.machines.append(Node(Runtime.open(from_mapping(mapping, self.directory), make_storage=make)))
        return self.machines[-1]

    def close(self):
        """Close them all."""
        for node in self.machines:
            node.close()
        for line in self.lines:
            line.close()
