"""Writing a new peer into a node's file, its key into a file beside it.

Owns the order of the steps, so that a kill between any two of them leaves a file that says nothing new or all of it,
and that doing it again ends it. Must not know how the two nodes agreed.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from dropr_core.config.editing import add_entry, read_config, replace_config
from dropr_core.config.node import NodeConfig, parse
from dropr_core.errors import ConfigError
from dropr_core.system.files import sync_directory
from dropr_core.system.ownership import open_private


@attrs.frozen
class NewPeer:
    """What is to be written."""

    name: str
    key: str = attrs.field(repr=False)
    """Of the pair; it goes into a file of its own."""
    entry: Mapping[str, Any]
    """The other options of the peer."""
    more: tuple[tuple[tuple[str, ...], str], ...] = ()
    """Other places of the file and what shall stand there, such as the certificate that a transport shall trust."""


def config_file(config: NodeConfig) -> Path | None:
    """The file that a configuration was read from; None if it came from a program."""
    return config.where.directory / Path(config.where.name).name if config.where.name else None


def file_for(directory: Path, name: str, suffix: str, content: str) -> Path:
    """Where such a file goes: ``NAME.SUFFIX``, or the first such name that is free or has this content already."""
    for number in range(1, 1000):
        path = directory / (f"{name}.{suffix}" if number == 1 else f"{name}-{number}.{suffix}")
        if not os.path.lexists(path) or _holds(path, content):
            return path
    raise ConfigError([f"{directory}: no name is free for a file of {name}; remove old files called {name}-N.{suffix}"])


def _holds(path: Path, content: str) -> bool:
    try:
        return path.read_text(encoding="utf-8").strip() == content.strip()
    except (OSError, UnicodeDecodeError):
        return False


def write_beside(path: Path, content: str) -> None:
    """A small file (mode 0600), durably; one that holds this already stays. Raises OSError."""
    if _holds(path, content):
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    fd = open_private(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(content.strip() + "\n")
            stream.flush()
            os.fsync(fd)
        os.link(temporary, path)  # never over another file
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def with_peer(text: str, file: Path, peer: NewPeer) -> str:
    """The text of ``file`` with the peer in it. Raises ConfigError: it stands there, or the form is too unusual."""
    key_file = file_for(file.absolute().parent, peer.name, "key", peer.key)
    entry = {**peer.entry, "key": f"${{file:{key_file.name}}}"}
    made = add_entry(text, str(file), ("peers", peer.name), entry)
    for steps, value in peer.more:
        made = add_entry(made, str(file), steps, value)
    return made


def check_writable(file: Path) -> None:
    """Raise ConfigError if this process could not replace the file and put others beside it."""
    try:
        for directory in {file.absolute().parent, file.resolve().parent}:
            probe = directory / f".{file.name}.{os.getpid()}.probe"
            os.close(open_private(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            probe.unlink()
    except OSError as error:
        problem = (
            f"{file}: cannot be changed: {error.strerror}; the directory it stands in must be writable for the user of "
            "the node"
        )
        raise ConfigError([problem]) from None


def add_peer(file: Path, peer: NewPeer) -> NodeConfig:
    """Write the peer; the new configuration. First the key's file, then, in one step, the node's file.

    Raises ConfigError and OSError; then the node's file is as it was.
    """
    old = read_config(file)
    new = with_peer(old, file, peer)
    directory = file.absolute().parent
    write_beside(file_for(directory, peer.name, "key", peer.key), peer.key)
    config = parse(new, directory, str(file))
    replace_config(file, old, new)
    return config
