"""Where a process listens for programs: URLs read, checked, and bound.

Owns how such a URL is written, which of them can be reached from elsewhere, and the socket and the TLS of each. Must
not know what is served there (gateways, the monitor), nor to whom.
"""

import ipaddress
import os
import re
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import attrs

from dropr_core.errors import Unreachable
from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    import ssl

BACKLOG = 1024
_WEB = ("http", "https")
_QUERY = {"tls": {"cert", "key", "ca"}, "https": {"cert", "key", "ca"}, "unix": {"mode"}}


@attrs.frozen
class Address:
    """One URL of `listen:`."""

    url: str
    scheme: str
    host: str
    port: int
    path: str = ""
    options: dict[str, str] = attrs.field(factory=dict)

    @property
    def local(self) -> bool:
        """Whether only programs of this machine come here."""
        if self.scheme == "unix" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def web(self) -> bool:
        """Whether an application answers here."""
        return self.scheme in _WEB

    def meets(self, other: "Address") -> bool:
        """Whether the two cannot both be listened at: the same socket file, or one port of hosts of which one is the
        other or stands for every address of the machine. Names are compared, not looked up.
        """
        if "unix" in (self.scheme, other.scheme):
            return self.scheme == other.scheme and os.path.normpath(self.path) == os.path.normpath(other.path)
        if not self.port or self.port != other.port:
            return False
        hosts = {_numeric(self.host), _numeric(other.host)}
        if len(hosts) == 1 or "::" in hosts:
            return True
        return "0.0.0.0" in hosts and not any(":" in host for host in hosts)  # noqa: S104 - compared

    def at(self, bound: socket.socket) -> str:
        """The URL with the port that it really has; without what the query says of files."""
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{bound.getsockname()[1]}"


def _numeric(host: str) -> str:
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        return host.lower()


def read_address(url: str, schemes: tuple[str, ...]) -> Address | str:
    """The address, or what is wrong with it."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        query = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    except ValueError as error:
        return f"{url!r} is not a URL: {error}"
    scheme = parts.scheme
    if scheme not in schemes:
        return f"{url!r}: what listens here does so at {', '.join(f'{one}://' for one in schemes)}"
    if unknown := set(query) - _QUERY.get(scheme, set()):
        known = ", ".join(sorted(_QUERY.get(scheme, set()))) or "none"
        return f"{url!r}: no option is called {min(unknown)!r} (known: {known})"
    if scheme == "unix":
        if parts.netloc or not parts.path.startswith("/") or len(os.fsencode(parts.path)) > 100:
            return f"{url!r}: write it like unix:///run/shop.sock, with a path of up to 100 bytes"
        if not re.fullmatch("0?[0-7]{3}", query.get("mode", "600")):
            return f"{url!r}: mode is written like 660"
        return Address(url, scheme, "", 0, parts.path, query)
    if not host or port is None or parts.path not in ("", "/"):
        return f"{url!r}: write it like {scheme}://127.0.0.1:PORT"
    if scheme in ("tls", "https") and not {"cert", "key"} <= set(query):
        return f"{url!r}: say its certificate and key, such as {scheme}://{host}:{port}?cert=door.pem&key=door.key"
    return Address(url, scheme, host, port, "", query)


def bind(address: Address) -> socket.socket:
    """A listening socket. Raises Unreachable saying why there can be none."""
    try:
        if address.scheme == "unix":
            return _bind_unix(address)
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol by number, for asyncio looks at it before it turns off the waiting of small writes: else an
        # answer in two parts lies 40 ms, until its first one is acknowledged.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(where)
            bound.listen(BACKLOG)
            bound.setblocking(False)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise Unreachable(f"cannot listen on {address.url}: {error.strerror or error}") from error
    return bound


def _bind_unix(address: Address) -> socket.socket:
    path = Path(address.path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.lstat().st_mode) and not _answers(address.path):
            path.unlink()  # of a process that was killed
        before = os.umask(0o177)
        try:
            bound.bind(address.path)
        finally:
            os.umask(before)
        path.chmod(int(address.options.get("mode", "600"), 8))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        return True


def tls_of(address: Address, directory: Path) -> "ssl.SSLContext | None":
    """The TLS of an address; None if it has none. Raises Unreachable."""
    if address.scheme not in ("tls", "https"):
        return None
    with unforked:
        import ssl

    options = {name: str(directory / value) for name, value in address.options.items()}
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=options.get("ca"))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(options["cert"], options["key"])
        if "ca" in options:
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise Unreachable(f"cannot listen on {address.url}: its certificate, key or ca: {error}") from error
    return context
