"""Nodes with gateways, as real processes.

Owns `Doors`: one node of a road, its gateway process, and where its doors are. Must not know a dialect.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from support.nodes import Place, Process, Road, eventually

from dropr_core.system.presence import living


class Doors:
    """One node whose gateway process runs, with each gateway at a port that the system gives."""

    def __init__(self, road: Road, place: Place) -> None:
        self.road, self.place = road, place
        self.process: Process | None = None
        self.urls: dict[str, list[str]] = {}

    def start(self) -> "Doors":
        """Start the process (again) and wait until every door is open. Ports are others than before."""
        self.process = self.place.run("gateway", ready=False)
        pid = self.process.pid

        def up() -> Any:
            if not self.process.alive:
                raise RuntimeError(f"the gateway ended with {self.process.wait()}:\n{self.process.text}")
            return next((one for one in living(self.place.data / "run", "gateway") if one["pid"] == pid), None)

        self.urls = eventually(up, what=f"the gateway of {self.place.name} is up")["urls"]
        return self

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; safe twice."""
        if self.process is not None:
            self.process.kill()

    def url(self, name: str) -> str:
        """Where a gateway listens (its first address)."""
        return self.urls[name][0]

    def port(self, name: str) -> int:
        """The port of it."""
        port = urlsplit(self.url(name)).port
        assert port
        return port


LOOPBACK = {"sqs": "http", "http": "http"}


def listening(*names: str, **options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The YAML of gateways: each at a port of loopback that the system gives. ``options``: more of one, by its name."""
    return {name: {"listen": f"{LOOPBACK.get(name, 'tcp')}://127.0.0.1:0", **options.get(name, {})} for name in names}


def open_doors(road: Road, name: str, *gateways: str, options: Mapping[str, Any] | None = None, **fields: Any) -> Doors:
    """A node that stands alone, with its gateway process. ``fields``: more of its file."""
    (place,) = road.build(name, **{name: {"gateways": listening(*gateways, **(options or {})), **fields}})
    return Doors(road, place).start()
