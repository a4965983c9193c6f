"""What the host gives to every plugin.

Owns `Context`. Options are the user's words, the context is the host's; the two never mix.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from dropr_core.system.clock import Clock
from dropr_core.system.shared_document import Documents, FileDocuments


def _nobody(_event: str, _details: Mapping[str, Any]) -> None:
    """Nobody listens."""


def _files(context: "Context") -> Documents:
    return FileDocuments(context.data)


@attrs.frozen
class Context:
    """The context of a plugin instance."""

    node: str
    data: Path
    """The node's data directory (exists, mode 0700)."""
    clock: Clock
    log: logging.Logger
    event: Callable[[str, Mapping[str, Any]], None] = _nobody
    """Tell observers about the store (``rolled_back``, ``corrupt``, ``full``, ``read_only`` …)."""
    max_messages: int | None = None
    """Limits of this store; None: no limit."""
    max_bytes: int | None = None
    min_free: int | None = None
    """Free bytes to leave on the disk; None: the larger of 1 GiB and 2 %; 0: none."""
    peer_limits: Mapping[str, tuple[int | None, int | None]] = attrs.field(factory=dict)
    """peer → (messages, bytes) that may wait for it."""
    channel_limits: Mapping[str, tuple[int | None, int | None]] = attrs.field(factory=dict)
    """channel → (messages, bytes) that may wait in it, inbox and outbox each."""
    remember: float = 30 * 86400.0
    """Seconds for which ended records (dead, buried, failed, own ids, processed) are kept."""
    keep_sent: Mapping[str, float] = attrs.field(factory=dict)
    """channel → seconds for which accepted and processed deliveries stay listed (its retention)."""
    read_only: bool = False
    """Only look: nothing may change, no file may be made."""
    checking: bool = False
    """Opened for `Storage.check` alone: opening does not fail over damage (check tells of it), and
    waits for no lock. A storage that does not know this may raise as ever: that is shown as what was found."""
    documents: Documents = attrs.field(default=attrs.Factory(_files, takes_self=True), repr=False)
    """Small documents that all processes of the node share, and all its machines if it has several: what a plugin
    must not keep in a file of one machine. For plugins besides the storage.
    """
