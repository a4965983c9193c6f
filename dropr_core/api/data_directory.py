"""The directory in which everything of one node stands.

Owns its making (only this user may look into it) and the id that a node has from birth. Must not know what stores
and processes keep in it.
"""

import os
from pathlib import Path

from dropr_core.errors import StoreCorrupt, StoreReadOnly
from dropr_core.system.files import create_text
from dropr_core.system.os_errors import NO_HANDLES, NO_ROOM, store_error
from dropr_core.system.ownership import make_private_directory


def prepare(data: Path, *, read_only: bool) -> bytes:
    """Make the data directory (0700) and the node's random 128-bit id; return the id.

    Raises StoreReadOnly if it cannot be made or read, QueueFull for want of room or file handles,
    StoreCorrupt if what stands there is no id.
    """
    path = data / "node.id"
    try:
        if not read_only:
            make_private_directory(data, parents=True)
            for sub in ("run", "consumers"):
                make_private_directory(data / sub)
            if not path.exists():
                create_text(path, os.urandom(16).hex())
        return bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        if error.errno in NO_ROOM | NO_HANDLES:
            raise store_error(error, data) from error
        raise StoreReadOnly(
            f"{data}: {error.strerror or error}; the data directory must exist and belong to this user"
        ) from None
    except ValueError:
        raise StoreCorrupt(
            f"{path} does not hold a node id (32 hexadecimal digits); restore it, or remove it to get a new one"
        ) from None
