"""The stored and shipped form of a message.

Owns the bytes (docs/formats/envelope.md): encoded once at `send`, shipped untouched, opened by the
consumer; a receiver reads the header only. Must not know stores, lanes or peers.

    0      1      2          6            14         18
    ┌──────┬──────┬──────────┬────────────┬──────────┬────────┬──────┐
    │ 0xD1 │ flags│ header   │ body       │ CRC-32   │ header │ body │
    │ v1   │      │ length   │ length     │ of rest  │ msgpack│      │
    └──────┴──────┴──────────┴────────────┴──────────┴────────┴──────┘

With flag OUTSIDE the body stands in a file of its own, and the body section is a `Reference` to it:
8 bytes length and 32 bytes SHA-256.

All numbers big-endian. The checksum covers the first 14 bytes, header and body. Unknown fields of
the header are kept because the bytes are kept; an unknown flag is critical: the message waits for an upgrade.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from dropr_core.errors import BadEnvelope, UsageError
from dropr_core.model.limits import MAX_ENVELOPE_HEADER
from dropr_core.model.message import Message

MAGIC, LAST_MAGIC = 0xD1, 0xDF
"""The version is in the lower half of the byte. In each the first 18 bytes mean the same, with the same checksum."""
OUTSIDE = 0x01
KNOWN_FLAGS = OUTSIDE
LARGE = 16 * 1024

_FIXED = struct.Struct(">BBIQ")
_CRC = struct.Struct(">I")
_REFERENCE = struct.Struct(">Q32s")
_TIME = struct.Struct(">d")
_NEVER = -7.3e77
PREFIX = _FIXED.size + _CRC.size
_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Message).decode


class FromNewer(BadEnvelope):
    """A sound envelope that only a newer dropr understands: it must wait, and not be thrown away."""


class Opened(NamedTuple):
    """A decoded envelope."""

    message: Message
    body: bytes


class Reference(NamedTuple):
    """A body outside of its envelope."""

    size: int
    """Bytes."""
    digest: bytes
    """Of all of it (chunk_digest.py)."""


def encode(message: Message, body: bytes | Reference) -> bytes:
    """The envelope of ``message`` with ``body``, or with a reference to it."""
    header, flags = _encode_header(message), 0
    if isinstance(body, Reference):
        body, flags = _REFERENCE.pack(*body), OUTSIDE
    fixed = _FIXED.pack(MAGIC, flags, len(header), len(body))
    crc = zlib.crc32(body, zlib.crc32(header, zlib.crc32(fixed)))
    return b"".join((fixed, _CRC.pack(crc), header, body))


class EnvelopeTemplate:
    """Envelopes of messages that differ in id, time and body only: their header is encoded once.

    For what `send` does most; the same bytes as `encode`, at a third of the time.
    """

    def __init__(self, message: Message) -> None:
        """``message``: everything that they share. Raises UsageError where a text of it looks like a gap."""
        gaps = (b"\x00id of the mail\x00", _TIME.pack(_NEVER))
        header = _encode_header(msgspec.structs.replace(message, id=gaps[0], created_at=_NEVER))
        if not all(header.count(gap) == 1 for gap in gaps):
            raise UsageError("a header says what stands for the id or the time of a message in the making")
        self._length = len(header)
        before, rest = header.split(gaps[0])
        between, after = rest.split(gaps[1])
        self.fill: Callable[[bytes, float, bytes], bytes] = self._filler(before, between, after)
        """``fill(id, created_at, body)``: the envelope of one of them."""
        self._parts = before, between, after

    def fill_all(self, ids: Iterable[bytes], created_at: float, bodies: Iterable[bytes]) -> list[bytes]:
        """The envelopes of many that were made at one time, each for half of what `fill` takes."""
        before, between, after = self._parts
        rest, crc32, pack_crc = between + _TIME.pack(created_at) + after, zlib.crc32, _CRC.pack
        size, fixed, check = -1, b"", 0
        out: list[bytes] = []
        add = out.append
        for identity, body in zip(ids, bodies, strict=True):
            if size != len(body):  # often it is that of the last one
                size = len(body)
                fixed = _FIXED.pack(MAGIC, 0, self._length, size)
                check = crc32(before, crc32(fixed))
            tail = identity + rest + body
            add(fixed + pack_crc(crc32(tail, check)) + before + tail)
        return out

    def _filler(self, before: bytes, between: bytes, after: bytes) -> Callable[[bytes, float, bytes], bytes]:
        # A closure, for what it needs is then at hand: to look up eight attributes costs as much as the checksum.
        join, crc32, pack_time, pack_crc, length = b"".join, zlib.crc32, _TIME.pack, _CRC.pack, self._length
        start = -1, b"", 0

        def fill(identity: bytes, created_at: float, body: bytes) -> bytes:
            nonlocal start
            size, fixed, check = start
            if size != len(body):  # often it is that of the last one
                fixed = _FIXED.pack(MAGIC, 0, length, len(body))
                check = crc32(fixed)
                start = len(body), fixed, check
            header = join((before, identity, between, pack_time(created_at), after))
            return join((fixed, pack_crc(crc32(body, crc32(header, check))), header, body))

        return fill


def check(data: bytes) -> int:
    """Verify version, flags, lengths and checksum of a whole envelope; return the header's length.

    Raises BadEnvelope saying what is wrong; FromNewer if nothing is.
    """
    if len(data) < PREFIX:
        raise BadEnvelope(f"{len(data)} bytes are shorter than any envelope")
    magic, flags, header, body = _FIXED.unpack_from(data)
    if not MAGIC <= magic <= LAST_MAGIC:
        raise BadEnvelope(f"first byte is {magic:#04x}: not an envelope of version 1 ({MAGIC:#04x})")
    if header > MAX_ENVELOPE_HEADER or PREFIX + header + body != len(data):
        raise BadEnvelope(f"lengths {header} + {body} do not fit into {len(data)} bytes: torn or damaged")
    # The checksum field itself is skipped. Copying is faster than a view for all but large bodies.
    rest = data[PREFIX:] if len(data) < LARGE else memoryview(data)[PREFIX:]
    if zlib.crc32(rest, zlib.crc32(data[: _FIXED.size])) != _CRC.unpack_from(data, _FIXED.size)[0]:
        raise BadEnvelope("checksum does not match: damaged")
    if magic != MAGIC:  # not before: what is only damaged will not be readable after an upgrade either
        raise FromNewer(
            f"made by a newer dropr: an envelope of version {magic - MAGIC + 1}; this dropr reads version 1"
        )
    if flags & ~KNOWN_FLAGS:
        raise FromNewer(
            f"made by a newer dropr: an envelope with flags {flags:#04x}, one of which this dropr does not know"
        )
    if flags & OUTSIDE and body != _REFERENCE.size:
        raise BadEnvelope(f"a reference of {body} bytes where {_REFERENCE.size} are right")
    return int(header)


def are_sound(envelopes: Iterable[bytes]) -> bool:
    """Whether `check` would find nothing wrong with any of them; for half of its cost where sizes repeat."""
    unpack, crc32, fixed = _CRC.unpack_from, zlib.crc32, _FIXED.size
    known, length, start = b"", 0, 0
    for data in envelopes:
        if data[:fixed] == known:  # version, flags and lengths are those of the one before
            if len(data) != length or crc32(data[PREFIX:], start) != unpack(data, fixed)[0]:
                return False
            continue
        try:
            check(data)
        except BadEnvelope:
            return False
        known, length = data[:fixed], len(data)
        start = crc32(known)
    return True


class UniformBatch:
    """Recognises envelopes that differ from a known one in id, time and body only, without reading their headers.

    For what arrives most: many messages of one lane, all made alike, within the same years. What is recognised is as
    if it had gone through `check` and `header_of`.
    """

    def __init__(self, data: bytes) -> None:
        """``data``: the one to go by. Raises BadEnvelope."""
        length = check(data)
        self.message = message = _header(data, length)
        self._begin, self._end = data[:6], PREFIX + length
        header = data[PREFIX : self._end]
        time = _TIME.pack(message.created_at)
        self.usable = (
            data[1] == 0 and len(message.id) == 16 and header.count(message.id) == 1 and header.count(time) == 1
            and self._fits(header, time)
        )  # fmt: skip
        if self.usable:
            self._id = PREFIX + header.index(message.id)
            self._time = PREFIX + header.index(time) + 1  # with its sign and exponent alike it is a time, and no NaN
            self._before = data[PREFIX : self._id]
            self._between, self._after = data[self._id + 16 : self._time], data[self._time + 7 : self._end]

    def _fits(self, header: bytes, time: bytes) -> bool:
        """Whether the two gaps are where they seem to be: the header with others says what it should say."""
        other = header.replace(self.message.id, bytes(16)).replace(time, bytes(8))
        try:
            wanted = msgspec.structs.replace(self.message, id=bytes(16), created_at=0.0)
            return header.index(self.message.id) + 16 <= header.index(time) and _decode_header(other) == wanted
        except msgspec.MsgspecError:
            return False

    def ids(self, envelopes: Sequence[bytes], max_body: int) -> list[bytes] | None:
        """The ids of envelopes that are sound, alike, and have bodies of at most so many bytes; None if any is not."""
        before, between, after = self._before, self._between, self._after
        # In one step: version to lengths, checksum, before the id, id, up to the time, its last 7 bytes, the rest.
        parts = struct.Struct(f">{_FIXED.size}sI{len(before)}s16s{len(between)}s7x{len(after)}s").unpack_from
        crc32, behind = zlib.crc32, PREFIX
        out: list[bytes] = []
        add = out.append
        known, length, start = b"", 0, 0
        try:
            for data in envelopes:
                fixed, check, first, identity, middle, last = parts(data)
                if fixed != known:  # often all have bodies of one size
                    known = fixed
                    if known[:6] != self._begin:
                        return None
                    size = _FIXED.unpack(known)[3]
                    length, start = self._end + size, crc32(known)
                    if size > max_body:
                        return None
                if (
                    len(data) != length or first != before or middle != between or last != after
                    or crc32(data[behind:], start) != check
                ):  # fmt: skip
                    return None
                add(identity)
        except struct.error:  # shorter than its header
            return None
        return out


def body_of(data: bytes) -> bytes:
    """The body inside of a trusted envelope."""
    return data[PREFIX + _FIXED.unpack_from(data)[2] :]


def reference_of(data: bytes) -> Reference | None:
    """Where the body of a trusted envelope is, if it is outside of it."""
    if not data[1] & OUTSIDE:
        return None
    return Reference(*_REFERENCE.unpack_from(data, len(data) - _REFERENCE.size))


def header_of(data: bytes) -> Message:
    """The header of an envelope whose bytes are trusted already (checked on arrival, checked at rest)."""
    return _header(data, _FIXED.unpack_from(data)[2])


def _header(data: bytes, length: int) -> Message:
    try:
        return _decode_header(data[PREFIX : PREFIX + length])
    except msgspec.MsgspecError as error:
        raise BadEnvelope(f"header cannot be read: {error}") from None


def decode(data: bytes) -> Opened:
    """Check and open an envelope; raises BadEnvelope."""
    length = check(data)
    return Opened(_header(data, length), data[PREFIX + length :])


def body_size(data: bytes) -> int:
    """Length of the body in bytes, wherever it is."""
    outside = reference_of(data)
    return int(_FIXED.unpack_from(data)[3]) if outside is None else outside.size
