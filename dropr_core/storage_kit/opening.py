"""Opening a store: one process at a time, and on which kind of file system.

Owns the lock that creation and migration need, and the words about directories that cannot keep the promises. Must not
know what a store consists of.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dropr_core.contracts.context import Context
from dropr_core.errors import StoreBusy
from dropr_core.system.ownership import open_private

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"})
MEMORY = frozenset({"tmpfs", "ramfs"})


@contextmanager
def alone(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock on ``path``; wait up to ``patience`` seconds for it. Raises StoreBusy, OSError."""
    fd = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise StoreBusy(
                        f"{path}: another process has been opening this store, or migrating it, for {patience:g} s"
                    ) from None
                time.sleep(0.002)
        yield
    finally:
        os.close(fd)


def warn_of_medium(context: Context) -> None:
    """Say so if the directory is on a file system that cannot keep the promises of a durable store."""
    kind = file_system(context.data)
    if kind in NETWORK:
        context.log.warning("%s is on a network file system (%s): locks fail there", context.data, kind)
        context.event("network_file_system", {"store": str(context.data), "type": kind})
    elif kind in MEMORY:
        context.log.warning("%s is in memory (%s): nothing survives a reboot", context.data, kind)
        context.event("not_durable", {"store": str(context.data), "type": kind})


def file_system(directory: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that holds ``directory``; empty if it cannot be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        place = directory.resolve()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].encode("latin-1", "backslashreplace").decode("unicode_escape"))
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind
