"""What fails in the store of this machine while a process works with it: who rests until when, and what is said of it.

Owns one rest for each thing that fails (a lane that cannot be read, receipts that cannot be written, a sweep, a handled
message that cannot be settled), and the log's line for each change: the store fails, fails in another way, works again.
A rest here ends by time alone, for neither an answer of a peer nor a person's `retry` says anything about a disk. Must
not know what is tried.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType

import attrs

from dropr_core.errors import StoreError
from dropr_core.model.backoff import Backoff
from dropr_core.system.clock import Clock

RESTS = Backoff(1.0, 1.8)
"""At most a try a second; and whatever waits flows within two seconds after the cause is gone."""

AGAIN = f"it is tried again every {RESTS.cap:g} s or less"

FORGOTTEN = 60.0
"""Seconds after which a thing that was not tried again counts no more as failing: it has gone, its lane with it."""

Thing = tuple[object, ...]
"""What is tried. The first part is READ, WRITE or a word of its own: things of one kind are likely to fail together."""

READ, WRITE = "read", "write"

Event = Callable[[str, Mapping[str, object]], None]


@attrs.define
class _Failing:
    failures: int
    until: float


class StoreTrouble:
    """The one owner of failures of one process's store. Safe to use from many threads."""

    def __init__(self, clock: Clock, event: Event, log: logging.Logger, outlook: str = AGAIN) -> None:
        """``outlook``: what the log says will happen now."""
        self._clock, self._event, self._log, self._outlook = clock, event, log, outlook
        self._mutex = threading.Lock()
        self._failing: dict[Thing, _Failing] = {}
        self._last: dict[object, Thing] = {}
        """kind → the thing that failed last, if nothing of its kind has worked since."""
        self._all_until: dict[object, float] = {}
        """kind → until when everything of it rests: two different things failed one after the other."""
        self._said: set[str] = set()
        self.reason = ""
        """What failed last, while anything fails; for people."""

    @property
    def well(self) -> bool:
        """Whether nothing fails: then what is tried need not be told of, unless it fails."""
        return not self._last and not self._failing

    def fails(self, thing: Thing) -> bool:
        """Whether it did not work when it was tried last."""
        return thing in self._failing

    def rests(self, thing: Thing) -> bool:
        """Whether it is too early to try the thing again."""
        return bool(self._failing or self._all_until) and self.until(thing) > self._clock.now()

    def until(self, thing: Thing) -> float:
        """The node time from which on the thing may be tried; in the past or now if it need not rest."""
        if not self._failing and not self._all_until:  # asked dozens of times for each message
            return 0.0
        failing = self._failing.get(thing)
        return max(self._all_until.get(thing[0], 0.0), failing.until if failing else 0.0)

    @property
    def wakes_at(self) -> float | None:
        """The node time at which the next rest ends."""
        if not self._failing:
            return None
        with self._mutex:
            now = self._clock.now()
            return min((until for thing in self._failing if (until := self.until(thing)) > now), default=None)

    def attempt(self, thing: Thing, call: Callable[[], object]) -> bool:
        """Do it, unless it rests; whether it was done."""
        if self.rests(thing):
            return False
        with _Guard(self, thing):
            call()
        return thing not in self._failing

    def guard(self, thing: Thing) -> AbstractContextManager[None, bool]:
        """Take what goes wrong with the store in this block: the block is left, and the thing rests."""
        return _Guard(self, thing)

    def failed(self, thing: Thing, error: Exception) -> None:
        """It did not work: it rests, and with it all of its kind if another thing of it failed just before."""
        with self._mutex:
            self._rest(thing)
            self.reason = str(error)
            # What an error says may differ from try to try (bytes that are free): only its type makes news.
            kind = type(error).__name__
            news = kind not in self._said
            self._said.add(kind)
        if news:
            where = "" if isinstance(error, StoreError) else f" ({' '.join(map(str, thing))})"
            self._log.error("the store failed%s, %s: %s", where, self._outlook, error)
            self._event("store_trouble", {"error": str(error)})

    def _rest(self, thing: Thing) -> None:
        now = self._clock.now()
        failing = self._failing.get(thing)
        failures = failing.failures + 1 if failing else 1
        until = now + RESTS.fixed(failures)
        self._failing[thing] = _Failing(failures, until)
        before = self._last.get(thing[0])
        if thing[0] in (READ, WRITE) and before not in (None, thing):
            self._all_until[thing[0]] = until
        self._last[thing[0]] = thing

    def worked(self, thing: Thing) -> None:
        """It worked."""
        if self.well:  # as nearly always
            return
        with self._mutex:
            self._last.pop(thing[0], None)
            over = self._failing.pop(thing, None) is not None or self._forget()
            if not over or self._failing:
                return
            self._said.clear()
            self._all_until.clear()
            self.reason = ""
        self._log.info("the store works again")

    def _forget(self) -> bool:
        now = self._clock.now()
        gone = [thing for thing, failing in self._failing.items() if failing.until + FORGOTTEN < now]
        for thing in gone:
            del self._failing[thing]
        return bool(gone)


class _Guard:
    """See `StoreTrouble.guard`. A class, because a generator costs four times as much, and each message passes many."""

    __slots__ = ("_thing", "_trouble")

    def __init__(self, trouble: StoreTrouble, thing: Thing) -> None:
        self._trouble, self._thing = trouble, thing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, (StoreError, OSError)):
            self._trouble.failed(self._thing, error)
            return True
        if error is None:
            self._trouble.worked(self._thing)
        return False


__all__ = ["READ", "WRITE", "StoreTrouble", "Thing"]
