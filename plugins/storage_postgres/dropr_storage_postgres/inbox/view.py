"""Looking at the inbox; changes nothing.

Owns scan, find, peek, envelope, counts, oldest and next_due. Must not know who looks.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

from collections.abc import Mapping, Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import JobInfo, Selection
from dropr_core.model.message import State
from dropr_core.model.names import NOT_URGENT, MessageId, first_rank
from dropr_core.model.states import SETTLED
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.engine.inbox_tables import DUPLICATE, EMPTIED, MASK, N_BITS
from dropr_storage_postgres.inbox.codes import CODES, state_of

_JOB = (
    "j.place, j.arrived, j.expires, j.due, j.ended, j.rank, j.sender, j.size, j.attempts, j.state, j.flags, j.id, "
    "j.reason"
)
_SHOWN = f"SELECT {_JOB}, q.channel, q.priority, q.frontier, s.name"
_WITH = " JOIN in_sender s ON s.sender = j.sender"
_TOP = f"(q.queue::bigint << {N_BITS}) + {MASK}"
_START = f"(q.queue::bigint << {N_BITS})"
BY_ID = (
    _SHOWN + f" FROM in_job j JOIN in_queue q ON q.queue = j.place >> {N_BITS}" + _WITH
    + f" WHERE j.id = ANY(%(ids)s::bytea[]) AND j.place & {MASK} > %(after)s::bigint"
)  # fmt: skip
AT = _SHOWN + f" FROM in_queue q JOIN in_job j ON j.place = {_START} + %(number)s::bigint" + _WITH
LEASES = (
    "SELECT v.place, l.token, c.name FROM in_lease l CROSS JOIN LATERAL unnest(l.places) v(place) "
    "LEFT JOIN in_consumer c ON c.consumer = l.consumer WHERE v.place = ANY(%s::bigint[])"
)
ENVELOPE = f"SELECT envelope FROM in_job WHERE id = %s::bytea AND flags & {EMPTIED} = 0 ORDER BY place LIMIT 1"
COUNTS = (
    "SELECT q.channel, q.priority, t.* FROM in_queue q JOIN (SELECT queue, sum(ready)::bigint AS ready, "
    "sum(delayed)::bigint AS delayed, sum(blocked)::bigint AS blocked, sum(leased)::bigint AS leased, "
    "sum(buried)::bigint AS buried, sum(done)::bigint AS done, sum(expired)::bigint AS expired, "
    "sum(bytes)::bigint AS bytes, sum(processed)::bigint AS processed FROM in_tally GROUP BY queue) t USING(queue)"
)
_FROM = "SELECT {0} FROM in_job j WHERE "
_HERE = f"j.place >> {N_BITS} = q.queue"
_FIRST_FRESH = _FROM + f"j.place > q.frontier AND j.place <= {_TOP} AND j.state = 0 ORDER BY j.place LIMIT 1"
_FIRST_READY = _FROM + f"{_HERE} AND j.state = 1 AND j.rank IS NULL ORDER BY j.rank NULLS FIRST, j.place LIMIT 1"
_FIRST_RANKED = _FROM + f"{_HERE} AND j.state = 1 AND j.rank IS NOT NULL ORDER BY j.rank, j.place LIMIT 1"
_FIRST_DELAYED = _FROM + f"{_HERE} AND j.state = 2 ORDER BY j.due, j.place LIMIT 1"
_FIRST_BURIED = _FROM + f"j.state = 5 AND j.place > {_START} AND j.place <= {_TOP} ORDER BY j.place LIMIT 1"
OLDEST = (
    "SELECT q.channel, min(a) FROM in_queue q CROSS JOIN LATERAL (VALUES "
    + ", ".join(f"(({one.format('j.arrived')}))" for one in (_FIRST_FRESH, _FIRST_READY, _FIRST_RANKED))
    + ") v(a) WHERE a IS NOT NULL GROUP BY q.channel"
)
NEXT_DUE = f"SELECT min(({_FIRST_DELAYED.format('j.due')})) FROM in_queue q WHERE q.channel = ANY(%s::text[])"
PEEK = (
    f"SELECT q.priority, ({_FIRST_FRESH.format('j.place')}), ({_FIRST_READY.format('j.place')}), "
    f"({_FIRST_RANKED.format('ARRAY[j.rank, j.place]')}), ({_FIRST_DELAYED.format('j.place')}), "
    f"({_FIRST_DELAYED.format('j.due')}), ({_FIRST_BURIED.format('j.place')}) "
    "FROM in_queue q WHERE q.channel = %s ORDER BY q.priority"
)


class View:
    """Read-only views."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def scan(self, selection: Selection, after: int = 0, limit: int = 100) -> list[JobInfo]:
        """A page of messages in order of arrival; the last one's ``number`` is the next cursor."""
        statement, values = self._scan(selection, after, limit)

        def job(connection: Connection) -> list[JobInfo]:
            return self._shown(connection, connection.execute(statement, values).fetchall())

        return self._engine.read(job)

    def _scan(self, selection: Selection, after: int, limit: int) -> tuple[str, dict[str, Any]]:
        now = self._engine.times.now()
        where, values = "", {"after": after, "limit": limit, "ids": list(selection.ids), "now": now}
        if selection.peer is not None:
            where, values["peer"] = where + " AND s.name = %(peer)s", selection.peer
        if selection.channel is not None:
            where, values["channel"] = where + " AND q.channel = %(channel)s", selection.channel
        if selection.older_than is not None:
            values["before"] = now - selection.older_than
            where += " AND (CASE WHEN j.state >= 5 THEN j.ended ELSE j.arrived END) <= %(before)s::float8"
        ends = f" ORDER BY j.place & {MASK} LIMIT %(limit)s"
        ranges = list(_ranges(selection.states))
        if selection.ids:
            if selection.states:
                where += f" AND ({' OR '.join(ranges)})"
            return BY_ID + where + ends, values
        whole = f"j.place > {_START} + %(after)s::bigint AND j.place <= {_TOP}"
        many = " UNION ALL ".join(
            f"(SELECT j.*, s.name FROM in_job j{_WITH} WHERE {whole} AND {one}{where} ORDER BY j.place LIMIT %(limit)s)"
            for one in (ranges or ["true"])
        )
        return (
            f"SELECT {_JOB}, q.channel, q.priority, q.frontier, j.name FROM in_queue q CROSS JOIN LATERAL ({many}) j"
            + ends,
            values,
        )

    def find(self, number: int) -> JobInfo | None:
        """The message with a number."""
        if not 0 < number <= MASK:
            return None

        def job(connection: Connection) -> list[JobInfo]:
            return self._shown(connection, connection.execute(AT, {"number": number}).fetchall())

        found = self._engine.read(job)
        return found[0] if found else None

    def peek(self, channel: str, state: State) -> JobInfo | None:
        """The next ready, delayed or buried message of a channel."""

        def job(connection: Connection) -> list[JobInfo]:
            place = _first(connection.execute(PEEK, (channel,)).fetchall(), state, self._engine.times.now())
            if place is None:
                return []
            statement = _SHOWN + f" FROM in_job j JOIN in_queue q ON q.queue = j.place >> {N_BITS}" + _WITH
            return self._shown(connection, connection.execute(statement + " WHERE j.place = %s", (place,)).fetchall())

        found = self._engine.read(job)
        return found[0] if found else None

    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""
        rows = self._engine.query(ENVELOPE, (message_id,))
        return bytes(rows[0][0]) if rows else None

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Channel → state → number, and ``processed`` ever, ``bytes``; kept, not counted."""
        result: dict[str, dict[str, int]] = {}
        names = [state.value for state in CODES]
        order = ["ready", "delayed", "blocked", "leased", "buried", "done", "expired", "bytes", "processed"]
        for channel, _, _, *numbers in self._engine.query(COUNTS):
            into = result.setdefault(channel, {"processed": 0, "bytes": 0})
            for name, number in zip(order, numbers, strict=True):
                if number or name not in names:
                    into[name] = into.get(name, 0) + number
        return result

    def urgent(self) -> Mapping[str, int]:
        """Channel → ready messages of an urgent priority; kept, not counted."""
        found: dict[str, int] = {}
        for channel, priority, _, ready, *_ in self._engine.query(COUNTS):
            if ready and priority < NOT_URGENT:
                found[channel] = found.get(channel, 0) + ready
        return found

    def oldest(self) -> Mapping[str, float]:
        """Channel → seconds that its first ready message has waited."""
        now = self._engine.times.now()
        return {channel: max(0.0, now - arrived) for channel, arrived in self._engine.query(OLDEST)}

    def next_due(self, channels: Sequence[str]) -> float | None:
        """Node time at which the next delayed message of these channels becomes ready."""
        found = self._engine.query(NEXT_DUE, (list(channels),))[0][0]
        return None if found is None else self._engine.times.node(found)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _shown(self, connection: Connection, rows: Sequence[Any]) -> list[JobInfo]:
        states = [state_of(row[9], row[0], row[15]) for row in rows]
        leased = [row[0] for row, state in zip(rows, states, strict=True) if state is State.LEASED]
        leases = (
            {place: (token, name) for place, token, name in connection.execute(LEASES, (leased,)).fetchall()}
            if leased
            else {}
        )
        return [
            self._info(row, state, *leases.get(row[0], (None, ""))) for row, state in zip(rows, states, strict=True)
        ]

    def _info(self, row: Any, state: State, token: int | None, consumer: str | None) -> JobInfo:
        (place, arrived, expires, due, ended, rank, _, size, attempts, _, flags, identity, reason, channel, priority, _,
         sender) = row  # fmt: skip
        now, ends = self._engine.times.now(), state in SETTLED
        late = due if state in {State.DELAYED, State.BLOCKED} else None
        until = due if ends else None if state is State.LEASED else expires
        return JobInfo(
            place & MASK, MessageId(bytes(identity)), sender, channel, priority, state,
            max(0.0, now - (ended if ends and ended is not None else arrived)), size,
            attempts + (state is State.LEASED),
            reason or "", consumer or "", None if late is None else max(0.0, late - now), bool(flags & DUPLICATE),
            b"" if token is None else token.to_bytes(8, "big"),
            None if until is None else self._engine.times.node(until), first_rank(priority) if rank is None else rank,
        )  # fmt: skip


def _ranges(states: frozenset[State]) -> list[str]:
    """What to look through for messages in these states; each has an index that holds nothing else, or a stretch."""
    found = []
    for state in sorted(states & CODES.keys()):
        code = CODES[state]
        if state is State.READY:
            found += ["(j.state = 0 AND j.place > q.frontier)", "j.state = 1"]
        elif state is State.LEASED:
            found += ["(j.state = 0 AND j.place <= q.frontier)", "j.state = 4"]
        else:
            found.append(f"j.state = {code}")
    return found or (["false"] if states else [])


def _first(rows: Sequence[Any], state: State, now: float) -> int | None:
    """The place of what `peek` shows."""
    if state is State.BURIED:
        buried: list[int] = [row[6] for row in rows if row[6] is not None]
        return min(buried, key=lambda place: place & MASK, default=None)
    late = sorted((row[5], row[4] & MASK, row[4]) for row in rows if row[4] is not None)
    if state is State.DELAYED:
        return int(late[0][2]) if late else None
    for _, fresh, back, ranked, *_ in rows:
        places = [place for place in (fresh, back) if place is not None]
        if places:
            return int(min(places))
        if ranked is not None:
            return int(ranked[1])
    return int(late[0][2]) if late and late[0][0] <= now else None
