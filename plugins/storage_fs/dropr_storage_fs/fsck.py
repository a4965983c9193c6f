"""The part of `dropr fsck` that knows the files of this storage.

Owns telling what opening met, and reading every record of the files of what is remembered. A repair is what opening
does anyway; messages are looked at by the host. Must not know how anything is mended.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dropr_core.contracts.storage import Finding
from dropr_core.errors import Held
from dropr_storage_fs.engine.run_files import RunFiles
from dropr_storage_fs.files import disk

Event = Callable[[str, Mapping[str, Any]], None]
HALVES = ("outbox", "inbox")


class Witness:
    """Hears what opening and reading say of damage."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self.heard: list[tuple[str, Mapping[str, Any]]] = []

    def __call__(self, event: str, details: Mapping[str, Any]) -> None:
        """Remember it, and tell others."""
        if event in {"corrupt", "torn"}:
            self.heard.append((event, details))
        self._event(event, details)


def all_sound(files: Iterable[tuple[RunFiles, Iterable[int]]]) -> bool:
    """Whether every record of these files can be read; what cannot is told."""
    sound = True
    for kind, numbers in files:
        for number in numbers:
            file = kind.run(number)
            for _ in file.everything() if file is not None else ():
                pass
            sound = kind.sound(number) and sound
    return sound


def findings(witness: Witness, *, repair: bool) -> Iterator[Finding]:
    """What was met; a repair has mended it."""
    for event, details in witness.heard:
        path = Path(str(details["file"]))
        half = next((one for one in HALVES if one in path.parts), "store")
        if event == "torn":
            text = f"{details['bytes']} bytes from offset {details['from']} on are a torn end: none of it was promised"
            yield Finding(half, "note", str(path), text)
        else:
            where = f" (from offset {details['from']})" if "from" in details else ""
            remedy = "goes on without it; what is damaged is kept beside"
            yield Finding(half, "damage", str(path), f"{details['error']}{where}", remedy, repair)


def check_nobody_has_it_open(data: Path) -> None:
    """Raises Held if another process has a half open, before anything is changed."""
    for half in HALVES:
        try:
            fd = disk.open_file(data / half / "life.lock")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(f"another process has {data / half} open; stop every process of this node first") from None
        finally:
            os.close(fd)
