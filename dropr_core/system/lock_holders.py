"""Which processes have a file open and locked: for a person who has to stop them.

Owns how Linux says it (`/proc/locks`). Nothing is decided by it. Must not know what the file is.
"""

import contextlib
import os
from pathlib import Path

SHOWN = 5
"""Processes that are named; of more only the number is told."""


def holders(*paths: Path) -> list[int]:
    """The processes that hold a lock on one of the files, without this one, as far as it can be told."""
    inodes = {str(path.stat().st_ino) for path in paths if path.exists()}
    found = set()
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = [word for word in line.split() if word != "->"]
            if words[5].rpartition(":")[2] in inodes and int(words[4]) not in {-1, os.getpid()}:
                found.add(int(words[4]))
    return sorted(pid for pid in found if _has_open(pid, {str(path) for path in paths}))


def _has_open(pid: int, names: set[str]) -> bool:
    """Another file system may have a file with the same number."""
    try:
        return any(str(entry.readlink()) in names for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # another user's, or gone
        return Path(f"/proc/{pid}").exists()


def name_holders(pids: list[int]) -> str:
    """They in words: ``1234 (dropr daemon -c shop.yaml) and 1240 (python app.py)``; empty if there is none."""
    words = [f"{pid} ({_command(pid)})" for pid in pids[:SHOWN]]
    if len(pids) > SHOWN:
        words.append(f"{len(pids) - SHOWN} more")
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "?"
    return " ".join(word for word in words if word)[:80] or "?"
