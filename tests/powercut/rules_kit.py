"""What the tests of the rules share: a small disk, and what a cut leaves of it as plain values."""

from powercut.disk.survivors import POLICIES, survivors

SECTOR = 16


def left(disk, policy="lose", seed=0):
    """What a cut leaves: name to content, or to the same of a directory."""

    def shown(tree):
        return {name.decode(): kept.content if hasattr(kept, "content") else shown(kept.entries)
                for name, kept in tree.items()}  # fmt: skip

    return shown(survivors(disk, policy, seed))


def every(disk, seeds=20):
    """What cuts under every policy leave."""
    return [left(disk, policy, seed) for policy in POLICIES for seed in range(seeds)]
