"""The signed frame around every request and answer.

Owns the frame's bytes, the HMAC over them, and replay windows. A frame can be judged by its first
`HEAD_SIZE` bytes: who claims to send it, whether the pair's key signed it, how long it is. Must
not know what the body means.

    0      4   5    6         8           16                              + 32
    ┌──────┬───┬────┬─────────┬───────────┬──────────────────┬─────────────┬──────┐
    │ DRPR │ 1 │kind│ header  │ body      │ header (msgpack) │ HMAC-SHA256 │ body │
    │      │   │    │ length  │ length    │                  │             │      │
    └──────┴───┴────┴─────────┴───────────┴──────────────────┴─────────────┴──────┘

The HMAC (RFC 2104) covers everything before it; the header carries the SHA-256 of the body, both
names, the request id, session and counter; an answer carries the HMAC of its request, so it fits
no other one. A body may have a tail that the SHA-256 does not cover: then what it covers vouches for
the tail (chunk_digest.py), so that a long one is hashed once, and not by whoever carries it. kind: 0
request, 1 answer: a request reflected is no answer.
"""

import hmac
import os
import struct
from collections.abc import Sequence

import attrs
import msgspec

from dropr_core.errors import BadFrame, Refused
from dropr_core.model.limits import MAX_FRAME_HEADER
from dropr_core.protocol.digests import hmac_sha256, sha256

VERSION = 1
"""Of frames; a later one would be used only after a greeting in this one (greeting.py)."""
REQUEST, ANSWER = 0, 1
_PRELUDE = struct.Struct(">4sBBHQ")
_MAC = 32
HEAD_SIZE = _PRELUDE.size + MAX_FRAME_HEADER + _MAC
OK = "ok"


class FrameHeader(msgspec.Struct, frozen=True, array_like=True):
    """What is signed."""

    sender: str
    receiver: str
    request: bytes
    """16 random bytes, the same in the answer."""
    verb: str
    digest: bytes
    """SHA-256 of the body."""
    session: bytes = b""
    counter: int = 0
    """Rises by one with each request of a session."""
    proof: bytes = b""
    """In an answer: the HMAC of the request that it answers."""
    status: str = OK
    """In an answer: ``ok``, or the code of a refusal whose text is the body."""
    tail: int = 0
    """Bytes at the end of the body that ``digest`` does not cover."""


@attrs.frozen
class Head:
    """A frame judged by its beginning."""

    header: FrameHeader
    mac: bytes
    offset: int
    """Where the body begins."""
    length: int
    """Of the whole frame."""
    signed: bytes = attrs.field(repr=False)
    kind: int = REQUEST


_header = msgspec.msgpack.Decoder(FrameHeader)
_encoder = msgspec.msgpack.Encoder()


def seal(kind: int, header: FrameHeader, body: bytes, key: bytes, tail: int = 0) -> tuple[bytes, bytes]:
    """A finished frame and its HMAC. ``header.digest`` is filled in. ``tail``: so many bytes will follow the frame."""
    header = msgspec.structs.replace(header, digest=sha256(body), tail=tail)
    encoded = _encoder.encode(header)
    if len(encoded) > MAX_FRAME_HEADER:
        raise BadFrame(f"a frame header of {len(encoded)} bytes: the limit is {MAX_FRAME_HEADER}")
    signed = _PRELUDE.pack(b"DRPR", VERSION, kind, len(encoded), len(body) + tail) + encoded
    mac = hmac_sha256(key, signed)
    return b"".join((signed, mac, body)), mac


def read_head(data: bytes, max_body: int) -> Head:
    """Parse the beginning of a frame. Nothing is believed yet. Raises BadFrame, and Refused (``too_big``, ``version``).

    ``data``: the first `HEAD_SIZE` bytes, or the whole frame if it is shorter.
    """
    if len(data) < _PRELUDE.size:
        raise BadFrame(f"{len(data)} bytes are shorter than any dropr frame")
    magic, version, kind, header_length, body_length = _PRELUDE.unpack_from(data)
    if magic != b"DRPR":
        raise BadFrame("not a dropr frame")
    if version != VERSION or kind not in (REQUEST, ANSWER):
        # Who says so is not known, for nobody can tell where its signature would be.
        what = f"version {version}" if version != VERSION else f"kind {kind}"
        turn = (
            "upgrade dropr here, if its sender is newer" if version >= VERSION else "upgrade dropr where it came from"
        )
        raise Refused("version", f"a frame of {what}, which this dropr does not know: {turn}")
    if header_length > MAX_FRAME_HEADER:
        raise BadFrame(f"a frame header of {header_length} bytes: the limit is {MAX_FRAME_HEADER}")
    if body_length > max_body:
        raise Refused("too_big", f"a body of {body_length} bytes: the limit here is {max_body}")
    offset = _PRELUDE.size + header_length + _MAC
    if len(data) < offset:
        raise BadFrame("the frame ends within its header")
    signed = bytes(data[: offset - _MAC])
    try:
        header = _header.decode(signed[_PRELUDE.size :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(f"frame header: {error}") from None
    return Head(header, bytes(data[offset - _MAC : offset]), offset, offset + body_length, signed, kind)


def verify(head: Head, keys: Sequence[bytes]) -> bytes | None:
    """The key of the pair that signed the frame, or None. Compares in constant time."""
    found = None
    for key in keys:
        if hmac.compare_digest(hmac_sha256(key, head.signed), head.mac):
            found = key
    return found


def open_body(head: Head, data: bytes | memoryview) -> tuple[memoryview, memoryview]:
    """The body of a frame whose head was verified, checked, and its unchecked tail. Raises BadFrame."""
    if len(data) != head.length:
        raise BadFrame(f"{len(data)} bytes where the frame says {head.length}")
    end = head.length - head.header.tail
    if not head.offset <= end <= head.length:
        raise BadFrame("the tail is longer than the body")
    view = memoryview(data)
    body = view[head.offset : end]
    if not hmac.compare_digest(sha256(body), head.header.digest):
        raise BadFrame("the body does not match its digest: altered or damaged on the way")
    return body, view[end:]


def request_id() -> bytes:
    """16 random bytes."""
    return os.urandom(16)


class ReplayWindow:
    """Refuses a counter seen before, though requests may overtake each other.

    The sliding window of RFC 4303 section 3.4.3 (IPsec anti-replay), 1024 wide.
    """

    WIDTH = 1024

    def __init__(self) -> None:
        self._top = 0
        self._seen = 0

    def take(self, counter: int) -> bool:
        """True the first time that a counter comes; False for a repeat or one too old to tell."""
        if counter <= 0:
            return False
        if counter > self._top:
            shift = counter - self._top
            self._seen = ((self._seen << shift) | 1) & ((1 << self.WIDTH) - 1) if shift < self.WIDTH else 1
            self._top = counter
            return True
        back = self._top - counter
        if back >= self.WIDTH or self._seen >> back & 1:
            return False
        self._seen |= 1 << back
        return True
