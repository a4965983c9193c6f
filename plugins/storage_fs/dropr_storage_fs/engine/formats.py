"""The version of a half's format, and how an older half becomes one of the present version.

Owns which versions are read and which is the oldest one written, and the copy that is put aside before the first
generation of a newer version replaces the last one of an older. A half is migrated by the new generation that begins
whenever it is opened by somebody who has it alone: in one step, like every generation. Must not know what the versions
differ in (`model.journal_version`).
"""

import json
import os
from pathlib import Path

from dropr_core.contracts.context import Context
from dropr_core.errors import StoreTooNew
from dropr_core.storage_kit import migrating
from dropr_storage_fs.engine import journal
from dropr_storage_fs.engine.journal import Journal
from dropr_storage_fs.engine.locking import MARKER
from dropr_storage_fs.files import disk

VERSIONS = (1, 2, 3)
"""Of journals. 2: the snapshot refers to runs of what was processed; 3: to runs of anything that is over."""
OLDEST_WRITTEN = 1
"""A half whose journal is older is migrated. Each version up to now holds what those before it hold, so there was no
need: a journal has the lowest version that says what is in it.
"""
_OF_THE_MOMENT = (".lock", "shared", "syncs", ".new")


def check(directory: Path, opened: Journal) -> None:
    """Raise StoreTooNew if a journal is of a version that this dropr does not know."""
    if opened.version not in VERSIONS:
        raise too_new(directory, opened.version)


def too_new(directory: Path, found: int) -> StoreTooNew:
    """What to say of a half that a newer dropr has written."""
    try:
        made_by = str(json.loads((directory.parent / MARKER).read_bytes()).get("dropr", ""))
    except (OSError, ValueError, AttributeError):
        made_by = ""
    return migrating.too_new(directory, found, max(VERSIONS), made_by)


def check_beside(directory: Path, generation: int) -> None:
    """Whether a half that others have open is of a version that this dropr can share with them.

    Raises StoreTooNew, and StoreBusy if it is an older one than this dropr writes.
    """
    opened = Journal(directory, generation, read_only=True)
    opened.close()
    check(directory, opened)
    if opened.version < OLDEST_WRITTEN:
        raise migrating.open_elsewhere(directory, opened.version, OLDEST_WRITTEN, [directory / "life.lock"])


def put_aside(directory: Path, context: Context) -> None:
    """Copy a half that is about to be migrated. Called by who has it alone. Raises QueueFull, OSError."""
    version = version_there(directory)
    if version is None or version >= OLDEST_WRITTEN:
        return
    data, half = directory.parent, directory.name
    changing = sum(path.stat().st_size for path in _files(directory) if not _stays(path))
    aside = migrating.put_aside(
        data, {half: version}, {half: OLDEST_WRITTEN}, [half], copy=_copy, size=changing,
        work=sum(path.stat().st_size for path in directory.glob("journal.*")),
    )  # fmt: skip
    disk.put_file(data / MARKER, json.dumps({"format": 1, "dropr": migrating.own_version()}).encode())
    context.log.warning(
        "%s: format %d becomes %d, for dropr %s; a copy of before is in %s, which may be removed when this version has "
        "proved itself", directory, version, OLDEST_WRITTEN, migrating.own_version(), aside,
    )  # fmt: skip
    told = {"store": str(directory), "before": {half: version}, "after": {half: OLDEST_WRITTEN}, "copy": str(aside)}
    context.event("migrated", told)


def version_there(directory: Path) -> int | None:
    """Of the newest journal that can be read; None if there is none."""
    for generation in reversed(journal.generations(directory)):
        opened = Journal(directory, generation, read_only=True)
        try:
            if opened.good:
                return int(opened.version)
        finally:
            opened.close()
    return None


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file() and not path.name.endswith(_OF_THE_MOMENT)]


def _stays(path: Path) -> bool:
    """Whether nobody writes to this file any more: a run, or a segment that another one follows."""
    if path.suffix == ".seg":
        return any(other.name > path.name for other in path.parent.glob("*.seg"))
    return path.name.startswith(("remembered.", "outcomes."))


def _copy(half: Path, target: Path) -> None:
    """A half; what stays is not copied but gets a second name."""
    for path in (half, *(path for path in sorted(half.rglob("*")) if path.is_dir())):
        disk.make_directory(target / path.relative_to(half))
    for path in _files(half):
        other = target / path.relative_to(half)
        if _stays(path):
            try:
                os.link(path, other)
                continue
            except OSError:  # a file system without, or too many names
                pass
        migrating.copy_file(path, other)
    for path in (path for path in target.rglob("*") if path.is_dir()):
        disk.flush_directory(path)
