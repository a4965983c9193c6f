"""Limited channels for tests: their configuration, messages in them, and an inbox without end for several processes."""

import pytest
from support.one_node import configure

from dropr_core.api.channel_limits import limits_of
from dropr_core.contracts.storage import Claim
from dropr_core.system.notifier import Notifier

SLOW = {"jobs": {"rate": "1/h", "burst": 3}}
NARROW = {"jobs": {"concurrency": 2}}
STORAGES = pytest.mark.parametrize("storage", ["memory", "sqlite", "fs"])


def bodies(batch):
    return [received.body for received in batch]


def fill(node, count, channel="jobs"):
    for number in range(count):
        node.put(b"%d" % number, channel=channel)


class Stock:
    """An inbox without end, and a clock, as several processes of a node would have them."""

    def __init__(self, directory, **channel):
        (self._config,) = configure(directory, channels={"jobs": channel}).channels.values()
        self.directory, self.seconds, self.number = directory, 1000.0, 0
        self.given = []

    def now(self):
        return self.seconds

    def process(self):
        return limits_of([self._config], self.directory / "limits", self, Notifier(self.directory / "bell"))

    def take(self, channels, count):
        assert channels == ["jobs"]
        self.given += [self.seconds] * count
        made = range(self.number, self.number + count)
        self.number += count
        return [Claim(b"", n, b"%016d" % n, "jobs", 5, "s", b"", 1, False, 0.0) for n in made]
