"""Who may ask the monitor: whoever shows the token, by a name that is this machine's.

Owns the token (configured, or made in the data directory with mode 0600), its comparison, and which `Host:` a request
may name. A page of somebody else's whose name leads here by DNS is refused by that name; as nothing is kept in cookies,
it could show no token either.
"""

import hmac
import ipaddress
import os
import secrets
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from dropr_core.config.node import NodeConfig
from dropr_core.errors import ConfigError
from dropr_core.system.address import Address
from dropr_core.system.files import create_text
from dropr_core.system.os_errors import store_errors
from dropr_core.system.ownership import make_private_directory

TOKEN_FILE = "monitor.token"  # noqa: S105 - its name


class Access:
    """The token of one node."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def allows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request shows the token, as ``Authorization: Bearer TOKEN``."""
        kind, _, shown = headers.get("authorization", "").partition(" ")
        good = hmac.compare_digest(shown.strip().encode(), self._token)
        return good and kind.lower() == "bearer"


def token_of(config: NodeConfig) -> str:
    """The token of a node; made now if there is none. Raises ConfigError if others may read it, StoreError."""
    if config.monitor.token:
        return config.monitor.token
    path = token_path(config)
    with store_errors(path):
        if not path.exists():
            make_private_directory(config.data, parents=True)
            create_text(path, secrets.token_urlsafe(32) + "\n")
        found = read_token(path)
    if len(found) < 16:
        raise ConfigError([f"{path}: holds no token; remove it, and the node makes one when it starts"])
    return found


def token_path(config: NodeConfig) -> Path:
    """Where the token is that the node makes."""
    return config.data / TOKEN_FILE


def read_token(path: Path) -> str:
    """The token in a file. Raises ConfigError if others may read it, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            raise ConfigError([f"{path}: others may read or change it (mode {mode:o}); run: chmod 600 {path}"])
        return os.read(descriptor, 4096).decode("utf-8", "replace").strip()
    finally:
        os.close(descriptor)


def names_of(addresses: Iterable[Address], hosts: Iterable[str]) -> frozenset[str]:
    """The names by which a browser may ask at these addresses, besides numbers."""
    listed = {address.host for address in addresses if address.host}
    return frozenset(name.lower().rstrip(".") for name in {"localhost", socket.gethostname(), *listed, *hosts})


def is_ours(host: str, names: frozenset[str]) -> bool:
    """Whether the ``Host:`` of a request means this machine: a number, which no DNS can turn, or such a name."""
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    else:
        name = name.rpartition(":")[0] if name.count(":") == 1 else name
    if name.rstrip(".") in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
