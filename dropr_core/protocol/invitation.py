"""Invitations: the token that one node's owner carries to another machine, and the keys that are made from it.

Owns the token's form and the two derivations. No I/O: who keeps what is decided elsewhere (serving/invitations.py keeps
the digest, delivery/joining.py uses the token). Why the keys are made like this: docs/decisions/0041-joining.md.

    token      the secret, 256 random bits, shown once and kept nowhere
    join key   HMAC-SHA256(secret, "dropr join"): the inviter keeps it; it signs the one request to join
    pair key   HMAC-SHA256(join key, "dropr pair" + nonce): what both nodes sign with from then on
"""

import base64
import binascii
import hashlib
import hmac
import os
from typing import Annotated

import attrs
import msgspec

from dropr_core.errors import UsageError

PREFIX = "dropr-join-"
_CHECK = 4
_Text = Annotated[str, msgspec.Meta(max_length=500)]


@attrs.frozen
class Invitation:
    """What a token says."""

    id: bytes
    """16 random bytes; not secret."""
    secret: bytes = attrs.field(repr=False)
    """32 random bytes."""
    node: str
    """Who invites."""
    name: str
    """Who is invited, as the inviter will call it."""
    urls: tuple[str, ...]
    """Where the inviter can be reached, the best first."""
    certificates: tuple[str, ...] = ()
    """For each URL the SHA-256 (hexadecimal) of the certificate shown there; empty where a transport has none."""


class _Token(msgspec.Struct, frozen=True, array_like=True):
    id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    secret: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    node: _Text
    name: _Text
    urls: Annotated[list[_Text], msgspec.Meta(min_length=1, max_length=16)]
    certificates: Annotated[list[bytes], msgspec.Meta(max_length=16)] = []


def new_invitation(node: str, name: str, urls: tuple[str, ...], certificates: tuple[str, ...] = ()) -> Invitation:
    """An invitation with a fresh secret."""
    return Invitation(os.urandom(16), os.urandom(32), node, name, urls, certificates)


def to_token(invitation: Invitation) -> str:
    """The token: letters, digits, ``-`` and ``_``, to be carried by a safe way."""
    certificates = [bytes.fromhex(text) for text in invitation.certificates]
    fields = _Token(
        invitation.id, invitation.secret, invitation.node, invitation.name, list(invitation.urls), certificates
    )
    raw = msgspec.msgpack.encode(fields)
    return PREFIX + base64.urlsafe_b64encode(raw + _checksum(raw)).rstrip(b"=").decode()


def from_token(text: str) -> Invitation:
    """Read a token; line breaks and blanks of a mail do not matter. Raises UsageError, which never shows it."""
    packed = "".join(text.split())
    if not packed.startswith(PREFIX):
        raise UsageError(f"this is no token: one begins with {PREFIX}; `dropr invite` on the other machine prints it")
    encoded = packed.removeprefix(PREFIX).encode("ascii", "replace")
    try:
        data = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        raw, check = data[:-_CHECK], data[-_CHECK:]
        if check != _checksum(raw):
            raise ValueError
        token = msgspec.msgpack.decode(raw, type=_Token)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise UsageError("this token is damaged: copy it whole, from the first to the last letter") from None
    certificates = tuple(digest.hex() for digest in token.certificates)
    return Invitation(token.id, token.secret, token.node, token.name, tuple(token.urls), certificates)


def _checksum(raw: bytes) -> bytes:
    """Against what is lost while copying, not against anybody."""
    return hashlib.sha256(raw).digest()[:_CHECK]


def join_key(secret: bytes) -> bytes:
    """The key that signs the request to join."""
    return hmac.digest(secret, b"dropr join", "sha256")


def pair_key(join_key: bytes, nonce: bytes) -> str:
    """The key of the pair, as text for a file: 256 bits as 43 letters."""
    made = hmac.digest(join_key, b"dropr pair" + nonce, "sha256")
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def new_nonce() -> bytes:
    """16 random bytes."""
    return os.urandom(16)
