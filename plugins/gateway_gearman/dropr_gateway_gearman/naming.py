"""Functions and channels, handles and ids: how Gearman's names become those of a node and back.

A function's name is its channel's wherever it may be one; other bytes are written ``_xHH``. A handle is ``H:node:id``.
Knows nothing of jobs or connections.
"""

import re
from functools import lru_cache

from dropr_core.errors import BadName
from dropr_core.model.limits import MAX_CHANNEL
from dropr_core.model.names import is_channel

PREFIX = 20
"""Characters of the node's name in a handle: with an id of 32 and what stands between, it fits into the 64 bytes that
the C library has for one."""

_ODD = re.compile(rb"[^A-Za-z0-9._/-]|_(?=x[0-9A-F]{2})")
_DOTS = re.compile(rb"[./]")
_ESCAPED = re.compile(r"_x([0-9A-F]{2})")
_HANDLE = re.compile(rb"H:[A-Za-z0-9._-]*:([0-9a-f]{32})")


@lru_cache(maxsize=256)
def channel_of(function: bytes) -> str:
    """The channel of a function. Raises BadName for an empty name, or one too long to be a channel's."""
    name = _ODD.sub(_escape, function)
    if not is_channel(name.decode()):
        name = _DOTS.sub(_escape, name)
    if not is_channel(name.decode()):
        raise BadName(
            f"a function's name has 1 to {MAX_CHANNEL} letters, as a channel has; this one has {len(function)}"
        )
    return name.decode()


def function_of(channel: str) -> bytes:
    """The function of a channel: the other way round."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), channel).encode("latin-1")


def _escape(found: re.Match[bytes]) -> bytes:
    return b"_x%02X" % found[0][0]


class Handles:
    """The handles of one node's jobs."""

    def __init__(self, node: str) -> None:
        self._prefix = f"H:{node[:PREFIX]}:".encode()

    def of(self, message_id: str) -> bytes:
        """The handle of a message, by its id as a text."""
        return self._prefix + message_id.replace("-", "").encode()

    @staticmethod
    def id_of(handle: bytes) -> str | None:
        """The id as a text; None if the handle is none of ours."""
        found = _HANDLE.fullmatch(handle)
        if found is None:
            return None
        text = found[1].decode()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


__all__ = ["PREFIX", "Handles", "channel_of", "function_of"]
