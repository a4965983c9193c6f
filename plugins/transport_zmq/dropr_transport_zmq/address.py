"""A url of this transport, taken apart.

Owns the forms ``zmq+tcp://host:port?curve=KEY``, ``zmq+ipc:///path`` and ``zmq+inproc://name``, and what
is wrong with others. Pure: no I/O.
"""

import re
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

import attrs

from dropr_core.errors import UsageError
from dropr_transport_zmq.keys import check_public

SCHEMES = ("zmq+tcp", "zmq+ipc", "zmq+inproc")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_LONGEST_PATH = 100  # the system's limit for a socket's path is 107 with its end


@attrs.frozen
class Address:
    """Where to listen or to ask."""

    url: str
    kind: Literal["tcp", "ipc", "inproc"]
    host: str = ""
    port: int = 0
    path: str = ""
    """Of a socket file; ``*``: any."""
    name: str = ""
    curve: str = ""
    """The listener's public key; empty: the url says none."""


def parse(url: str) -> Address:
    """Take a url apart. Raises UsageError saying what is wrong with it."""
    try:
        parts = urlsplit(url)
        port = parts.port if parts.scheme == "zmq+tcp" else None
    except ValueError as error:
        raise UsageError(f"'{url}' is no url: {error}") from None
    if parts.scheme not in SCHEMES:
        raise UsageError(f"'{url}' must begin with zmq+tcp://, zmq+ipc:// or zmq+inproc://")
    if any(sign.isspace() or not sign.isprintable() for sign in url):
        raise UsageError(f"{url!r} has blanks or signs that cannot be printed")
    if "@" in parts.netloc:
        raise UsageError("put no credentials into a url: it appears in logs; peers know each other by their keys")
    if parts.fragment:
        raise UsageError(f"'{url}': nothing may follow a '#'")
    if parts.scheme == "zmq+tcp":
        return _tcp(url, parts.hostname or "", port, parts.path, parts.query)
    if parts.query:
        raise UsageError(f"'{url}': {parts.scheme} stays on this machine and takes no '?'")
    if parts.scheme == "zmq+inproc":
        if parts.path or not _NAME.fullmatch(parts.netloc):
            raise UsageError(f"'{url}' must look like zmq+inproc://name")
        return Address(url, "inproc", name=parts.netloc)
    if parts.netloc == "*" and not parts.path:
        return Address(url, "ipc", path="*")
    if parts.netloc or not parts.path.strip("/"):
        raise UsageError(f"'{url}' must look like zmq+ipc:///run/shop/dropr.sock (three slashes: a whole path)")
    if len(parts.path.encode()) > _LONGEST_PATH:
        raise UsageError(f"'{url}': the path of a socket has at most {_LONGEST_PATH} bytes; choose a shorter one")
    return Address(url, "ipc", path=parts.path)


def _tcp(url: str, host: str, port: int | None, path: str, query: str) -> Address:
    if not host or port is None:
        raise UsageError(f"'{url}' needs host and port; write something like zmq+tcp://peer.example:8421")
    if path not in ("", "/"):
        raise UsageError(f"'{url}': zmq+tcp has no paths; end it after the port")
    curve = ""
    for word, value in parse_qsl(query, keep_blank_values=True):
        if word != "curve" or curve:
            raise UsageError(f"'{url}': only one ?curve=KEY, the listener's public key, may follow the port")
        check_public(value)
        curve = value
    return Address(url, "tcp", host=host, port=port, curve=curve)


def endpoint(host: str, port: int) -> str:
    """A TCP address as ZeroMQ writes it."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
