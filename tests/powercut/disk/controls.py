"""What happens before each operation: it is counted, explored, cut off or made to fail.

Owns the plans that a test makes (orders by name, see `Controls.obey`) and the moment of the power cut. Must not know
the kernel's protocol, nor by what channel orders come.
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powercut.disk import trees
from powercut.disk.exploring import Explorer
from powercut.disk.faults import CHANGES, Fault
from powercut.disk.filesystem import FileSystem, failure
from powercut.disk.survivors import POLICIES, Policy, survivors


@dataclass
class CutPlan:
    """Cut before the ``n``-th matching operation from now. ``operation`` is one of `CHANGES`, or ``any``."""

    n: int
    policy: Policy
    seed: int
    operation: str = "any"

    def __post_init__(self) -> None:
        if self.operation not in ("any", *CHANGES):
            raise ValueError(f"no such operation: {self.operation}")
        if self.policy not in POLICIES:
            raise ValueError(f"no such policy: {self.policy}")

    def due(self, operation: str) -> bool:
        """Whether it is now; counts the operation."""
        if self.operation in ("any", operation):
            self.n -= 1
        return self.n <= 0


class Controls:
    """The switchboard of one file system. After a cut ``backing`` holds what survived."""

    def __init__(self, disk: FileSystem, backing: Path) -> None:
        self.dead = False
        """Whether the power is gone."""
        self._disk = disk
        self._backing = backing
        self._counts: Counter[str] = Counter()
        self._faults: list[Fault] = []
        self._cut_plan: CutPlan | None = None
        self._explorer: Explorer | None = None

    def before(self, operation: str, path: str) -> str:
        """One of `CHANGES` is about to be done. The special action for it, or an empty text.

        Raises OSError if it fails instead: EIO once the power is gone.
        """
        self._counts[operation] += 1
        if self._explorer:
            self._explorer.look(self._disk, self._counts.total(), f"{operation} {path}")
        if self._cut_plan and self._cut_plan.due(operation):
            self.cut(self._cut_plan.policy, self._cut_plan.seed)
            raise failure(errno.EIO)
        return self.may_fail(operation, path)

    def may_fail(self, operation: str, path: str) -> str:
        """As `before`, for what changes nothing and is not counted."""
        for fault in self._faults:
            if fault.strikes(operation, path):
                if fault.code:
                    raise failure(fault.code)
                return fault.action
        return ""

    def cut(self, policy: Policy, seed: int) -> None:
        """Cut the power, if it is still there."""
        if policy not in POLICIES:
            raise ValueError(f"no such policy: {policy}")
        if not self.dead:
            self.dead = True
            trees.write(survivors(self._disk, policy, seed), self._backing)

    def stop(self) -> None:
        """A clean unmount: without a cut before it everything written is kept."""
        if not self.dead:
            trees.write(survivors(self._disk, "keep", 0), self._backing)

    def obey(self, order: str, about: dict[str, Any]) -> dict[str, Any]:
        """Do what a test orders: ``cut``, ``cut_at``, ``explore``, ``fault``, ``clear``, ``settle`` or ``stats``.

        ``about`` are the fields of the plan. Returns the counts. Raises ValueError if there is no such thing.
        """
        match order:
            case "cut":
                self.cut(**about)
            case "cut_at":
                self._cut_plan = CutPlan(**about)
            case "explore":
                folder, ack_file = Path(about.pop("folder")), about.pop("ack_file")
                self._explorer = Explorer(folder, ack_file=Path(ack_file) if ack_file else None, **about)
            case "fault":
                self._faults.append(Fault(**about))
            case "clear":
                self._faults, self._cut_plan, self._explorer = [], None, None
            case "settle":
                self._disk.settle()
            case "stats":
                pass
            case _:
                raise ValueError(f"no such order: {order}")
        return self._stats()

    def _stats(self) -> dict[str, Any]:
        explorer = self._explorer
        return {
            "dead": self.dead,
            "counts": dict(self._counts),
            "used": self._disk.used,
            "images": explorer.images if explorer else 0,
            "complete": explorer.complete if explorer else True,
        }
