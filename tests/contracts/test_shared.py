"""What machines share, in memory (testing/shared_memory.py), keeps the contract as a storage's own must."""

import pytest

from dropr_core.testing import SharedCase, SharedContract
from dropr_core.testing.shared_memory import World


class TestInMemory(SharedContract):
    """The kit's own."""

    @pytest.fixture
    def shared_case(self):
        world, machines = World(), []

        def machine():
            machines.append(world.machine())
            return machines[-1]

        def cut(one):
            one.cut()
            one.mend()

        yield SharedCase(machine, lambda one: one.close(), cut)
        for one in machines:
            one.close()
