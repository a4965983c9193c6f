"""The digest of a large body: a hash over the hashes of its leaves, so that pieces can be vouched for one by one.

Owns how the digest is made. Must not know files or frames.

A body is cut into leaves of 256 KiB, the last one shorter. Its digest is the SHA-256 of the leaves' SHA-256
digests, one after the other (a hash list, as in BitTorrent; Merkle, 1979). Who sends a piece sends the digests
of its leaves along, which it knows since the body was written; who takes it in checks each leaf as it comes,
and knows the digest of the whole at the end without reading anything again.
"""

import hashlib

LEAF = 256 * 1024
"""Bytes of a leaf; pieces begin at multiples of it."""

SIZE = 32
"""Bytes of a leaf's digest."""


def leaves_of(data: bytes | memoryview) -> bytes:
    """The digests of the leaves of a piece that begins at a leaf's beginning."""
    view = memoryview(data)
    return b"".join([hashlib.sha256(view[at : at + LEAF]).digest() for at in range(0, len(view), LEAF)])


def count(size: int) -> int:
    """How many leaves so many bytes have."""
    return -(-size // LEAF)


def digest_of(leaves: bytes | bytearray) -> bytes:
    """The digest of a body, from the digests of its leaves."""
    return hashlib.sha256(leaves).digest()


class LeafHash:
    """The digests of the leaves of what is read in pieces of any size."""

    def __init__(self) -> None:
        self._done = bytearray()
        self._open = hashlib.sha256()
        self._room = LEAF

    def update(self, data: bytes | memoryview) -> None:
        """Take what follows."""
        view = memoryview(data)
        while view:
            part = view[: self._room]
            self._open.update(part)
            self._room -= len(part)
            if self._room == 0:
                self._done += self._open.digest()
                self._open, self._room = hashlib.sha256(), LEAF
            view = view[len(part) :]

    def leaves(self) -> bytes:
        """The digests of all leaves so far, the last one as if it ended here."""
        return bytes(self._done) + (self._open.digest() if self._room < LEAF else b"")

    def digest(self) -> bytes:
        """The digest of the body, if it ends here."""
        return digest_of(self.leaves())


__all__ = ["LEAF", "SIZE", "LeafHash", "count", "digest_of", "leaves_of"]
