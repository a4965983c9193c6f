"""Who calls, and what it may do.

Owns bearer tokens (compared in constant time), rights by patterns of channels, and the refusal of web pages: a page in
a browser on this machine can send requests to loopback, so what comes from one is refused unless its origin is allowed,
and, where callers have no token, a request must be addressed to this machine by its own name. Must not know operations.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from fnmatch import fnmatchcase

import attrs

from dropr_gateway_http.options import Options, User
from dropr_gateway_http.problems import Trouble


@attrs.frozen
class Caller:
    """Somebody who proved to be it, or anybody where nobody must."""

    name: str
    user: User | None

    def may_send(self, channel: str) -> bool:
        """Whether it may put messages there."""
        return self.user is None or _matches(self.user.send, channel)

    def may_receive(self, channel: str) -> bool:
        """Whether it may take and see messages there."""
        return self.user is None or _matches(self.user.receive, channel)

    def may_manage(self, channel: str) -> bool:
        """Whether it may pause, purge, kick and remove there."""
        return self.user is None or (self.user.manage and _matches(self.user.receive, channel))

    def check(self, right: str, channel: str) -> None:
        """Raise Trouble unless it has ``right`` (send, receive, manage) on the channel."""
        allowed: bool = getattr(self, f"may_{right}")(channel)
        if not allowed:
            raise Trouble(
                403,
                "not_allowed",
                f"user {self.name} may not {right} in channel {channel}; whoever runs this node gives rights under "
                f"gateways.http.users.{self.name}",
            )


ANYBODY = Caller("anybody", None)


class Callers:
    """All users of one gateway."""

    def __init__(self, options: Options) -> None:
        self._users = [(_digest(user.token), Caller(name, user)) for name, user in options.users.items()]
        self._origins = frozenset(options.origins)
        self._hosts = frozenset(name.lower() for name in options.hosts)

    def known(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Who sends a request with these headers. Raises Trouble."""
        self._check_origin(headers)
        if not self._users:
            self._check_host(headers)
            return ANYBODY
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        found = self._find(token.strip()) if kind.lower() == b"bearer" else None
        if found is None:
            raise Trouble(
                401,
                "no_such_token",
                "this door wants a token that it knows: send `Authorization: Bearer TOKEN`, with a token of "
                "gateways.http.users in the node's configuration",
                {"WWW-Authenticate": 'Bearer realm="dropr"'},
            )
        return found

    def _find(self, token: bytes) -> Caller | None:
        """All are compared, whatever is found: the time tells nothing."""
        digest, found = _digest(token), None
        for known, caller in self._users:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def allowed_origin(self, headers: Mapping[bytes, bytes]) -> str:
        """The origin of a web page that may call; empty if the request comes from none."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        return origin if origin in self._origins else ""

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        foreign = headers.get(b"sec-fetch-site", b"none") in (b"cross-site", b"same-site")
        if (b"origin" in headers or foreign) and not self.allowed_origin(headers):
            shown = headers.get(b"origin", b"a page that does not say").decode("latin-1")[:100]
            raise Trouble(
                403,
                "web_page",
                f"this request comes from a web page ({shown}), and none may call here; if it shall, add its origin to "
                "`origins:` of this gateway",
            )

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        """A name that somebody else's DNS points to this machine is no name of ours."""
        text = headers.get(b"host", b"").decode("latin-1").lower()
        name = text.rpartition("]")[0].lstrip("[") if text.startswith("[") else text.partition(":")[0]
        if name == "localhost" or name in self._hosts:
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise Trouble(
                421,
                "other_host",
                f"this door is not called {name[:100]!r}: use localhost or an IP address, or add the name to `hosts:` "
                "of this gateway",
            ) from None


def _digest(token: str | bytes) -> bytes:
    return hashlib.sha256(token if isinstance(token, bytes) else token.encode()).digest()


def _matches(patterns: tuple[str, ...], channel: str) -> bool:
    return any(fnmatchcase(channel, pattern) for pattern in patterns)
