"""What other users of this machine could read or change: permissions of the configuration and of the data directory.

Owns the warnings about them, for `dropr check` and for every start. Looks at files and changes none. Whether a file
named by ``${file:...}`` is private is asked when it is followed (interpolation.py).
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dropr_core.config.node import NodeConfig
from dropr_core.config.yamlfile import Steps, format_steps

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def find_exposures(config: NodeConfig, secrets: Callable[[], Iterable[Steps]] = tuple) -> tuple[str, ...]:
    """One finished line for each thing that others could read or change and should not.

    ``secrets``: where secrets of plugins stand. It is called only if everybody may read the file, for plugins are
    imported to know it.
    """
    return tuple(_find(config, secrets))


def _find(config: NodeConfig, secrets: Callable[[], Iterable[Steps]]) -> Iterator[str]:
    mode = _mode(config.data)
    if mode is not None and mode & _OTHERS_WRITE:
        yield (
            f"data: others may write to {config.data} (mode {mode:o}): who can replace a file there decides what this "
            f"node sends, believes and runs; run: chmod 700 {config.data}"
        )
    elif mode is not None and mode & stat.S_IROTH and mode & stat.S_IXOTH:
        yield f"data: others may look into {config.data} (mode {mode:o}); run: chmod 700 {config.data}"
    where = config.where
    if not where.name:
        return
    file = where.directory / Path(where.name).name
    mode = _mode(file)
    if mode is None:
        return
    if mode & _OTHERS_WRITE:
        yield (
            f"{where.name}: others may write to it (mode {mode:o}): who can change it decides what this node runs; "
            f"run: chmod go-w {where.name}"
        )
    if mode & stat.S_IROTH and (inline := list(_inline_secrets(config, secrets))):
        yield (
            f"{where.name}: everybody on this machine may read it (mode {mode:o}), and {_named(inline)} in "
            f"it; run: chmod 600 {where.name}, or put it into a file of its own (${{file:...}})"
        )


def _mode(path: Path) -> int | None:
    """Permissions; None where there is nothing, or nothing that this process may see."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116  # follows links, as whoever opens it does
    except OSError:
        return None


def _named(places: list[str]) -> str:
    """Some of the places: who has a hundred users need not read of each."""
    shown = ", ".join(places[:5])
    if len(places) > 5:
        return f"{shown} and {len(places) - 5} more secrets stand"
    return f"{shown} {'stands' if len(places) == 1 else 'stand'}"


def _inline_secrets(config: NodeConfig, secrets: Callable[[], Iterable[Steps]]) -> Iterator[str]:
    """Where secrets stand in the file itself."""
    hides = config.where.hides
    for name, peer in config.peers.items():
        if peer.keys and not (hides(("peers", name, "key")) or hides(("peers", name, "key", 0))):
            yield f"peers.{name}.key"
    if config.monitor.token and not hides(("monitor", "token")):
        yield "monitor.token"
    for steps in secrets():
        if not hides(steps):
            yield format_steps(steps)
