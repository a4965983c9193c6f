"""When each peer was last heard of: for `dropr status`, above all about peers that only fetch.

Owns one empty file for each peer whose time is that moment. Nothing is decided by it. Must not know what was asked.
"""

import contextlib
import os
import time
from pathlib import Path

from dropr_core.system.ownership import make_private_directory, open_private

FOLDER = "heard"


def note_contact(run_directory: Path, peer: str) -> None:
    """The peer asked something now; a disk that is full or read-only costs nothing but this note."""
    path = run_directory / FOLDER / peer.encode().hex()
    with contextlib.suppress(OSError):
        try:
            os.utime(path)
        except FileNotFoundError:
            make_private_directory(path.parent)
            os.close(open_private(path, os.O_CREAT | os.O_WRONLY))
            os.utime(path)


def read_contacts(run_directory: Path) -> dict[str, float]:
    """Peer → seconds since it was last heard of, by the wall clock."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir(run_directory / FOLDER):
            with contextlib.suppress(OSError, ValueError):
                found[bytes.fromhex(entry.name).decode()] = max(0.0, time.time() - entry.stat().st_mtime)
    return found
