"""What a line of the log is about, as fields beside its text: message, peer, channel, lane.

Owns the names of the fields, so that a search for one message or one peer finds the lines of every process. Never a
payload, never a header. Must not know how a line is written, nor where to.
"""

from collections.abc import Mapping

ATTRIBUTE = "about"
"""Of a log record: where its fields are."""

FIELDS = ("message_id", "channel", "peer", "lane", "child", "child_pid", "caller")
"""All that there are, in the order in which they are written."""


def about(
    *,
    message: bytes | str = b"",
    channel: str = "",
    peer: str = "",
    lane: object = None,
    child: str = "",
    child_pid: int | None = None,
    caller: str = "",
) -> Mapping[str, object]:
    """For ``extra=`` of a logging call. ``message``: its id, as bytes or as text; ``lane`` has a channel and a peer."""
    fields: dict[str, object] = {}
    if message:
        fields["message_id"] = _id_text(message) if isinstance(message, bytes) else message
    if lane is not None:
        fields["lane"] = str(lane)
        channel, peer = channel or getattr(lane, "channel", ""), peer or getattr(lane, "peer", "")
    named = {"channel": channel, "peer": peer, "child": child, "caller": caller}
    fields.update({name: value for name, value in named.items() if value})
    if child_pid is not None:
        fields["child_pid"] = child_pid
    return {ATTRIBUTE: fields}


def fields_of(record: object) -> dict[str, object]:
    """The fields of a log record, in a fixed order; none for what libraries and the user's own code say."""
    found = getattr(record, ATTRIBUTE, None)
    return {name: found[name] for name in FIELDS if name in found} if isinstance(found, dict) else {}


def _id_text(identity: bytes) -> str:
    text = identity.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
