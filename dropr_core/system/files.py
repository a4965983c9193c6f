"""Small private files that are replaced whole.

Owns one primitive: readers see the old text or the new one, and nobody but the owner sees either.
Must not know what the texts mean.
"""

import os
from pathlib import Path


def replace_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Make ``text`` the content of ``path`` (mode 0600) in one step. Raises OSError.

    ``durable``: on stable storage when it returns, name included.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    fd = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(fd)
    temporary.replace(path)
    if durable:
        sync_directory(path.parent)


def create_text(path: Path, text: str) -> None:
    """Make ``path`` with ``text``, durably and whole, unless it exists: then nothing. Raises OSError.

    Several processes may do it at once; one wins, and nobody ever sees half of it.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    replace_text(temporary, text, durable=True)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on stable storage. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
