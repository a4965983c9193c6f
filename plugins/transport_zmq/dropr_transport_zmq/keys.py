"""CURVE keys as people see them: text that may stand in a url or a YAML file without quotes.

Owns the two forms. A public key is 43 letters of base64url. A secret key has a word before it, so that
nobody puts the one where the other belongs. Must not know where keys are used.
"""

import base64
import binascii

import zmq
from zmq.utils import z85

from dropr_core.errors import UsageError

SECRET = "curve-secret-"  # noqa: S105 - the word before a key, not a key
_BYTES = 32


def new_secret() -> str:
    """A fresh secret key."""
    _public, secret = zmq.curve_keypair()
    return SECRET + to_text(secret)


def public_of(secret: str) -> str:
    """The public key that belongs to a secret one. Raises UsageError if that is none."""
    return to_text(zmq.curve_public(secret_to_z85(secret)))


def secret_to_z85(secret: str) -> bytes:
    """A secret key as ZeroMQ wants it. Raises UsageError, without showing it."""
    secret = secret.strip()
    if not secret.startswith(SECRET):
        raise UsageError("this is no secret CURVE key; `dropr keygen zmq --file FILE` makes one")
    return _to_z85(secret.removeprefix(SECRET), "the secret CURVE key is damaged; make a new one: dropr keygen zmq")


def public_to_z85(public: str) -> bytes:
    """A public key as ZeroMQ wants it. Raises UsageError."""
    if public.startswith(SECRET):
        raise UsageError(
            "this is a secret CURVE key where a public one belongs; who may have seen it can pose as its owner: "
            "make a new one, and write its public key here (dropr keygen zmq)"
        )
    shown = repr(public if len(public) <= 60 else public[:57] + "...")
    return _to_z85(public, f"{shown} is no public CURVE key; it has 43 letters, `dropr keygen zmq` shows it")


def check_secret(text: str) -> None:
    """Raises UsageError for text that is no secret key; none at all is fine."""
    if text:
        secret_to_z85(text)


def check_public(text: str) -> None:
    """Raises UsageError for text that is no public key."""
    public_to_z85(text)


def to_text(key: bytes) -> str:
    """A key from ZeroMQ (Z85) or from the network (32 bytes) as text."""
    raw = key if len(key) == _BYTES else z85.decode(key)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _to_z85(text: str, problem: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(problem) from None
    if len(raw) != _BYTES:
        raise UsageError(problem)
    return bytes(z85.encode(raw))
