"""Writes each file that comes into `incoming/`: beside, then renamed, so that nobody sees half of one."""

import os
import shutil
from pathlib import Path

import dropr_core as dropr

FOLDER = Path("incoming")


def store(work: dropr.Work) -> None:
    """One file. A name that is a path could lead out of the folder: it is refused, and becomes a dead letter."""
    name = work.headers.get("file-name", "")
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise dropr.Reject(f"no name of a file: {name!r}")
    beside = FOLDER / f".{work.id}"
    with work.open() as body, beside.open("wb") as file:
        shutil.copyfileobj(body, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(FOLDER / name)
