"""The failures that can be injected: which operation, on which path, and what happens to it.

Owns the names of the operations and the rule that decides whether one is struck.
"""

from __future__ import annotations

import errno
import fnmatch
from dataclasses import dataclass

CHANGES = (
    "write", "truncate", "fsync", "fsyncdir",
    "create", "mkdir", "link", "unlink", "rmdir", "rename",
)  # fmt: skip
"""The operations that are counted, and before which the power may fail."""

FALLIBLE = (*CHANGES, "open", "open-write", "read")
"""The operations that may be made to fail; ``open-write`` is an open of what is there that may write to it."""

SPECIAL = {"lost": ("fsync",), "lie": ("fsync", "fsyncdir"), "short": ("write",)}
"""Actions beside the names of errnos, and the operations that they are for."""


@dataclass
class Fault:
    """One failure.

    ``operation`` is one of `FALLIBLE`, or ``any`` for all of `CHANGES`. ``action`` is one of:

    * the name of an errno (``EIO``, ``ENOSPC``, ``EROFS``, ``EMFILE``): the operation fails and does nothing;
    * ``lost`` (fsync): fails with EIO, and what was to be written never will be, though later fsyncs succeed;
    * ``lie`` (fsync, fsyncdir): reports success and does nothing;
    * ``short`` (write): half of the bytes are written.

    ``path`` is a pattern of the whole path below the mount, such as ``*-wal``. The first ``skip`` operations that
    match pass; then ``times`` are struck (-1: for ever). Raises ValueError if there is no such thing.
    """

    operation: str
    action: str
    path: str = "*"
    skip: int = 0
    times: int = 1

    def __post_init__(self) -> None:
        if self.operation not in ("any", *FALLIBLE):
            raise ValueError(f"no such operation: {self.operation}")
        if self.action in SPECIAL:
            if self.operation not in SPECIAL[self.action]:
                raise ValueError(f"{self.operation} knows no {self.action}")
        elif self.action not in errno.errorcode.values():
            raise ValueError(f"no such action: {self.action}")

    @property
    def code(self) -> int:
        """The errno, or 0 if the operation goes on otherwise."""
        return 0 if self.action in SPECIAL else int(getattr(errno, self.action))

    def strikes(self, operation: str, path: str) -> bool:
        """Whether this operation is struck; counts it."""
        covered = operation in CHANGES if self.operation == "any" else operation == self.operation
        if not (self.times and covered and fnmatch.fnmatchcase(path, self.path)):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times > 0:
            self.times -= 1
        return True
