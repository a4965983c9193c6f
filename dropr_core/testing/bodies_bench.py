"""What every contract test of large bodies stands on: the fixtures, and how bodies are sent and arrive.

Owns `BodiesCase`, and `BodiesTests`, the base of the contract's classes. Must not know what is tested.
"""

import io
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from dropr_core.contracts.bodies import Bodies
from dropr_core.model.chunk_digest import LEAF, digest_of, leaves_of
from dropr_core.model.envelope import Reference
from dropr_core.model.names import IdMaker, MessageId
from dropr_core.testing.contract import Contract, shut

PEER = "shop"

LATER = 4e9
"""A wall clock long after everything in these tests."""


@attrs.frozen
class BodiesCase:
    """What the tests need to know."""

    make: Callable[[Path], Bodies]
    """Opens the bodies of the node in a directory; opened twice, both are the same, as of two machines (or, where only
    one machine can have them, of two processes). The tests close them.
    """
    together: bool = False
    """Whether one body may arrive at both at the same time; else one lets go of it before the other goes on."""
    damage: Callable[[Bodies, str | None, MessageId, Reference], None] | None = None
    """Changes some bytes in the middle of a body of the inbox (of the outbox: the second argument is None), at rest."""
    full: Callable[[Bodies], AbstractContextManager[Any]] | None = None
    """While it is entered there is no room for what these bodies write."""


class Slow(io.RawIOBase):
    """A stream that stops in the middle until it is allowed to go on."""

    def __init__(self, data: bytes, stop: Callable[[], None]) -> None:
        self._data, self._stop, self._at = data, stop, 0

    def read(self, size: int = -1, /) -> bytes:
        """A quarter at a time."""
        if self._at and self._at >= len(self._data) // 2:
            self._stop()
        piece = self._data[self._at : self._at + min(size, len(self._data) // 4)]
        self._at += len(piece)
        return piece


def some(size: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere."""
    return random.Random(size * 31 + seed).randbytes(size)  # noqa: S311 - no secret


def reference_of(data: bytes) -> Reference:
    """What an envelope would say of a body."""
    return Reference(len(data), digest_of(leaves_of(data)))


def never(_identity: MessageId) -> bool:
    """No message is kept."""
    return False


def until(condition: Callable[[], bool], what: str, tries: int = 3000) -> None:
    """Wait for what happens by itself within moments."""
    for _ in range(tries):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


class BodiesTests(Contract):
    """Base of the contract's classes: the fixture that an author writes, and those of the tests."""

    @pytest.fixture
    def bodies_case(self) -> BodiesCase:
        """Override this."""
        raise NotImplementedError("write the fixture bodies_case in your test class")

    @pytest.fixture
    def new_id(self) -> IdMaker:
        """Makes ids."""
        return IdMaker()

    @pytest.fixture
    def machine(self, bodies_case: BodiesCase, tmp_path: Path) -> Iterator[Callable[[], Bodies]]:
        """Opens the bodies once more, as another machine."""
        directory = tmp_path / "data"
        directory.mkdir(mode=0o700)
        with ExitStack() as stack:

            def open_() -> Bodies:
                bodies = bodies_case.make(directory)
                stack.callback(shut, bodies, self.patience)
                return bodies

            yield open_

    @pytest.fixture
    def here(self, machine: Callable[[], Bodies]) -> Bodies:
        """One machine."""
        return machine()

    @pytest.fixture
    def there(self, machine: Callable[[], Bodies]) -> Bodies:
        """Another."""
        return machine()

    @staticmethod
    def send(bodies: Bodies, identity: MessageId, data: bytes, **more: Any) -> Reference:
        """A body whose message is stored."""
        written = bodies.write(identity, io.BytesIO(data), **more)
        written.release()
        return written.reference

    @staticmethod
    def bring(bodies: Bodies, identity: MessageId, data: bytes, peer: str = PEER, upto: int | None = None) -> Reference:
        """Let a body arrive, or its first pieces."""
        reference, arrivals = reference_of(data), bodies.arrivals()
        one = arrivals.of(peer, identity, reference)
        for offset in range(one.have(), len(data) if upto is None else upto, LEAF):
            piece = data[offset : offset + LEAF]
            one.write(offset, piece, leaves_of(piece))
        arrivals.close()
        return reference


__all__ = ["LATER", "PEER", "BodiesCase", "BodiesTests", "Slow", "never", "reference_of", "some", "until"]
