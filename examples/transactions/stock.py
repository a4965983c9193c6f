"""The warehouse: takes a piece from the stock for each order, in the transaction that also acknowledges the message."""

import contextlib
import os
import signal
import sqlite3


def reserve(work):
    """Called by `dropr worker`."""
    with contextlib.closing(sqlite3.connect("stock.db", timeout=30)) as connection:
        with work.transaction(connection):
            connection.execute("UPDATE stock SET pieces = pieces - 1")
        if work.value["number"] % 8 == 0 and work.attempt == 1:
            # The worst moment: the piece is taken, and nobody has been told. The angel starts a new worker.
            os.kill(os.getpid(), signal.SIGKILL)
