"""The inbox of the storage ``fs``: a log for each queue, and a journal of leases and of what is not simply ready.

Owns the sum of its parts, and the consumers' locks; see contracts/storage.py for what each method promises.
"""

import contextlib
import os

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Inbox
from dropr_core.errors import DroprError
from dropr_storage_fs.engine.consumers import Consumers
from dropr_storage_fs.engine.engine import Half, Tuning
from dropr_storage_fs.files.column_reader import Reader
from dropr_storage_fs.inbox.accept import AcceptPart
from dropr_storage_fs.inbox.care import CarePart
from dropr_storage_fs.inbox.claim import ClaimPart
from dropr_storage_fs.inbox.lease import LeasePart
from dropr_storage_fs.inbox.state import InboxState
from dropr_storage_fs.inbox.view import ViewPart


class FsInbox(AcceptPart, ClaimPart, LeasePart, CarePart, ViewPart, Inbox):
    """See contracts/storage.py."""

    checked = True

    def __init__(self, tuning: Tuning, context: Context) -> None:
        self._context = context
        self._cursors, self._senders, self._seen = {}, {}, {}
        self._consumers = Consumers(context.data / "consumers")
        self._pid = os.getpid()
        self._reader = Reader()
        self._half = Half(context.data / "inbox", tuning, context, InboxState)

    def close(self) -> None:
        """Close; the leases of its consumers end when somebody reaps. Safe twice."""
        if os.getpid() == self._pid:
            with contextlib.suppress(DroprError):
                for name in self._consumers.names():
                    self._consumers.release(name)
        self._half.close()
