"""The monitor of a node in this process, asked over its real socket.

Owns starting it beside an open node and asking it with or without the token. Must not know what any route shows.
"""

import http.client
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from dropr_core.api.runtime import Runtime
from dropr_core.monitor.host import MonitorHost

TOKEN = "a-token-of-these-tests"


@attrs.frozen
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Caller:
    """Asks one monitor."""

    def __init__(self, url: str) -> None:
        self.place = url.partition("://")[2]
        self.port = int(url.rpartition(":")[2])

    def ask(self, method: str, path: str, body: Any = None, token: str | None = TOKEN, **headers: str) -> Reply:
        """One request. ``headers`` with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@contextmanager
def monitored(runtime: Runtime) -> Iterator[Caller]:
    """The monitor of an open node whose configuration has one."""
    host = MonitorHost(runtime, logging.getLogger("dropr.test.monitor"))
    try:
        host.open()
        yield Caller(host.urls[0])
    finally:
        host.close()
