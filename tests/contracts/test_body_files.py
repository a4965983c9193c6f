"""The files of large bodies keep the contract of bodies."""

from contextlib import contextmanager

import pytest

from dropr_core.bodies.files import name_of
from dropr_core.bodies.store import BodyFiles
from dropr_core.testing.bodies_contract import BodiesCase, BodiesContract


def damage(bodies, peer, identity, reference):
    folder = bodies.directory / "sent" if peer is None else bodies.directory / "come" / peer.encode().hex()
    path = folder / name_of(identity, reference)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(reference.size // 2)
        file.write(b"damaged")


@contextmanager
def full(bodies):
    bodies._min_free = 1 << 62
    yield
    bodies._min_free = 0


class TestBodyFiles(BodiesContract):
    """Files of one machine."""

    @pytest.fixture
    def bodies_case(self):
        return BodiesCase(make=lambda directory: BodyFiles(directory / "bodies", 0), damage=damage, full=full)
