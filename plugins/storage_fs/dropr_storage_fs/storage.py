"""The store of one node: a directory for each half.

Owns how a store is created and recognised. Must not know logs or journals.
"""

from collections.abc import Iterator
from typing import ClassVar

import attrs

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Finding, Storage
from dropr_core.errors import StoreGone
from dropr_core.storage_kit.opening import warn_of_medium
from dropr_core.system.os_errors import store_error
from dropr_storage_fs.engine.engine import Tuning
from dropr_storage_fs.engine.locking import MARKER
from dropr_storage_fs.files import disk
from dropr_storage_fs.fsck import Witness, all_sound, check_nobody_has_it_open, findings
from dropr_storage_fs.inbox.inbox import FsInbox
from dropr_storage_fs.outbox.outbox import FsOutbox


class FsStorage(Storage):
    """Both halves in files."""

    abilities: ClassVar[frozenset[str]] = frozenset({"durable", "processes", "ordering_key"})

    def __init__(self, tuning: Tuning, context: Context) -> None:
        marker = context.data / MARKER
        self._witness = Witness(context.event)
        if context.checking:
            if not context.read_only:
                check_nobody_has_it_open(context.data)
            context = attrs.evolve(context, event=self._witness)
        warn_of_medium(context)
        try:
            made = marker.exists()
            for half in ("outbox", "inbox"):
                if (made or context.read_only) and not (context.data / half).is_dir():
                    raise StoreGone(
                        f"{context.data / half} is gone; put it back from a backup, or remove {MARKER} to begin with "
                        "an empty store (peers will notice)"
                    )
            self.outbox: FsOutbox = FsOutbox(tuning, context)
            try:
                self.inbox: FsInbox = FsInbox(tuning, context)
            except BaseException:
                self.outbox.close()
                raise
            if not made and not context.read_only:
                disk.put_file(marker, b'{"format": 1}\n')
        except OSError as error:
            raise store_error(error, context.data) from error

    def check(self, *, repair: bool) -> Iterator[Finding]:
        """What opening met (and, with ``repair``, mended), and what cannot be read of what is remembered."""
        for half in (self.outbox, self.inbox):
            if not all_sound(half.remembered_files()) and repair:
                half.engine.renew()
        yield from findings(self._witness, repair=repair)

    def close(self) -> None:
        """Close both halves; safe twice."""
        try:
            self.inbox.close()
        finally:
            self.outbox.close()
