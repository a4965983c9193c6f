"""Filling the inbox: the receiver's half of the log-matching rule.

Owns accept, put and heads: message and head in one transaction, so that nothing enters twice, on whichever machine a
push arrives. Must not know peers, frames or consumers.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.inbox_records import PlainJobs, refusal
from dropr_core.contracts.storage import Accepted, Arrival, Put
from dropr_core.errors import QueueFull
from dropr_core.model.names import START, Head, MessageId, SourceLane, StoreId, first_rank, priority_of
from dropr_core.storage_kit.limits import Amount, check_inbox, limited
from dropr_storage_postgres.engine.columns import ByteColumn
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.engine import FLUSH, Engine, QuickJob
from dropr_storage_postgres.engine.inbox_tables import ARRIVING, DUPLICATE, RECEIPT
from dropr_storage_postgres.inbox.part import Part
from dropr_storage_postgres.inbox.plain import plain_jobs

_FROM = (
    " FROM in_accept(%b::text[], %b::bytea[], %b::text[], %b::smallint[], "
    "%b::smallint[], %b::bigint[], %b::bytea[], %b::bigint[], %b::bytea[], %b::integer[], %b::bigint[], "
    "%b::smallint[], %b::integer[], %b::smallint[], %b::bytea[], %b::bytea[], %b::integer[], %b::bytea[], "
    "%b::float8[], %b::float8[], %b::bigint[], %b, %b::float8)"
)
ACCEPT = "SELECT taken, seqs, ids, base, standing" + _FROM
PUT = "SELECT taken, seqs, ids, base, standing, in_mark(%b::bigint, %b::bigint, base)" + _FROM
_JOBS = "%b::integer, %b::bigint, %b::smallint, %b::bytea[], %b::bytea[], %b::float8)"
PUSH = (
    "SELECT in_push(%b::text, %b::bytea, %b::text, %b::smallint, %b::bigint, %b::bytea, %b::bigint, %b::bytea, " + _JOBS
)
PUT_PLAIN = "SELECT in_put_plain(%b::text, %b::text, %b::smallint, %b::bigint, %b::bigint, " + _JOBS
DONE = "SELECT base FROM in_put WHERE putter = %b::bigint AND mark = %b::bigint"
HEADS = "SELECT sender, store, channel, priority, sequence, id FROM in_source WHERE sender = %s"
HEAD = (
    "SELECT sequence, id FROM in_source WHERE sender = %b::text AND store = %b::bytea AND channel = %b::text "
    "AND priority = %b::smallint"
)
TURN = f"SELECT pg_advisory_xact_lock('in_job'::regclass::oid::integer, {ARRIVING})"
FLUSHED = "SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()"
TOTAL = (
    "SELECT coalesce(sum(ready + delayed + leased + blocked), 0)::bigint, coalesce(sum(bytes), 0)::bigint FROM in_tally"
)
TOTAL_OF_CHANNEL = TOTAL + " WHERE queue IN (SELECT queue FROM in_queue WHERE channel = %s)"


class _Call:
    """What one call of `put_all` wants, and how it is known later whether it was done."""

    __slots__ = ("doubted", "mark", "numbers", "parts", "twins")

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.twins = _has_twins(parts)
        """Whether some may stand here already: the first number does not tell all numbers then."""
        self.mark = 0
        """Of the last try."""
        self.numbers: Sequence[int] | None = None
        """What the last try gave, once its answer was there."""
        self.doubted = False
        """Whether the last try may have gone through all the same."""

    def doubt(self) -> None:
        self.doubted = True


class Acceptor:
    """What the endpoint does with arrivals."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context
        self._limited = limited(context)
        self._putter = _random()
        """Whose last put is kept in `in_put`: this session's, where one call follows the other."""

    def heads(self, sender: str, store: StoreId | None = None) -> dict[SourceLane, Head]:
        """Every head known for a sender (and one of its store ids)."""
        more, values = ("", (sender,)) if store is None else (" AND store = %s", (sender, store))
        rows = self._engine.query(HEADS + more, values)
        return {
            SourceLane(name, StoreId(bytes(kept)), channel, priority): Head(seq, MessageId(bytes(identity)))
            for name, kept, channel, priority, seq, identity in rows
        }

    def accept(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """The log-matching rule, all arrivals in one durable transaction."""
        parts = _parts(arrivals)
        if not parts:
            return []
        if self._limited:
            answer = _told(self._engine.write(lambda connection: self._checked(connection, parts)))
        else:
            # Done again where nobody knows whether it went through, it meets its own head, and changes nothing.
            answer = self._engine.write(
                QuickJob(self._run, parts, lambda connection: self._run(connection, [parts])[0], lambda: None),
                stored=lambda answer: True in answer[0],
            )
        return _words(answer)

    def accept_together(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """The same, but all arrivals or none."""
        # More than one statement. Where nobody knows whether it went through, it is done again, as in `accept`.
        words: list[Accepted] = _told(
            self._engine.write(
                QuickJob(self._together, arrivals, lambda _: None, lambda: None),
                stored=lambda words: not isinstance(words, QueueFull) and any(word.taken for word in words),
            )
        )
        return words

    def put_all(self, puts: Sequence[Put]) -> list[Sequence[int]]:
        """Queue jobs that come from this node itself; durable, all or none."""
        if not any(put.jobs for put in puts):
            return [() for _ in puts]
        parts = [
            Part(put.sender, None, put.channel, put.priority, put.priority, START, START, put.jobs) for put in puts
        ]
        given: Sequence[int]
        if self._limited:
            given = _told(self._engine.write(lambda connection: self._checked(connection, parts)))[2]
        else:
            call = _Call(parts)
            given = self._engine.write(
                QuickJob(self._put, call, lambda connection: self._put_alone(connection, call), call.doubt),
                stored=lambda _: True,
            )
        numbers: list[Sequence[int]] = []
        at = 0
        for part in parts:
            numbers.append(given[at : at + len(part.jobs)])
            at += len(part.jobs)
        return numbers

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _together(self, connection: Connection, calls: list[Sequence[Arrival]]) -> list[Any]:
        """The words on each call, all of it taken or nothing; or why there is no room, as in `_checked`."""
        connection.execute(TURN)  # heads stand still until the commit
        answers: list[Any] = []
        for arrivals in calls:
            refused = refusal(arrivals, lambda lane: self._head(connection, lane))
            if refused is not None or not arrivals:
                answers.append(refused or [])
                continue
            parts = _parts(arrivals)
            answer = self._checked(connection, parts) if self._limited else self._run(connection, [parts])[0]
            answers.append(answer if isinstance(answer, QueueFull) else _words(answer))
        return answers

    def _head(self, connection: Connection, lane: Sequence[Any]) -> Head:
        row = connection.execute(HEAD, lane).fetchone()
        return START if row is None else Head(row[0], MessageId(bytes(row[1])))

    def _put_alone(self, connection: Connection, call: _Call) -> Sequence[int] | None:
        """One put in one statement; None where a lost answer would leave its numbers unknown."""
        return None if call.twins else self._put(connection, [call])[0]

    def _put(self, connection: Connection, calls: list[_Call]) -> list[Sequence[int]]:
        """The numbers of several puts, done together; one in doubt, which comes alone, is not done twice."""
        if calls[0].doubted:
            (call,) = calls
            done = self._done(connection, call)
            if done is not None:
                return [done]
        mark = _random()
        for call in calls:
            call.mark, call.numbers = mark, None
        answers = self._run(connection, [call.parts for call in calls], mark)
        for call, (_, _, numbers) in zip(calls, answers, strict=True):
            call.numbers = numbers
        return [numbers for _, _, numbers in answers]

    def _done(self, connection: Connection, call: _Call) -> Sequence[int] | None:
        """The numbers that the last try gave, if it went through. Nobody else writes under our name, so its mark stands
        until our next put.
        """
        row = connection.execute(DONE, (self._putter, call.mark)).fetchone()
        if row is None or call.numbers is not None:
            return None if row is None else call.numbers
        return range(row[0] + 1, row[0] + 1 + sum(len(part.jobs) for part in call.parts))

    def _run(self, connection: Connection, items: list[list[Part]], mark: int | None = None) -> list[Any]:
        """Several calls as one statement; each with its verdicts, heads and numbers. ``mark``: what to note of it."""
        if len(items) == 1 and len(items[0]) == 1:
            plain = self._run_plain(connection, items[0][0], mark)
            if plain is not None:
                return [plain]
        columns = Columns(self._engine.times.now())
        for parts in items:
            for part in parts:
                columns.add(part)
        values = columns.values()
        if mark is None:
            row = connection.execute(ACCEPT, values).fetchone()
        else:
            row = connection.execute(PUT, [self._putter, mark, *values]).fetchone()
        assert row is not None
        taken, seqs, ids, base, found = row[:5]
        heads = [] if seqs is None else [
            START if seq is None else Head(seq, MessageId(bytes(one))) for seq, one in zip(seqs, ids, strict=True)
        ]  # fmt: skip
        numbers = columns.numbers(base, taken, found)
        answers, at, number = [], 0, 0
        for parts in items:
            count = sum(len(part.jobs) for part in parts)
            stretch = slice(at, at + len(parts))
            answers.append((taken[stretch], heads[stretch], numbers[number : number + count]))
            at, number = at + len(parts), number + count
        return answers

    def _run_plain(self, connection: Connection, part: Part, mark: int | None) -> tuple[Any, ...] | None:
        """The same for plain messages of one lane or caller; None, and nothing was done, if that takes more."""
        jobs = plain_jobs(part, self._engine.times.now())
        if jobs is None:
            return None
        if part.store is None and mark is not None:
            caller = (part.sender, part.channel, part.priority, self._putter, mark)
            row = connection.execute(PUT_PLAIN, caller + jobs).fetchone()
        elif part.store is not None and mark is None:
            lane = (part.sender, part.store, part.channel, part.priority, *part.after, *part.upto)
            row = connection.execute(PUSH, lane + jobs).fetchone()
        else:
            return None
        assert row is not None
        (base,) = row
        return None if base is None else ([True], [part.upto], range(base + 1, base + 1 + len(part.jobs)))

    def _checked(self, connection: Connection, parts: list[Part]) -> Any:
        """The same where there are limits. QueueFull, as a value, if the inbox would be over one: nothing was written
        then, not even a number taken, and nobody who shares the transaction has to begin anew.
        """
        if _has_twins(parts):  # what stands here already would be counted twice
            (answer,) = self._run(connection, [parts])
            self._check(connection, _amounts(part for part, took in zip(parts, answer[0], strict=True) if took), 1)
            return answer
        connection.execute(TURN)
        try:
            self._check(connection, _amounts(self._following(connection, parts)), 0)
        except QueueFull as full:
            return full
        return self._run(connection, [parts])[0]

    def _following(self, connection: Connection, parts: list[Part]) -> Iterator[Part]:
        """Those that would be taken."""
        heads: dict[tuple[Any, ...], Head] = {}
        for part in parts:
            lane = (part.sender, part.store, part.channel, part.priority)
            if part.store is not None and lane not in heads:
                heads[lane] = self._head(connection, lane)
            if part.store is None or heads[lane] == part.after:
                heads[lane] = part.upto
                yield part

    def _check(self, connection: Connection, more: dict[str, Amount], there: int) -> None:
        """Raise QueueFull if ``more`` is too much; ``there``: 1 if it is counted among what waits, 0 if not."""

        def kept(_: str, name: str) -> Amount:
            query, values = (TOTAL_OF_CHANNEL, (name,)) if name else (TOTAL, ())
            messages, size = connection.execute(query, values).fetchall()[0]
            mine = [more.get(name, (0, 0))] if name else list(more.values())
            return messages - there * sum(one[0] for one in mine), size - there * sum(one[1] for one in mine)

        check_inbox(self._context, more, kept)


def _parts(arrivals: Sequence[Arrival]) -> list[Part]:
    return [
        Part(one.source.sender, one.source.store, one.source.channel, one.source.priority,
             priority_of(one.source.priority), one.after, one.upto, one.entries)
        for one in arrivals
    ]  # fmt: skip


def _words(answer: tuple[Any, ...]) -> list[Accepted]:
    taken, heads, _ = answer
    return [Accepted(head, took) for head, took in zip(heads, taken, strict=True)]


def _has_twins(parts: list[Part]) -> bool:
    """Whether some messages may stand here already."""
    return any(not isinstance(part.jobs, PlainJobs) and any(job[7] for job in part.jobs) for part in parts)


def _amounts(parts: Iterable[Part]) -> dict[str, Amount]:
    """What they bring, by channel."""
    more: dict[str, Amount] = {}
    for part in parts:
        if part.jobs:
            messages, size = more.get(part.channel, (0, 0))
            bodies = part.jobs.envelopes if isinstance(part.jobs, PlainJobs) else [job[1] for job in part.jobs]
            more[part.channel] = (messages + len(bodies), size + sum(map(len, bodies)))
    return more


def _told(answer: Any) -> Any:
    """The same; raises QueueFull if it is one."""
    if isinstance(answer, QueueFull):
        raise answer
    return answer


class Columns:
    """What `in_accept` is given: columns of parts, of messages, and of what is special about some of them."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._parts: list[list[Any]] = [[] for _ in range(12)]
        self._at: list[int] = []
        self._flags: list[int] = []
        self._ids, self._envelopes = ByteColumn(), ByteColumn()
        self._alike = True
        self._special: list[list[Any]] = [[] for _ in range(5)]

    def add(self, part: Part) -> None:
        """One more part."""
        jobs, count = part.jobs, len(part.jobs)
        if isinstance(jobs, PlainJobs):
            ids, envelopes = jobs.ids, jobs.envelopes
            flags, alike = [RECEIPT if jobs.receipt else 0] * count, True
            if jobs.rank is not None and jobs.rank != first_rank(part.queue):
                for at in range(1, count + 1):
                    self._mark(len(self._ids) + at, None, None, None, jobs.rank)
        else:
            ids, envelopes, flags = [job[0] for job in jobs], [job[1] for job in jobs], []
            first = first_rank(part.queue)
            for at, job in enumerate(jobs, len(self._ids) + 1):
                _, _, _, key, receipt, due_in, expires_in, duplicate, rank = job
                flags.append((RECEIPT if receipt else 0) | (DUPLICATE if duplicate else 0))
                if (
                    key is not None
                    or due_in is not None
                    or expires_in is not None
                    or duplicate
                    or rank not in {None, first}
                ):
                    due = None if due_in is None or due_in <= 0 else self._now + due_in
                    expires = None if expires_in is None else self._now + expires_in
                    self._mark(at, key, due, expires, None if rank == first else rank)
            alike = flags.count(flags[0]) == count if flags else True
        self._alike = self._alike and alike
        self._at += [len(self._parts[0]) + 1] * count
        self._ids += ids
        self._envelopes += envelopes
        self._flags += flags
        values = (part.sender, part.store, part.channel, part.priority, part.queue, *part.after, *part.upto, count,
                  sum(map(len, envelopes)), flags[0] if flags else 0)  # fmt: skip
        for column, value in zip(self._parts, values, strict=True):
            column.append(value)

    def _mark(self, at: int, key: str | None, due: float | None, expires: float | None, rank: int | None) -> None:
        written = None if key is None else key.encode("utf-8", "surrogatepass")
        for column, value in zip(self._special, (at, written, due, expires, rank), strict=True):
            column.append(value)

    def numbers(self, base: int | None, taken: list[bool], standing: list[int] | None) -> Sequence[int]:
        """The number of each message that was added: after ``base``, but what was refused or stands here has none.

        ``standing``: which entry (from 1), and its number here, or minus the entry that it repeats.
        """
        if base is None:
            return ()
        if not standing and all(taken):
            return range(base + 1, base + 1 + len(self._ids))
        known = {} if not standing else dict(zip(standing[::2], standing[1::2], strict=True))
        found: list[int] = []
        for entry, at in enumerate(self._at, 1):
            if not taken[at - 1]:
                found.append(0)
            elif entry in known:
                found.append(known[entry] if known[entry] > 0 else found[-known[entry] - 1])
            else:
                base += 1
                found.append(base)
        return found

    def values(self) -> list[Any]:
        """The arguments, in order."""
        alike = self._alike and not self._special[0]  # then each part says it once for all
        at, flags = (None, None) if alike else (self._at, self._flags)
        return [*self._parts, at, flags, self._ids, self._envelopes, *self._special, START.id, self._now]


def _random() -> int:
    return int.from_bytes(os.urandom(8), "big") >> 1


__all__ = ["FLUSH", "Acceptor"]
