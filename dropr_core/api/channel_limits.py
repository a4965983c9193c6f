"""How fast, and how many at once, messages of a channel are handed out: by all consumers of this node on this machine.

Owns `ChannelLimits`, through which every claim goes that may name a channel with a `rate` or a `concurrency`. Such
claims take turns by one lock of the node: what is left is looked at, claimed and charged as one step, and nothing must
be given back. What a rate has given stands in a small file; a place of a `concurrency` is a lock on a file of its own,
which the kernel opens at the moment its process dies. Must not know consumers, gateways or handlers.
"""

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from dropr_core.config.schema import ChannelConfig
from dropr_core.contracts.storage import Claim
from dropr_core.errors import StoreError
from dropr_core.model import topics
from dropr_core.model.rates import SECOND, allowed, charge, next_moment, parse_rate
from dropr_core.system.clock import Clock
from dropr_core.system.locks import release_in_child
from dropr_core.system.notifier import Notifier
from dropr_core.system.os_errors import store_errors
from dropr_core.system.ownership import make_private_directory, open_private

LOOK_AGAIN = 0.5
"""Seconds until who found all places taken looks again: a killed holder wakes nobody."""

_DIGITS = 24


@attrs.frozen
class Limit:
    """What the configuration says of one channel."""

    interval: int | None
    """Nanoseconds that one message costs; None: no rate."""
    burst: int
    concurrency: int | None
    file: str
    """How the names of its files begin."""


class Place:
    """One of the places of a channel, held until `release` or the end of this process."""

    def __init__(self, fd: int, channel: str) -> None:
        self._fd: int | None = fd
        self.channel, self.consumer = channel, ""
        release_in_child(self)

    def release(self) -> None:
        """Safe twice."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


Take = Callable[[Sequence[str], int], list[Claim]]
"""Claims up to so many messages of some channels. Raises StoreError."""


class ChannelLimits:
    """Those of one node, as this process keeps them. Safe from many threads."""

    def __init__(self, limits: Mapping[str, Limit], directory: Path, clock: Clock, notifier: Notifier) -> None:
        """``directory``: of this node, made when it is needed."""
        self._limits, self._directory, self._clock, self._notifier = limits, directory, clock, notifier
        self._mutex = threading.Lock()
        self._refused: dict[str, dict[str, float]] = {}
        """Consumer → channel → node time at which to look again, of those that gave it nothing the last time."""
        self._held: dict[tuple[int, int], Place] = {}
        """Number and attempt of a message in hand → its place."""

    # ── claiming ─────────────────────────────────────────────────────────────────────────────────

    def claim(self, take: Take, channels: Sequence[str], limit: int, consumer: str, *, ahead: bool) -> list[Claim]:
        """``take`` from these channels, but no more of each than its limits allow now. ``ahead``: who claims more than
        one hands them out later; a message of a limited channel comes alone then. Raises StoreError.
        """
        mine = [channel for channel in channels if channel in self._limits]
        if not mine or limit < 1:
            return take(channels, limit)
        others = [channel for channel in channels if channel not in self._limits]
        found: list[Claim] = []
        with self._turn():
            while len(found) < limit:
                try:
                    some, enough = self._claim_once(take, channels, mine, limit - len(found), consumer, ahead=ahead)
                    found += some
                    if enough:
                        break
                    if others and len(found) < limit and not any(claim.channel in self._limits for claim in some):
                        found += take(others, limit - len(found))  # not one by one for what is not limited
                except StoreError:
                    if not found:
                        raise
                    break  # those are leased: they are handed out
                if ahead:
                    break
        return found

    def _claim_once(
        self, take: Take, channels: Sequence[str], mine: Sequence[str], limit: int, consumer: str, *, ahead: bool
    ) -> tuple[list[Claim], bool]:
        """What one claim brings, and whether another one would bring nothing."""
        refused = self._refused.setdefault(consumer, {})
        with self._open(mine, 1 if ahead else limit, refused) as (room, places):
            wanted = min([limit, *room.values()])
            open_ones = [one for one in channels if one not in self._limits or one in room]
            some = take(open_ones, wanted) if open_ones else []
            self._charge(some, places, consumer)
        return some, len(some) < wanted

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with self._mutex:
            with store_errors(self._directory):
                if not self._directory.exists():
                    make_private_directory(self._directory, parents=True)
                lock = open_private(self._directory / "lock", os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)  # for the time of one claim
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # a child that was forked meanwhile has a copy of it
                os.close(lock)

    @contextlib.contextmanager
    def _open(
        self, channels: Iterable[str], most: int, refused: dict[str, float]
    ) -> Iterator[tuple[dict[str, int], dict[str, list[Place]]]]:
        """Channel → how many it may give, of those that may give some; and the places taken for them, of which those
        that are left over are free again after the block.
        """
        room: dict[str, int] = {}
        places: dict[str, list[Place]] = {}
        try:
            with store_errors(self._directory):
                for channel in channels:
                    limit = self._limits[channel]
                    count, moment = (most, 0.0) if limit.interval is None else self._allowed(limit, limit.interval)
                    count = min(most, count)
                    if count and limit.concurrency is not None:
                        places[channel] = self._free_places(channel, limit, count)
                        count = len(places[channel])
                        moment = self._clock.now() + LOOK_AGAIN
                    if count:
                        room[channel] = count
                        refused.pop(channel, None)
                    else:
                        refused[channel] = moment
            yield room, places
        finally:
            for left in places.values():
                for place in left:
                    place.release()

    def _charge(self, claims: Sequence[Claim], places: Mapping[str, list[Place]], consumer: str) -> None:
        given: dict[str, int] = {}
        for claim in claims:
            if claim.channel in self._limits:
                given[claim.channel] = given.get(claim.channel, 0) + 1
            if places.get(claim.channel):
                place = places[claim.channel].pop()
                place.consumer = consumer
                before = self._held.get((claim.number, claim.attempt))
                self._held[claim.number, claim.attempt] = place
                if before is not None:  # its lease had ended without a word
                    before.release()
        for channel, count in given.items():
            limit, now = self._limits[channel], self._now()
            if limit.interval is not None:
                # They are leased: rather one too many is given than that these lie until this process ends.
                with contextlib.suppress(OSError):
                    paid = charge(self._paid(limit, limit.interval, now), now, limit.interval, count)
                    self._write_paid(limit, paid)

    # ── rates ────────────────────────────────────────────────────────────────────────────────────

    def _allowed(self, limit: Limit, interval: int) -> tuple[int, float]:
        """How many the rate gives now, and the node time at which it gives the next one if there is none."""
        now = self._now()
        paid = self._paid(limit, interval, now)
        moment = next_moment(paid, interval, limit.burst) + 1000  # beyond what a float of it may lack
        return allowed(paid, now, interval, limit.burst), moment / SECOND

    def _now(self) -> int:
        return int(self._clock.now() * SECOND)

    def _paid(self, limit: Limit, interval: int, now: int) -> int:
        fd = open_private(self._directory / f"{limit.file}.rate", os.O_RDWR | os.O_CREAT)
        try:
            text = os.pread(fd, _DIGITS, 0)
            if len(text) < _DIGITS:  # new: room for it is taken before anything is claimed
                os.pwrite(fd, b"0" * _DIGITS, 0)
            paid = int(text) if text.isdigit() else 0
        finally:
            os.close(fd)
        most = now + limit.burst * interval
        if paid > most:  # no rate of now owes so much: it was another one, or the clock of another machine
            self._write_paid(limit, paid := most)
        return paid

    def _write_paid(self, limit: Limit, paid: int) -> None:
        fd = open_private(self._directory / f"{limit.file}.rate", os.O_RDWR)
        try:
            os.pwrite(fd, b"%0*d" % (_DIGITS, paid), 0)
        finally:
            os.close(fd)

    # ── places ───────────────────────────────────────────────────────────────────────────────────

    def _free_places(self, channel: str, limit: Limit, most: int) -> list[Place]:
        assert limit.concurrency is not None
        free: list[Place] = []
        try:
            for index in range(limit.concurrency):
                if len(free) == most:
                    break
                fd = open_private(self._directory / f"{limit.file}.{index}", os.O_RDWR | os.O_CREAT)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)
                except BaseException:
                    os.close(fd)
                    raise
                else:
                    free.append(Place(fd, channel))
        except BaseException:
            for place in free:
                place.release()
            raise
        return free

    def settled(self, claims: Iterable[Claim]) -> None:
        """These are in nobody's hands any more: their places are free."""
        if not self._held:
            return
        self._release([(claim.number, claim.attempt) for claim in claims])

    def retired(self, consumer: str) -> None:
        """All that this consumer still held is in nobody's hands any more."""
        self._refused.pop(consumer, None)
        self._release([at for at, place in list(self._held.items()) if place.consumer == consumer])

    def _release(self, keys: Iterable[tuple[int, int]]) -> None:
        channels = set[str]()
        for key in keys:
            if (place := self._held.pop(key, None)) is not None:
                place.release()
                channels.add(place.channel)
        for channel in channels:
            self._notifier.notify(topics.inbox(channel))

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────

    def look_again(self, channels: Sequence[str], consumer: str) -> tuple[Sequence[str], float | None]:
        """For a consumer that has claimed and waits now: those of the channels that may give it something, and the node
        time at which the next of the others may, which may be over already (None: all may).
        """
        refused = self._refused.get(consumer, {})
        ends = [refused[channel] for channel in channels if channel in refused]
        return [channel for channel in channels if channel not in refused], min(ends, default=None)

    def close(self) -> None:
        """Give up all places; safe twice."""
        self._release(list(self._held))


def limits_of(channels: Iterable[ChannelConfig], directory: Path, clock: Clock, notifier: Notifier) -> ChannelLimits:
    """Those of channels that have a rate, a concurrency or both."""
    found = {
        one.name: Limit(
            None if one.rate is None else parse_rate(one.rate).interval,
            one.burst or 1,
            one.concurrency,
            hashlib.blake2b(one.name.encode(), digest_size=16).hexdigest(),  # no name ever becomes a path as it stands
        )
        for one in channels
    }
    return ChannelLimits(found, directory, clock, notifier)


__all__ = ["ChannelLimits", "limits_of"]
