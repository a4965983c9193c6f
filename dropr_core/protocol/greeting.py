"""Which version of the protocol two nodes speak with each other (docs/compatibility.md).

Owns the versions that this dropr speaks, and the choice that a greeting makes: the newest that both speak. Must not
know what a version changes, nor stores or sockets.

A request to greet stands in a frame of version 1 for ever, and begins with the oldest version that its sender speaks: a
dropr of any age can read so much, and say which of the two is behind.
"""

from dropr_core.errors import Refused
from dropr_core.protocol import messages as wire

OLDEST, NEWEST = 1, 1
"""Versions that this dropr speaks."""


def hello(node_id: bytes) -> wire.Hello:
    """The request."""
    return wire.Hello(OLDEST, node_id, NEWEST)


def agree(node: str, peer: str, said: wire.Hello) -> int:
    """The version in which ``node`` answers its ``peer``. Raises Refused (``version``): they have none in common."""
    theirs = (said.version, max(said.version, said.newest))
    version = min(theirs[1], NEWEST)
    if version < max(theirs[0], OLDEST):
        raise Refused("version", mismatch(node, peer, *theirs))
    return version


def check(node: str, peer: str, answer: wire.Welcome) -> None:
    """Raise Refused (``version``) if the peer's answer chose a version that ``node`` did not offer."""
    if not OLDEST <= answer.version <= NEWEST:
        raise Refused("version", mismatch(node, peer, answer.version, answer.version), signed=True)


def mismatch(node: str, peer: str, oldest: int, newest: int) -> str:
    """What is wrong between two nodes of which the peer speaks the versions ``oldest`` to ``newest``, and whose turn it
    is: the one that is behind is upgraded.
    """
    behind = node if oldest > NEWEST else peer
    return (
        f"{peer} speaks {_spoken(oldest, newest)} of the protocol, {node} {_spoken(OLDEST, NEWEST)}: "
        f"upgrade dropr on {behind}; until then what is for the other waits where it is"
    )


def _spoken(oldest: int, newest: int) -> str:
    return f"version {oldest}" if oldest == newest else f"versions {oldest} to {newest}"
