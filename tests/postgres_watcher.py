"""Waits for the end of a process of tests, however it comes, then stops its PostgreSQL and removes its directory.

Run as a program, its input a pipe of which the tests hold the other end. Must not know why they ended.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def stop(data: Path) -> None:
    """Stop the server of a data directory, at once and then the hard way."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((data / "postmaster.pid").read_text().split()[0])
        if Path(f"/proc/{pid}/comm").read_text().strip() == "postgres":
            os.kill(pid, signal.SIGQUIT)
            for _ in range(200):
                os.kill(pid, 0)
                time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)


def main(base: Path) -> None:
    """Wait, stop, remove."""
    sys.stdin.buffer.read()
    for one in base.iterdir() if base.is_dir() else ():
        stop(one)
    for _ in range(20):
        shutil.rmtree(base, ignore_errors=True)
        if not base.exists():
            break
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
