"""Sends what is moved into a folder: first what is there already, then what comes."""

import sys
from pathlib import Path

from watchfiles import Change, watch

import dropr_core as dropr


def send(node: dropr.Node, path: Path) -> None:
    """One file. It is removed when it is on the node's disk."""
    try:
        status = path.stat()
        node.send(
            path,
            channel="files",
            headers={"file-name": path.name},
            dedup_key=f"{path.name}-{status.st_size}-{status.st_mtime_ns}",
        )
    except FileNotFoundError:
        return  # somebody took it back
    path.unlink(missing_ok=True)


def wanted(_change: Change, path: str) -> bool:
    """Files that are whole."""
    return not Path(path).name.startswith(".")


def main() -> None:
    """Watch until told to stop."""
    folder = Path(sys.argv[1])
    with dropr.open("here.yaml") as node:
        # The watcher wakes up at once for what comes, and every second to look for what it missed at the start.
        for _ in watch(folder, watch_filter=wanted, rust_timeout=1000, yield_on_timeout=True, recursive=False):
            for path in sorted(folder.iterdir(), key=lambda path: path.name):
                if wanted(Change.added, str(path)) and path.is_file():
                    send(node, path)


if __name__ == "__main__":
    main()
