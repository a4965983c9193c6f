"""What one turn at the inbox does for many connections.

Owns the orders of a turn and how they are carried out together: settlements in one commit, then what is put in another,
then claims; and each by itself where together fails. Must not know the event loop, connections or who waits.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from dropr_core.api.received import settle
from dropr_core.api.runtime import Runtime
from dropr_core.contracts.bodies import release_all
from dropr_core.contracts.storage import Job, Put, Settlement
from dropr_core.errors import DroprError, StoreError
from dropr_core.gateway.claiming import Claimer, Wanted
from dropr_core.gateway.placing import Local
from dropr_core.model import topics
from dropr_core.model.message import State


class Puts(NamedTuple):
    """Messages of one call for this node's inbox."""

    messages: list[Local]


class Settles(NamedTuple):
    """Changes of one call."""

    changes: list[Settlement]


QUICK_ORDERS = (Puts, Settles, Wanted)
"""Orders of one commit each; any other call may go through a whole channel."""
Order: TypeAlias = Puts | Settles | Wanted | Callable[[], Any]


class InboxTurns:
    """At one node's inbox; one turn at a time."""

    def __init__(self, runtime: Runtime, claimer: Claimer, holding: Callable[[], int]) -> None:
        """``holding``: how many leases this process has now."""
        self._runtime, self._inbox = runtime, runtime.storage.inbox
        self._claimer, self._holding = claimer, holding

    def turn(self, orders: list[Order]) -> list[Any]:
        """Settlements first, for they may free what others wait for; then what is put, in one commit; then claims."""
        results: dict[int, Any] = {}
        settles: list[tuple[int, Settles]] = []
        puts: list[tuple[int, Puts]] = []
        rest: list[tuple[int, Wanted | Callable[[], Any]]] = []
        for at, order in enumerate(orders):
            if isinstance(order, Settles):
                settles.append((at, order))
            elif isinstance(order, Puts):
                puts.append((at, order))
            else:
                rest.append((at, order))
        self._together(settles, lambda some: self._settle_all([order for _, order in some]), results)
        self._together(puts, lambda some: self._put_all([order for _, order in some]), results)
        for at, put in puts:
            results[at] = _released(put, results[at])
        self._claimer.holding = self._holding()
        for at, one in rest:
            results[at] = attempt(partial(self._claimer.take, one) if isinstance(one, Wanted) else one)
        return [results[at] for at in range(len(orders))]

    @staticmethod
    def _together(some: list[Any], do: Callable[[list[Any]], list[Any]], results: dict[int, Any]) -> None:
        """All in one commit; if that fails each by itself, so that whoever is to blame hears of it alone."""
        if not some:
            return
        if len(some) > 1:
            with contextlib.suppress(DroprError):
                results.update(zip([at for at, _ in some], do(some), strict=True))
                return
        for one in some:
            done = attempt(partial(do, [one]))
            results[one[0]] = done if isinstance(done, BaseException) else done[0]

    def _settle_all(self, orders: list[Settles]) -> list[list[bool]]:
        done = iter(settle(self._runtime, [change for order in orders for change in order.changes]))
        return [[next(done) for _ in order.changes] for order in orders]

    def _put_all(self, orders: list[Puts]) -> list[list[tuple[int, bool]]]:
        # Listed, not asked for one by one: this is done for every message.
        if any([one.unique for order in orders for one in order.messages]):  # noqa: C419 -- faster
            return self._put_each(orders)
        puts: dict[tuple[str, int], list[Job]] = {}
        for order in orders:
            for channel, priority, job, _, _ in order.messages:
                puts.setdefault((channel, priority), []).append(job)
        given = dict(zip(puts, map(iter, self._store(puts)), strict=True))
        return [[(next(given[one[:2]]), False) for one in order.messages] for order in orders]

    def _store(self, puts: dict[tuple[str, int], list[Job]]) -> list[Sequence[int]]:
        """In one commit; others hear of it. The numbers."""
        name = self._runtime.name
        numbers = self._inbox.put_all([Put(*at, name, jobs) for at, jobs in puts.items()])
        for channel in {channel for channel, _ in puts}:
            self._runtime.notifier.notify(topics.inbox(channel))
        return numbers

    def _put_each(self, orders: list[Puts]) -> list[list[tuple[int, bool]]]:
        """Where some may be here already."""
        found: dict[int, int] = {}
        """Local message → its number."""
        first: dict[bytes, int] = {}
        """Id of a unique message → that message, the first of those with this id."""
        puts: dict[tuple[str, int], list[Local]] = {}
        doubles: set[int] = set()
        for one in (one for order in orders for one in order.messages):
            if one.unique:
                kept = self._inbox.status(one.job.id)
                if kept is not None and kept.state is not State.EXPIRED:
                    found[id(one)] = kept.number
                if id(one) in found or first.setdefault(one.job.id, id(one)) != id(one):
                    doubles.add(id(one))
                    continue
            puts.setdefault((one.channel, one.priority), []).append(one)
        numbers = self._store({at: [one.job for one in some] for at, some in puts.items()})
        for some, given in zip(puts.values(), numbers, strict=True):
            found.update(zip(map(id, some), given, strict=True))
        for one in (one for order in orders for one in order.messages):
            if id(one) not in found:
                found[id(one)] = found[first[one.job.id]]
        return [[(found[id(one)], id(one) in doubles) for one in order.messages] for order in orders]


def _released(order: Puts, result: Any) -> Any:
    """Let go of the large bodies of what was put, or could not be put; what became of the order."""
    written = [one.written for one in order.messages if one.written is not None]
    if not written:
        return result
    try:
        release_all(written)
    except StoreError as error:
        return result if isinstance(result, BaseException) else error
    return result


def attempt(call: Callable[[], Any]) -> Any:
    """Its result, or the exception that it raised."""
    try:
        return call()
    except Exception as error:
        return error
