"""How a half is opened: alone, beside others, or only to look.

Owns who recovers: the first one at a half that nobody has open. Must not know what is recovered.
"""

from typing import TypeVar

from dropr_core.storage_kit.opening import alone
from dropr_core.storage_kit.syncs import Syncs
from dropr_storage_fs.engine import formats
from dropr_storage_fs.engine.locking import MARKER, HalfLock
from dropr_storage_fs.engine.recovery import Recovery
from dropr_storage_fs.engine.replica import Replica
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files import disk, shared
from dropr_storage_fs.files.shared import Shared

S = TypeVar("S", bound=HalfState)


def open_to_write(replica: Replica[S], lock: HalfLock, recovery: Recovery[S], syncs: Syncs, patience: float) -> None:
    """Open a half, making it if it is not there; wait up to ``patience`` seconds for another one that opens it. Raises
    OSError, StoreBusy, StoreTooNew; QueueFull: no room to migrate it.
    """
    directory = replica.directory
    disk.make_directory(directory)
    disk.make_directory(directory / "logs")
    with alone(directory / "open.lock", patience):
        only = lock.open_to_write()
        syncs.open()
        replica.attach(Shared(directory / "shared"))
        if not only:
            with lock:
                formats.check_beside(directory, replica.shared[shared.GENERATION])
        if only:
            formats.put_aside(directory, replica.context)
            replica.shared.clear()
            syncs.look()
            met = syncs.before_mending()
            recovery.recover(cut=True, made=(directory.parent / MARKER).exists())
            syncs.mended(met)
        lock.share()


def open_to_look(replica: Replica[S], lock: HalfLock, recovery: Recovery[S]) -> None:
    """Follow those who have it open; without any (a copy of a dead machine), read what there is. Raises OSError."""
    directory = replica.directory
    if (directory / "life.lock").exists() and (directory / "shared").exists() and lock.open_to_follow():
        replica.attach(Shared(directory / "shared", read_only=True))
        return
    replica.alone = True
    recovery.recover(cut=False, made=True)
