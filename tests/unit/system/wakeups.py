"""What tests of the notifier look at, and programs beside them."""

import select
import subprocess
import sys
from pathlib import Path

LONG = 60.0


def readable(subscription, seconds=0.0):
    """Whether it was really notified: wait() may also send its caller to look again."""
    return bool(select.select([subscription], [], [], seconds)[0])


def python(code, *arguments, **more):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **more)


def fifos(notifier):
    return [path for path in notifier.directory.glob("*/*") if path.is_fifo()]


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))
