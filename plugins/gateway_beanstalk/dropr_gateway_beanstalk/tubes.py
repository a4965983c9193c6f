"""Which channel a tube is.

Owns the two directions of the name. A tube whose name may be a channel's is the channel of that name, so that other
dialects and programs meet it there. Names that no channel can have (``+ ; $ ( )``, an empty segment) are escaped.
"""

import re

from dropr_core.model.names import is_channel

DEFAULT = "default"
"""The tube that every connection uses and watches at first."""

_ESCAPED = "tube."
_ODD = re.compile(r"[^A-Za-z0-9.-]")
_CODE = re.compile(r"_([0-9a-f]{2})")


def channel_of(tube: str) -> str | None:
    """The channel of a tube; None where its name is too long for one when it is escaped."""
    if is_channel(tube) and not tube.startswith(_ESCAPED):
        return tube
    channel = _ESCAPED + _ODD.sub(lambda found: f"_{ord(found[0]):02x}", tube)
    return channel if is_channel(channel) else None


def tube_of(channel: str) -> str:
    """The tube of a channel."""
    if channel.startswith(_ESCAPED):
        tube = _CODE.sub(lambda found: chr(int(found[1], 16)), channel[len(_ESCAPED) :])
        if channel_of(tube) == channel:
            return tube
    return channel
