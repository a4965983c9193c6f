"""Whose files are: what root makes in somebody's store belongs to that somebody.

Owns the one rule that keeps a command which was run as root (`sudo dropr send`) from leaving files that the node's own
processes cannot read: like SQLite's files, a new file gets the owner of the directory it stands in. Must not know what
is made.
"""

import os
import stat
from pathlib import Path


def keep_owner(made: int, directory: Path) -> None:
    """Give what this process has just made in ``directory``, open as a descriptor, to the directory's owner.

    Does nothing unless this process is root's. What may be somebody else's file (another owner, more than one name) is
    left alone: a name in a directory that others write to proves nothing. Raises OSError.
    """
    if os.geteuid() != 0:
        return
    owner, mine = directory.stat(), os.fstat(made)
    if (owner.st_uid, owner.st_gid) == (mine.st_uid, mine.st_gid) or mine.st_uid != 0:
        return
    if not stat.S_ISDIR(mine.st_mode) and mine.st_nlink != 1:
        return
    os.fchown(made, owner.st_uid, owner.st_gid)


def make_private_directory(path: Path, *, exist_ok: bool = True, parents: bool = False) -> None:
    """`Path.mkdir` with mode 0700, for the owner of the directory above. Raises OSError."""
    if parents and not path.parent.exists():
        make_private_directory(path.parent, parents=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not exist_ok or not path.is_dir():
            raise
    else:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            keep_owner(fd, path.parent)
        finally:
            os.close(fd)


def open_private(path: Path, how: int) -> int:
    """`os.open` with mode 0600, for the owner of the directory; not inherited, not through a link. Raises OSError."""
    fd = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if how & os.O_CREAT:
        try:
            keep_owner(fd, path.parent)
        except BaseException:
            os.close(fd)
            raise
    return fd
