"""A site of three machines behind one name: the demo's other story.

Owns what is special about it: machines that have nothing in common but a database, a balancer before them, and the
blows that fall on machines, lines and the database. Must not know what is sent, nor how it is counted.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import ClassVar

from dropr_core.demo.chaos import Chaos
from dropr_core.demo.nodes import free_port, machine_config, make_key, shop_config
from dropr_core.demo.postgres import Server, cut_sessions, drop_schema
from dropr_core.demo.road import Road
from dropr_core.demo.scenario import Scenario, Settings
from dropr_core.demo.screen import Screen
from dropr_core.errors import UsageError

MACHINES = ("machine-1", "machine-2", "machine-3")
DESK = "desk"
"""The machine on which the messages are read: this process."""


class SiteScenario(Scenario):
    """One run; see `Scenario`. Raises UsageError besides, where there is no PostgreSQL."""

    NEWS: ClassVar[tuple[str, ...]] = ("multicast → warehouse",)
    NODES = "shop, and warehouse on three machines that share a database"

    def __init__(self, settings: Settings, screen: Screen) -> None:
        super().__init__(settings, screen)
        self._schema = f"dropr_demo_{os.urandom(4).hex()}"
        self._server: Server | None = None
        self._down: list[str] = []

    def _start(self, stack: ExitStack) -> None:
        database = self._settings.postgres
        if database is None:
            self._server = server = Server()
            stack.callback(server.close)
            database, lines = server.url(), [Road(server.port)]
        else:
            server, lines = None, list[Road]()
            stack.callback(drop_schema, database, self._schema)
        stack.callback(self._village.close)  # before the database goes
        ports = {machine: free_port() for machine in MACHINES}
        far = Road(ports[MACHINES[1]])
        lines.append(far)
        for line in lines:
            stack.callback(line.close)
            line.start()
        balancer = Road(ports[MACHINES[0]], far.port, ports[MACHINES[2]])
        stack.callback(balancer.close)
        self._chaos = Chaos(self._village, lines, self._orders)
        make_url, key = self._settings.url.format, make_key()
        url = make_url(port=balancer.start())
        for machine, port in ports.items():
            through = lines[0].port if machine == MACHINES[1] else None
            storage = self._storage(database if server is None else server.url(through))
            self._village.add(machine, machine_config(make_url(port=port), key, storage))
        self._village.add(DESK, machine_config(make_url(port=free_port()), key, self._storage(database)))
        self._village.add("shop", shop_config({"warehouse": url}, key, self._settings.storage))
        nodes = self._open((DESK, "shop"), stack)
        for name in (*MACHINES, "shop"):
            self._village.start(name)
        self._read_warehouse(nodes[DESK])
        self._until_ready()

    def _storage(self, url: str) -> dict[str, str]:
        return {"use": "postgres", "url": url, "schema": self._schema}

    def _blows(self) -> list[Callable[[], str]]:
        kills = [partial(self._kill, machine) for machine in MACHINES]
        return [*kills, self._cut, self._hurt_database]

    def _kill(self, machine: str) -> str:
        if not self._village.ready(MACHINES):
            return ""
        self._down.append(machine)
        return self._chaos.kill_machine(machine)

    def _cut(self) -> str:
        if not self._village.ready(MACHINES):
            return ""
        return self._chaos.close_road(f"all lines of {MACHINES[1]}")

    def _hurt_database(self) -> str:
        if not self._village.ready(MACHINES):
            return ""
        if self._server is not None:
            return self._chaos.strike("the database restarted", self._server.restart)
        url = self._settings.postgres
        if url is None:
            raise UsageError("there is no database")
        return self._chaos.strike("all sessions of the database cut", lambda: cut_sessions(url))

    def _recovered(self) -> None:
        while self._down:
            machine = self._down.pop()
            self._village.start(machine)
            self._screen.say(f"{machine} starts again")
