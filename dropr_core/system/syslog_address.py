"""Where syslog listens, as a text of the configuration.

Owns the three forms: ``/dev/log`` (a socket on this machine), ``udp://HOST:PORT`` and ``tcp://HOST:PORT``. Must not
know what is written there.
"""

from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from dropr_core.errors import UsageError

PORTS = {"udp": 514, "tcp": 601}
"""Where none is named: RFC 5426 and RFC 3195."""


class SyslogAddress(NamedTuple):
    """A place that takes log lines."""

    kind: Literal["unix", "udp", "tcp"]
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return self.path or f"{self.kind}://{self.host}:{self.port}"


def parse_syslog_address(text: str) -> SyslogAddress:
    """The address in a text. Raises UsageError for what is none."""
    if text.startswith("/"):
        return SyslogAddress("unix", path=text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        host, port = "", 0
    if host and port:
        if parts.scheme == "udp":
            return SyslogAddress("udp", host=host, port=port)
        if parts.scheme == "tcp":
            return SyslogAddress("tcp", host=host, port=port)
    raise UsageError(f"{text!r} is no address of syslog; write /dev/log, udp://HOST:514 or tcp://HOST:601")
