"""Small bodies that become huge when they are unpacked or believed.

Owns them: runs compressed by what comes with Python, headers that claim billions, entities of entities. They are
made as they are asked for. Must not know who reads them.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator

_STEP = 1 << 20


def bombs(size: int) -> Iterator[tuple[str, bytes]]:
    """(What it is, the body); those that are compressed have ``size`` bytes within."""
    raw, text_size, adler, crc = _deflated(size // _STEP)
    yield "a text compressed without a header", raw
    yield "a text compressed by zlib", b"\x78\xda" + raw + adler.to_bytes(4, "big")
    zipped = b"\x1f\x8b\x08\0\0\0\0\0\2\xff" + raw + struct.pack("<II", crc, text_size & 0xFFFFFFFF)
    yield "a text compressed by gzip", zipped
    yield "a text compressed by gzip twice", gzip.compress(zipped)
    for kind, head in (("list", b"\xdd"), ("mapping", b"\xdf"), ("bytes", b"\xc6"), ("text", b"\xdb")):
        yield f"MessagePack that claims a {kind} of four billion", head + b"\xff" * 4 + b"\0" * 60
    for kind, head in (("list", b"\x9b"), ("mapping", b"\xbb"), ("bytes", b"\x5b"), ("text", b"\x7b")):
        yield f"CBOR that claims a {kind} of two to the 40", head + b"\0\0\1" + b"\0" * 65
    for width in (2, 4, 8):
        for most in (b"\x7f" + b"\xff" * (width - 1), b"\xff" * (width - 1) + b"\x7f", b"\xff" * width):
            yield f"a length of {most.hex()} before nothing", most + b"\0" * 60
    entities = "".join(f'<!ENTITY l{at + 1} "{f"&l{at};" * 10}">' for at in range(8))
    yield "XML with entities of entities", f'<!DOCTYPE x [<!ENTITY l0 "lol">{entities}]><x>&l8;</x>'.encode()
    yield "numbers with exponents", b"[1e999999999, 10e-999999999, 1" + b"0" * 5000 + b"]"


def _deflated(steps: int) -> tuple[bytes, int, int, int]:
    """A text in quotes of so many steps, deflated (RFC 1951); its size, and its two checksums.

    One step is packed, and then repeated: packing all of it would take seconds.
    """
    packer, step = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), b"a" * _STEP
    first = packer.compress(b'"') + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(step) + packer.flush(zlib.Z_FULL_FLUSH)
    last = packer.compress(b'"') + packer.flush(zlib.Z_FINISH)
    adler, crc = 1, 0
    for part in [b'"', *[step] * steps, b'"']:
        adler, crc = zlib.adler32(part, adler), zlib.crc32(part, crc)
    return first + middle * steps + last, steps * _STEP + 2, adler, crc


__all__ = ["bombs"]
