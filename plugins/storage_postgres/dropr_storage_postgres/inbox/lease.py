"""Emptying the inbox: claims and what becomes of them.

Owns claim, settle, acknowledge and holds, each one statement. Every change of a leased message names its lease; where
that is gone nothing changes. Must not know what a consumer does with a message.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

import os
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Bury, Claim, Release, Settlement
from dropr_core.errors import StoreBusy
from dropr_core.model.names import first_rank, priority_of_rank
from dropr_storage_postgres.engine.columns import NumberColumn
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.engine.inbox_tables import DUPLICATE, MASK, N_BITS
from dropr_storage_postgres.inbox.consumers import PostgresConsumers
from dropr_storage_postgres.inbox.names import Names

_COLUMNS = "place, lease, id, sender, arrived, flags, attempts, rank, envelope"
CLAIM = (
    f"SELECT {_COLUMNS} FROM in_claim(%b::text[], %b::integer, %b::integer, %b::bigint, %b::float8, %b::float8, "
    "%b::text, %b::bool)"
)
CLAIM_ONE = (
    f"SELECT {_COLUMNS} FROM in_claim_one(%b::bigint, %b::integer, %b::bigint, %b::float8, %b::float8, %b::text, "
    "%b::bool)"
)
ACK_STRETCH = "SELECT in_ack_stretch(%b::bigint[], %b::bigint[], %b::bigint, %b::bigint, %b::float8, %b::bigint)"
ACK = "SELECT in_ack(%b::bigint[], %b::integer[], %b::bigint[], %b::float8, %b::bigint)"
SETTLE = (
    "SELECT in_settle(%b::bigint[], %b::integer[], %b::bigint[], %b::integer[], %b::smallint[], %b::bytea[], "
    "%b::text[], %b::text[], %b::float8[], %b::bool[], %b::bigint[], %b::smallint[], %b::float8, %b::float8, "
    "%b::bigint)"
)
MARKED = (
    "SELECT 1 FROM in_tally WHERE mark = %b::bigint UNION ALL "
    "SELECT 1 FROM in_folded WHERE %b::bigint = ANY(marks) LIMIT 1"
)
LEFT = "SELECT token, places FROM in_lease WHERE token = ANY(%b::bigint[])"
HOLDS = "SELECT 1 FROM in_lease WHERE token = %b::bigint AND %b::bigint = ANY(places)"
TRIES = 10
"""How often one claim may lose its session, or that of the consumers."""
MOST = 100_000
"""Messages that one claim gives at most."""
ACKED, RELEASED, BURIED = range(3)


class Leases:
    """What consumers do with messages."""

    def __init__(self, engine: Engine, context: Context, consumers: PostgresConsumers, names: Names) -> None:
        self._engine, self._context, self._consumers, self._names = engine, context, consumers, names

    def claim(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:
        """Lease up to ``limit`` messages, by priority, then by rank, then by arrival."""
        if limit <= 0:
            return []
        return self._claim(CLAIM, [list(dict.fromkeys(channels)), min(limit, MOST)], consumer)

    def claim_number(self, number: int, consumer: str) -> Claim | None:
        """Lease one given message that is ready, delayed or buried."""
        if not 0 < number <= MASK:
            number = 0
        found = self._claim(CLAIM_ONE, [number], consumer)
        return found[0] if found else None

    def _claim(self, statement: str, what: list[Any], consumer: str) -> list[Claim]:
        self._engine.guard.enter(write=True)
        self._consumers.check(consumer)
        token = int.from_bytes(os.urandom(8), "big") >> 2
        for tried in range(TRIES):
            number = self._consumers.number(consumer)
            values = [
                *what,
                number,
                token,
                self._engine.times.now(),
                self._context.remember,
                self._context.node,
                tried > 0,
            ]
            rows = self._engine.relaxed_quick(_asking(statement, values))
            if rows is None:  # its session broke; by now it is decided whether it went through, and asking again tells
                continue
            if not rows or rows[0][0] >= 0:
                return self._claims(rows)
            self._consumers.recover(consumer, number)
        raise self._lost()

    def _claims(self, rows: Sequence[Any]) -> list[Claim]:
        names, offset, make, mask = self._names, self._engine.times.offset, tuple.__new__, MASK
        claims, last, token, channel, priority, first = list[Claim](), -1, b"", "", 0, 0
        lease_of, name_of, sender_name = -1, -1, ""
        for place, lease, message_id, sender, arrived, flags, attempts, own, envelope in rows:
            if place >> N_BITS != last:
                last = place >> N_BITS
                channel, priority, first = names.queue(last)
            if lease != lease_of:
                lease_of, token = lease, lease.to_bytes(8, "big")
            if sender != name_of:
                name_of, sender_name = sender, names.sender(sender)
            claims.append(
                make(Claim, (token, place & mask, message_id, channel, priority, sender_name, envelope, attempts + 1,
                             flags & DUPLICATE != 0, arrived - offset, first if own is None else own))
            )  # fmt: skip
        return claims

    def acknowledge(self, claims: Sequence[Claim]) -> list[bool]:
        """`settle` with an `Ack` without result and retention for each; most often all that one claim gave."""
        batch = self._stretch(claims)
        if batch is None:
            return self.settle([Ack(claim, None, "", 0.0) for claim in claims])
        self._engine.guard.enter(write=True)
        mark = _mark()
        values = (*batch, self._engine.times.now(), mark)
        rows = self._engine.relaxed_quick(lambda connection: connection.execute(ACK_STRETCH, values).fetchall())
        if rows is None:  # its answer was lost: what is leased no more was settled by it, which the other way finds out
            return self.settle([Ack(claim, None, "", 0.0) for claim in claims], mark=mark)
        return [True] * len(claims) if rows[0][0] is None else list(rows[0][0])

    def _stretch(self, claims: Sequence[Claim]) -> tuple[NumberColumn, NumberColumn, int, int] | None:
        """Leases, how many of each, the first place, and how many in all, if they stand in a row in one queue, as one
        claim gave them.
        """
        tokens, numbers, _, channels, priorities, *_ = zip(*claims, strict=True)
        count, first = len(claims), claims[0]
        # Compared in columns: this is done for every message.
        if channels.count(first.channel) < count or priorities.count(first.priority) < count:
            return None
        if list(numbers) != list(range(first.number, first.number + count)):
            return None
        place = self._names.place(first.channel, first.priority, first.number)
        runs = [(int.from_bytes(token, "big"), len(list(mine))) for token, mine in groupby(tokens)]
        leases = [lease for lease, _ in runs]
        if place is None or leases != sorted(set(leases)) or any(len(token) != 8 for token in set(tokens)):
            return None
        return NumberColumn(leases), NumberColumn(number for _, number in runs), place, count

    def settle(self, changes: Sequence[Settlement], *, mark: int | None = None) -> list[bool]:
        """Apply each change whose lease still holds (True); the others change nothing (False). ``mark``: of a call that
        tried this before, and whose answer was lost.
        """
        self._engine.guard.enter(write=True)
        batch = Batch()
        for at, change in enumerate(changes):
            claim = change.claim
            place = self._names.place(claim.channel, claim.priority, claim.number)
            if place is not None and len(claim.token) == 8:
                batch.add(at, int.from_bytes(claim.token, "big"), place, change)
        results = [False] * len(changes)
        if batch:
            done = self._apply(batch, mark)
            for at, well in zip(batch.order(), done, strict=True):
                results[at] = well
        return results

    def _apply(self, batch: "Batch", mark: int | None) -> list[bool]:
        """One statement; again where its session broke, together with what it had settled by then."""
        now, remember = self._engine.times.now(), self._context.remember
        gone = [False] * len(batch.order()) if mark is None else self._decided(batch, mark)
        mark = _mark() if mark is None else mark
        for _ in range(TRIES):
            done = self._engine.relaxed_quick(lambda connection: batch.apply(connection, now, remember, mark))
            if done is not None:
                return [one or other for one, other in zip(done, gone, strict=True)]
            gone = self._decided(batch, mark)
        raise self._lost()

    def _lost(self) -> StoreBusy:
        return StoreBusy(f"{self._engine.name}: sessions are lost again and again; look who ends them, then try again")

    def _decided(self, batch: "Batch", mark: int) -> list[bool]:
        """What became of a batch whose answer was lost: if its mark stands there, it settled what is not leased now."""
        count = len(batch.order())
        if not self._engine.query(MARKED, (mark, mark)):
            return [False] * count
        rows = self._engine.query(LEFT, ([int(token) for token in batch.leases],))
        left = {(token, place) for token, places in rows for place in places}
        return [(token, place) not in left for token, places in batch.leases.items() for place in places]

    def holds(self, claim: Claim) -> bool:
        """Whether the lease still holds."""
        place = self._names.place(claim.channel, claim.priority, claim.number)
        token = int.from_bytes(claim.token[:8], "big")
        return place is not None and bool(self._engine.query(HOLDS, (token, place)))


class Batch:
    """Settlements by lease; the second one of a message comes too late by nature, and is left out."""

    def __init__(self) -> None:
        self.leases: dict[int, dict[int, tuple[int, Settlement]]] = {}
        self._plain = True

    def __bool__(self) -> bool:
        return bool(self.leases)

    def add(self, at: int, token: int, place: int, change: Settlement) -> None:
        """One more; ``at``: its turn among all."""
        places = self.leases.setdefault(token, {})
        if place not in places:
            places[place] = (at, change)
            if (
                type(change) is not Ack
                or change.result is not None
                or change.keep
                or change.reason
                or change.content_type
            ):
                self._plain = False

    def order(self) -> list[int]:
        """The turns, in the order in which `apply` answers."""
        self._sort()
        return [at for places in self.leases.values() for at, _ in places.values()]

    def _sort(self) -> None:
        """By token, so that two who settle at once do not wait for each other in a ring."""
        if list(self.leases) != (tokens := sorted(self.leases)):
            self.leases = {token: self.leases[token] for token in tokens}

    def apply(self, connection: Connection, now: float, remember: float, mark: int = 0) -> list[bool]:
        """One statement."""
        self._sort()
        tokens, counts = list(self.leases), [len(places) for places in self.leases.values()]
        places = [place for mine in self.leases.values() for place in mine]
        if self._plain:
            row = connection.execute(ACK, (tokens, counts, NumberColumn(places), now, mark)).fetchone()
        else:
            columns: list[list[Any]] = [[] for _ in range(9)]
            for mine in self.leases.values():
                for at, change in mine.values():
                    for column, value in zip(columns, (at, *_fields(change, now)), strict=True):
                        column.append(value)
            row = connection.execute(SETTLE, (tokens, counts, places, *columns, now, remember, mark)).fetchone()
        assert row is not None
        return list(row[0])


def _mark() -> int:
    """What tells one call from all others."""
    return int.from_bytes(os.urandom(8), "big") >> 1


def _asking(statement: str, values: list[Any]) -> Callable[[Connection], list[Any]]:
    return lambda connection: connection.execute(statement, values).fetchall()


def _fields(change: Settlement, now: float) -> tuple[Any, ...]:
    """kind, result, type or what the sender is told, reason or line of history, time, counted, rank, level."""
    if isinstance(change, Ack):
        return ACKED, change.result, _clean(change.content_type), _clean(change.reason), change.keep, True, None, None
    rank, level = None, None
    if change.rank is not None:
        level = priority_of_rank(change.rank)
        rank = None if change.rank == first_rank(level) else change.rank
    if isinstance(change, Release):
        due = now + max(0.0, change.delay)
        return RELEASED, None, "", line(change.reason), due, change.counted, rank, level
    assert isinstance(change, Bury)
    return BURIED, None, _clean(change.reason), line(change.reason), 0.0, True, rank, level


def _clean(text: str) -> str:
    """What a column can hold."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


def line(reason: str) -> str:
    """A reason as one line of a history of errors."""
    return " ".join(_clean(reason).split())
