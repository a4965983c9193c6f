"""The files of large bodies, looked through while nobody works: is each whole, and does anybody need it.

Owns what a repair does with a file: a damaged one is moved aside, and nothing is deleted. Must not know messages.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dropr_core.bodies.files import PIECE, id_in, name_of
from dropr_core.contracts.bodies import Leftovers
from dropr_core.model.chunk_digest import LeafHash
from dropr_core.model.envelope import Reference
from dropr_core.model.names import MessageId
from dropr_core.system.files import sync_directory
from dropr_core.system.ownership import make_private_directory

ASIDE = "damaged"
"""Directory in ``bodies/`` for what a repair moved away; no sweep looks there."""


def examine(
    root: Path, path: Path, reference: Reference, trailer: int, *, repair: bool, say: Callable[[str], None]
) -> str:
    """What is wrong with the file of a body, behind which ``trailer`` bytes of digests stand; empty: nothing."""
    digest, left = LeafHash(), reference.size
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=0) as file:
            while left and (piece := file.read(min(PIECE, left))):
                digest.update(piece)
                left -= len(piece)
                say(f"reading {path}, {left} of {reference.size} bytes left")
            behind = file.read() if not left else b""
        sound = not left and digest.digest() == reference.digest
        if sound and behind == digest.leaves()[:trailer]:
            return ""
        if sound and trailer and repair:
            with path.open("r+b", buffering=0) as file:
                os.pwrite(file.fileno(), digest.leaves(), reference.size)
                os.ftruncate(file.fileno(), reference.size + trailer)
                os.fsync(file.fileno())
            return ""
    except FileNotFoundError:
        return f"its body, the file {path}, is missing"
    except OSError as error:
        return f"its body, the file {path}, cannot be read ({error.strerror})"
    right = reference.size + trailer
    why = f"has {size} bytes, not {right}" if size != right else "has another digest"
    where = f", moved to {_move_aside(root, path)}" if repair else ""
    return f"its body, the file {path}, is damaged: it {why}{where}"


def _move_aside(root: Path, path: Path) -> Path:
    """Move a file where no sweep takes it; returns its new place."""
    directory = root / ASIDE
    make_private_directory(directory)
    place, number = directory / path.name, 1
    while place.exists():
        number += 1
        place = directory / f"{path.name}-{number}"
    path.replace(place)
    sync_directory(directory)
    sync_directory(path.parent)
    return place


def leftovers(
    root: Path, sent: Callable[[MessageId], Reference | None], come: Callable[[MessageId], Reference | None], *,
    aside: bool, say: Callable[[str], None],
) -> Iterator[Leftovers | tuple[str, Exception]]:  # fmt: skip
    """Files that no message refers to, folder by folder, or why one could not be looked through."""
    folders = [(root / "sent", sent)]
    if (root / "come").is_dir():
        folders += [(path, come) for path in sorted((root / "come").iterdir()) if path.is_dir()]
    for folder, reference_of in folders:
        if folder.is_dir():
            try:
                yield _look_through(root, folder, reference_of, aside=aside, say=say)
            except Exception as error:
                yield str(folder), error


def _look_through(
    root: Path, folder: Path, reference_of: Callable[[MessageId], Reference | None], *, aside: bool,
    say: Callable[[str], None],
) -> Leftovers:  # fmt: skip
    unfinished = orphans = size = moved = 0
    for path in folder.iterdir():
        say(f"looking through {folder}")
        if path.suffix:
            unfinished += 1
            continue
        outside = reference_of(id_in(path.name)) if id_in(path.name) else None
        if outside is None or name_of(id_in(path.name), outside) != path.name:
            orphans, size = orphans + 1, size + path.stat().st_size
            if aside:
                _move_aside(root, path)
                moved += 1
    return Leftovers(str(folder), unfinished, orphans, size, moved, str(root / ASIDE))
