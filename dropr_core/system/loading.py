"""Loading much code at once.

Owns the pause of Python's garbage collector meanwhile: what is imported stays for the life of the process, so that a
collection finds nothing, and with many classes it is a tenth of the time. Must not know what is loaded.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """No collection until the end, unless there was none before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
