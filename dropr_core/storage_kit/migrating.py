"""Before a store of an older format is changed: who else has it open, and the copy that is put aside.

Owns what every storage on a local disk needs of it: the copy and its note, how one is found again, and the words. Who
migrates has the store alone and has taken a copy; so going back is possible, and no process reads tables that it does
not know. Must not know what a store consists of.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path

import attrs
import msgspec

from dropr_core.errors import QueueFull, StoreBusy, StoreTooNew
from dropr_core.system.files import replace_file, sync_directory
from dropr_core.system.lock_holders import holders, name_holders
from dropr_core.system.ownership import make_private_directory, open_private

PREFIX, NOTE = "before-migration-", "formats.json"
RUNBOOK = "docs/operations/upgrading.md"
Formats = Mapping[str, int]
"""Half → the version of its format."""


@attrs.frozen
class Aside:
    """A copy that was put aside before a migration."""

    directory: Path
    before: Formats
    after: Formats


def open_elsewhere(what: Path, before: int, after: int, locks: Iterable[Path]) -> StoreBusy:
    """What to say where a store has to be migrated and other processes have it open. ``locks``: what they hold."""
    who = name_holders(holders(*locks))
    named = f": {who}" if who else ""
    return StoreBusy(
        f"{what} has format {before}, of an older dropr, and other processes have it open{named}; it becomes format "
        f"{after} only when nobody uses it: stop them, start this version, and then theirs with this version "
        f"({RUNBOOK})"
    )


def too_new(what: Path, found: int, known: int, made_by: str) -> StoreTooNew:
    """What to say of a store that a newer dropr made. ``made_by``: its version, if the store says it."""
    by = f"dropr {made_by}" if made_by else "a newer dropr"
    before = [aside.directory.name for aside in copies(what.parent) if aside.after.get(what.stem, 0) == found]
    back = (
        f"or put back the copy made before the migration, {before[-1]} beside it ({RUNBOOK})"
        if before
        else f"or put back a backup that was made before ({RUNBOOK})"
    )
    return StoreTooNew(
        f"{what} has format {found}, of {by}; this is dropr {own_version()}, which knows formats up to {known}: "
        f"install the newer dropr again, {back}; nothing was changed"
    )


def own_version() -> str:
    """The version of this dropr, for people."""
    return metadata.version("dropr-core")


def copies(data: Path) -> list[Aside]:
    """The whole copies in a data directory, the newest last."""
    found = []
    for directory in data.glob(f"{PREFIX}*"):
        try:
            note = json.loads((directory / NOTE).read_text(encoding="ascii"))
            found.append((directory.stat().st_mtime, Aside(directory, note["before"], note["after"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # one that was being made
    return [aside for _, aside in sorted(found, key=lambda one: one[0])]


def put_aside(
    data: Path, before: Formats, after: Formats, names: Iterable[str], *,
    copy: Callable[[Path, Path], None], size: int, work: int,
) -> Path:  # fmt: skip
    """Copy what is called ``names`` in ``data`` to a directory beside it, durably and in one step; its path.

    A migration that was stopped in the middle, with one half done, goes on with the copy made at its beginning.
    ``copy``: copies one of them; ``size``: bytes that all of them take, ``work``: bytes that are needed besides.
    Raises QueueFull, OSError; then nothing was changed.
    """
    for aside in copies(data):
        same = aside.after == after and aside.before.keys() == before.keys() and aside.before != before
        if same and all(version in {aside.before[half], after[half]} for half, version in before.items()):
            return aside.directory
    check_room(data, size + work)
    target = data / f"{PREFIX}{'-'.join(f'{half}-{before[half]}' for half in sorted(before))}"
    fresh = target.with_name(f"{target.name}.new")
    for leftover in (fresh, target):  # of a kill; or the store went on in the old format after that copy
        if leftover.exists():
            shutil.rmtree(leftover)
    make_private_directory(fresh)
    for name in names:
        if (data / name).exists():
            copy(data / name, fresh / name)
    note = msgspec.json.encode({"before": dict(before), "after": dict(after)})
    replace_file(fresh / NOTE, note, durable=True)
    os.rename(fresh, target)  # noqa: PTH104 -- one of the calls at which the tests kill
    sync_directory(data)
    return target


def check_room(data: Path, needed: int) -> None:
    """Raise QueueFull if the disk has no room for a migration. Raises OSError."""
    free = _free(data)
    if free < needed:
        raise QueueFull(
            f"{data}: to migrate this store takes {needed:,} bytes, for a copy of it and for the work, and {free:,} "
            "are free; make room, then start again; nothing was changed, and the older dropr can go on with it"
        )


def _free(data: Path) -> int:
    found = os.statvfs(data)
    return found.f_bavail * found.f_frsize


def copy_file(source: Path, target: Path) -> None:
    """One file, on stable storage, mode 0600. Raises OSError."""
    made = open_private(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        with source.open("rb") as read:
            while block := read.read(1 << 20):
                view = memoryview(block)
                while view:
                    view = view[os.write(made, view) :]
        os.fsync(made)
    finally:
        os.close(made)
