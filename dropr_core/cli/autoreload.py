"""``dropr worker --reload``: a worker that starts afresh when the code changes, for development.

Owns the watching and the one child. Nothing is lost by a restart: what is being handled may end, or goes back.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType

from dropr_core.cli.failures import Stop
from dropr_core.system.exit_codes import Exit

PATIENCE = 30.0
"""Seconds that a worker has to end before it is killed; its own `drain` is shorter as a rule."""


def watch_worker(file: Path, verbosity: int) -> int:
    """`watch_command` for ``dropr worker`` of this file."""
    flags = ["-q"] if verbosity < 0 else ["-" + "v" * min(verbosity, 3)] if verbosity else []
    return watch_command([sys.executable, "-m", "dropr_core", "worker", "-c", str(file), *flags], file)


def watch_command(command: Sequence[str], file: Path) -> int:
    """Keep a worker running until told to stop; a new one after each change of a ``*.py`` below the current directory,
    or of a YAML beside ``file``. Its exit code. Stops with exit 78 if watchfiles is not installed.
    """
    try:
        import watchfiles
    except ImportError:
        raise Stop(
            Exit.CONFIG, "--reload needs the package watchfiles; run: pip install 'dropr-core[reload]'"
        ) from None
    log, stopping = logging.getLogger("dropr.worker"), threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    child = subprocess.Popen(command)  # this very program
    log.info("watches the code below %s; a change starts the worker afresh", Path.cwd())
    wanted = watchfiles.PythonFilter(extra_extensions=(".yaml", ".yml"))
    changes: Iterable[set[tuple[watchfiles.Change, str]]] = watchfiles.watch(
        *{Path.cwd(), file.parent}, watch_filter=wanted, stop_event=stopping, raise_interrupt=False, rust_timeout=500
    )
    try:
        for changed in changes:
            what = ", ".join(sorted({os.path.relpath(path) for _, path in changed})[:3])
            log.info("%s changed: the worker starts afresh", what)
            _end(child)
            child = subprocess.Popen(command)
    finally:
        _end(child)
    return Exit.OK


def _end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
