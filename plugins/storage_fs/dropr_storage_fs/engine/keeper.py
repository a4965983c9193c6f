"""What durable calls have written is flushed, and noted as flushed or taken back.

Owns the way from the end of a commit to its word: the flush without the half's lock, then under it what has come of it.
Must not know what was written, nor who waits.
"""

import contextlib
from typing import Generic, TypeVar

from dropr_core.errors import DroprError, WriteFailed
from dropr_core.storage_kit.syncs import Syncs
from dropr_storage_fs.engine.events import Events
from dropr_storage_fs.engine.generations import Generations
from dropr_storage_fs.engine.locking import HalfLock
from dropr_storage_fs.engine.promise import Promise
from dropr_storage_fs.engine.recovery import Recovery
from dropr_storage_fs.engine.replica import Replica
from dropr_storage_fs.engine.state import HalfState

S = TypeVar("S", bound=HalfState)


class Keeper(Generic[S]):
    """Keeps the promises of one half."""

    def __init__(
        self, replica: Replica[S], lock: HalfLock, recovery: Recovery[S], generations: Generations[S], events: Events,
        syncs: Syncs,
    ) -> None:  # fmt: skip
        self._replica, self._lock, self._events, self._syncs = replica, lock, events, syncs
        self._recovery, self._generations = recovery, generations

    def keep(self, promise: Promise[S], *, together: bool) -> DroprError | None:
        """Flush what was promised, and note it; what callers are told if that failed. Not called under the lock.

        ``together``: other processes write to the same log. One flushes at a time, for all who have written, and the
        others find that done.
        """
        return self._keep_together(promise) if together else self._keep(promise)

    def _keep(self, promise: Promise[S]) -> DroprError | None:
        self._syncs.begin()
        try:
            problem = promise.keep()
            if problem is not None:
                self._syncs.met()  # before the lock is waited for: nobody else is told
            with self._lock:
                return self._confirm(promise, problem)
        finally:
            self._syncs.end()

    def _keep_together(self, promise: Promise[S]) -> DroprError | None:
        try:
            place, shared_disk = self._lock.queue_for_flush()
        except OSError:
            return self._keep(promise)  # without handles, for example; it is for speed
        try:
            if shared_disk:
                with self._lock:
                    self._replica.follow()
                    promise.share()
            return self._keep(promise)
        finally:
            self._lock.flushed(place)

    def _confirm(self, promise: Promise[S], problem: OSError | None) -> DroprError | None:
        """Note what is on stable storage now, or take back what is not."""
        self._replica.follow()
        if problem is not None:
            with contextlib.suppress(OSError):  # else it is tried again before anything else is written
                self._recovery.start_over()
            failure = self._events.failed(problem)
            failure.__cause__ = problem
            return failure
        try:
            self._recovery.settle_doubt()
            logs = promise.confirm()
        except WriteFailed as error:
            return error
        except OSError as error:
            failure = self._events.failed(error)
            failure.__cause__ = error
            return failure
        if logs:
            self._generations.check_off(logs)
        return None
