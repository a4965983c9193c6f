"""Who may ask this node: peers by the key of the pair, and who was invited by the key of the invitation.

Owns the judgement of a request by its head. Must not know what is asked, nor where keys and invitations are kept.
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Protocol

import attrs

from dropr_core.errors import BadFrame, Refused
from dropr_core.model.names import is_channel
from dropr_core.protocol import messages as wire
from dropr_core.protocol.frames import REQUEST, Head, read_head, verify

UNSIGNED_KEY = b"insecure"
"""Stands for the key of a peer that has none, which only ``insecure: true`` permits."""


@attrs.frozen
class Access:
    """What one peer may do here."""

    keys: tuple[bytes, ...] = attrs.field(repr=False)
    may_write: tuple[str, ...] | None = None
    """Patterns of channels; None: all."""

    def allows(self, channel: str) -> bool:
        """Whether the peer may write into the channel."""
        if not is_channel(channel):
            return False
        return self.may_write is None or any(fnmatch.fnmatchcase(channel, pattern) for pattern in self.may_write)

    @property
    def valid_keys(self) -> tuple[bytes, ...]:
        """The keys of which one must have signed."""
        return self.keys or (UNSIGNED_KEY,)


class Joins(Protocol):
    """Invitations to become a peer: what the host keeps of them. Safe to call from many threads."""

    def key(self, invitation: bytes, name: str) -> bytes | None:
        """The key with which the invited node ``name`` signs its request to join; None if nobody of it was invited."""
        ...

    def join(self, invitation: bytes, name: str, request: wire.Join) -> wire.Joined:
        """Make ``name`` a peer. Raises Refused: expired, used, or the configuration cannot be changed."""
        ...


class NoJoins:
    """For an endpoint whose configuration no file holds: nobody can be invited."""

    def key(self, _invitation: bytes, _name: str) -> bytes | None:
        """Nobody was invited."""
        return None

    def join(self, _invitation: bytes, _name: str, _request: wire.Join) -> wire.Joined:
        """Nobody was invited."""
        raise Refused("bad_invitation", UNKNOWN_INVITATION)


UNKNOWN_INVITATION = (
    "this invitation is not known here: it was revoked, or ended long ago, or is for another name; ask for a new one"
)

RefusedCaller = Callable[[str], None]
"""Told the name that a refused caller gave itself."""


def authenticate(
    data: bytes, node: str, access: Mapping[str, Access], joins: Joins, max_request: int, refused: RefusedCaller
) -> tuple[Head, bytes]:
    """Judge a request to ``node`` by its first bytes; its head, and the key that signed it. Raises Refused."""
    try:
        head = read_head(data, max_request)
    except BadFrame as error:
        raise Refused("bad_frame", str(error)) from None
    header = head.header
    if header.receiver != node or head.kind != REQUEST:
        refused(header.sender)
        raise Refused("unknown_peer", "no such pair of nodes here")
    if header.verb == wire.JOIN:
        # The only verb of the key of an invitation, and no other key can say it.
        invited = joins.key(header.session, header.sender)
        if invited is None or verify(head, (invited,)) is None:
            refused(header.sender)
            raise Refused("bad_invitation", UNKNOWN_INVITATION)
        return head, invited
    known = access.get(header.sender)
    if known is None:
        refused(header.sender)
        raise Refused("unknown_peer", "no such pair of nodes here")
    key = verify(head, known.valid_keys)
    if key is None:
        refused(header.sender)
        raise Refused("bad_signature", f"not signed with the key that {node} and {header.sender} share")
    return head, key
