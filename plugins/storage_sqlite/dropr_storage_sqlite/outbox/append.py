"""Putting messages into the outbox.

Owns `append`: own ids, limits, numbering and storing, all in one transaction. Must not know what
happens to deliveries afterwards.
"""

import itertools
from collections.abc import Callable, Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import AppendRun, PlainMessages
from dropr_core.contracts.storage import AppendResult, NewMessage
from dropr_core.errors import Conflict
from dropr_core.model.names import format_id
from dropr_core.storage_kit.group_commit import BatchedJob
from dropr_core.storage_kit.limits import Amount, check_outbox, limited
from dropr_storage_sqlite.engine.bulk import insert, insert_alike
from dropr_storage_sqlite.engine.engine import Engine
from dropr_storage_sqlite.engine.rising import Rise
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.outbox import sql
from dropr_storage_sqlite.outbox.ids import End, end_of
from dropr_storage_sqlite.outbox.together import Together

_Key = tuple[str, str, int]


class _Share:
    """What one lane gets of an append."""

    def __init__(self, size: int) -> None:
        self.count, self.size = 1, size

    def begin(self, end: End) -> None:
        """Behind what is there."""
        self.first = sql.origin(end.number)
        self._place, self._total, self._rise = self.first + end.last, end.total, Rise(end.top, end.left)

    @property
    def stones(self) -> list[tuple[int, bytes]]:
        """The milestones among them."""
        return self._rise.stones

    def add(self, message: NewMessage, size: int) -> tuple[int, int, int]:
        """(place, bytes ever appended, flag of its id) of the next one."""
        self._place, self._total = self._place + 1, self._total + size
        identity = message.id if message.fingerprint is None else b""
        return self._place, self._total, 0 if self._rise.add(self._place, identity) else sql.APART


class Appender:
    """`append` of the outbox."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context
        self._limited = limited(context)
        self._company = engine.company
        self._together = Together(engine, self._append)
        self._state: tuple[Connection | None, int, int, int, _Key] = (None, 0, 0, 0, ("", "", 0))
        """When `_end` holds: (connection, its version, commits of this process, rows it ever changed, lane)."""
        self._end: tuple[int, int, int, bytes, int] = (0, 0, 0, b"", 0)
        """Where that lane ends, as an `End`."""

    def append(
        self, messages: Sequence[NewMessage], seen: Callable[[object], None] | None = None
    ) -> Sequence[AppendResult]:
        """Store all messages or none, durably; see the contract. ``seen``: told when others can take them."""
        if not messages:
            return []
        self._engine.space.check()
        if self._company.left and len(messages) == 1 and not self._limited:
            message = messages[0]
            if len(message.peers) == 1 and message.fingerprint is None:
                placed = self._together.append(message, seen)
                if placed is not None:
                    return placed
        return self._engine.write_flushed(BatchedJob(self.append_all, messages, seen))

    def close(self) -> None:
        """Send no more together with other processes; safe twice."""
        self._together.close()

    def append_staged(self, messages: Sequence[NewMessage], log: str, after: int, upto: int) -> bool:
        """`append` with a note about a staging log; see the contract."""
        self._engine.space.check()
        key = sql.STAGED + log

        def job(connection: Connection) -> bool:
            noted = connection.execute(sql.STAGED_UPTO, (key,)).fetchall()
            if (noted[0][0] if noted else 0) != after:
                return False
            self._append(connection, messages)
            connection.execute(sql.SET_STAGED, (key, upto))
            return True

        return self._engine.write_durable(job)

    def append_all(self, connection: Connection, calls: list[Sequence[NewMessage]]) -> list[Sequence[AppendResult]]:
        """What several threads want to append at the same time, as if one had asked for all of it."""
        if len(calls) == 1:
            return [self._append(connection, calls[0])]
        placed = iter(self._append(connection, [message for messages in calls for message in messages]))
        return [list(itertools.islice(placed, len(messages))) for messages in calls]

    def _append(self, connection: Connection, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:
        if not self._limited:
            message = messages[0]
            if len(messages) > 1:
                plain = PlainMessages.of(messages)
                if plain is not None and (placed := self._append_plain(connection, plain)) is not None:
                    return placed
            elif len(message.peers) == 1 and message.fingerprint is None:
                return [self._append_one(connection, message, message.peers[0])]
        known: dict[int, AppendResult] = {}
        for message in messages:
            if message.fingerprint is not None:
                known = _known(connection, messages)
                break
        lanes: dict[_Key, _Share] = {}
        for index, message in enumerate(messages):
            if index in known:
                continue
            size = len(message.envelope)
            for peer in message.peers:
                key = (peer, message.channel, message.priority)
                share = lanes.get(key)
                if share is None:
                    lanes[key] = _Share(size)
                else:
                    share.count += 1
                    share.size += size
        if self._limited and lanes:
            self._check_room(connection, lanes)
        for key, share in lanes.items():
            share.begin(end_of(connection, key, share.count))
        return self._store(connection, messages, known, lanes)

    def _append_one(self, connection: Connection, message: NewMessage, peer: str) -> AppendResult:
        """The common case of `send`, by itself: half of the general way's cost is its book-keeping."""
        key = (peer, message.channel, message.priority)
        # SQLite counts a connection's commits and the changes by others in one number. If it grew by our last commit
        # alone, that is the last of this process, and nobody changed a row beside us in that transaction, the lane ends
        # where we left it. Each connection counts for itself, so what one of them said says nothing of the next.
        writer, version, commits = connection, connection.data_version(), self._engine.commits
        connection = self._engine.frugal(connection)
        state = (writer, version, commits, writer.total_changes(), key)
        if self._state == state and self._end[1] + 1 < sql.HALF and self._end[4] > 0:
            number, last, total, top, left = self._end
        else:
            number, last, total, top, left = end_of(connection, key, 1)
        place, identity, apart = sql.origin(number) + last + 1, message.id, 0
        total += len(message.envelope)
        if identity > top and identity[6] >> 4 == 7:  # `is_timed`, without a call
            top = identity
        else:
            apart = sql.APART
        now = self._context.clock.now()
        connection.execute(sql.INSERT, _row(message, place, now, total, None, message.envelope, apart))
        if left <= 1:
            connection.execute(sql.MILESTONE, (place, top))
        self._state = (writer, version + 1, commits + 1, writer.total_changes(), key)
        self._end = (number, last + 1, total, top, left - 1)
        return AppendResult(message.id, (last + 1,), False)

    def _append_plain(self, connection: Connection, messages: PlainMessages) -> AppendRun | None:
        """All for one lane, alike, with nothing to remember: the common case of a batch. In columns: what is done for
        every message costs more than all the rest. None, and nothing done, where their ids do not rise.
        """
        like, count, ids, envelopes = messages.like, len(messages), messages.ids, messages.envelopes
        number, last, total, top, left = end_of(connection, (like.peers[0], like.channel, like.priority), count)
        first, rise = sql.origin(number) + last + 1, Rise(top, left)
        apart = rise.add_all(first, ids)
        if apart is None:
            return None
        sizes = list(map(len, envelopes))
        flags = (sql.RECEIPT if like.receipt else 0) | (sql.DELAYED if like.delayed else 0)
        totals = itertools.islice(itertools.accumulate(sizes, initial=total), 1, None)
        rows = zip(range(first, first + count), ids, sizes, totals, envelopes, strict=True)
        now = self._context.clock.now()
        if apart:  # others were faster, and theirs are higher
            insert_alike(connection, sql.INSERT_PLAIN, (now, flags | sql.APART), itertools.islice(rows, apart), apart)
        if apart < count:
            insert_alike(connection, sql.INSERT_PLAIN, (now, flags), rows, count - apart)
        insert(connection, sql.MILESTONE, rise.stones)
        return AppendRun(ids, last + 1)

    def _store(
        self,
        connection: Connection,
        messages: Sequence[NewMessage],
        known: dict[int, AppendResult],
        lanes: dict[_Key, _Share],
    ) -> list[AppendResult]:
        now = self._context.clock.now()
        rows: list[tuple[object, ...]] = []
        placed: list[AppendResult] = []
        for index, message in enumerate(messages):
            if known and index in known:
                twin = known[index]
                first = next((one for one in placed if one.id == twin.id), twin)  # perhaps of this very call
                placed.append(twin._replace(sequences=first.sequences))
                continue
            envelope, peers, shared = message.envelope, message.peers, None
            inline: bytes | None = envelope
            if len(peers) > 1:
                shared = connection.execute(sql.SHARE, (len(peers), envelope)).fetchall()[0][0]
                inline = None
            size, channel, priority = len(envelope), message.channel, message.priority
            sequences = []
            for peer in peers:
                share = lanes[peer, channel, priority]
                place, total, apart = share.add(message, size)
                sequences.append(place - share.first)
                rows.append(_row(message, place, now, total, shared, inline, apart))
            placed.append(AppendResult(message.id, tuple(sequences), False))
        insert(connection, sql.INSERT, rows)
        insert(connection, sql.MILESTONE, [stone for share in lanes.values() for stone in share.stones])
        return placed

    def _check_room(self, connection: Connection, lanes: dict[_Key, _Share]) -> None:
        more: dict[tuple[str, str], Amount] = {}
        for (peer, channel, _), share in lanes.items():
            before = more.get((peer, channel), (0, 0))
            more[peer, channel] = (before[0] + share.count, before[1] + share.size)
        totals = {"all": sql.TOTAL, "peer": sql.TOTAL_OF_PEER, "channel": sql.TOTAL_OF_CHANNEL}
        check_outbox(
            self._context, more,
            lambda kind, name: connection.execute(totals[kind], (name,) if name else ()).fetchall()[0],
        )  # fmt: skip


def _row(
    message: NewMessage, place: int, now: float, total: int, shared: int | None, inline: bytes | None, flags: int
) -> tuple[object, ...]:
    """A row of `delivery`. ``flags``: whether its id is out of order."""
    expires = message.expires_in
    if message.receipt:
        flags |= sql.RECEIPT
    if message.delayed:
        flags |= sql.DELAYED
    if message.fingerprint is not None:
        flags |= sql.FINGERPRINT
    if shared is not None:
        flags |= sql.SHARED
    if expires is not None:
        flags |= sql.EXPIRES
        expires += now
    size = len(message.envelope)
    return (place, message.id, now, flags, size, expires, expires, shared, message.fingerprint, total, inline)


def _known(connection: Connection, messages: Sequence[NewMessage]) -> dict[int, AppendResult]:
    """Which of the messages were sent before (or stand twice in this call); raises Conflict."""
    known: dict[int, AppendResult] = {}
    seen: dict[bytes, int] = {}
    for index, message in enumerate(messages):
        if message.fingerprint is None:
            continue
        first = seen.setdefault(message.id, index)
        if first != index:
            if messages[first].fingerprint != message.fingerprint:
                raise _conflict(message)
            known[index] = known.get(first) or AppendResult(message.id, (0,) * len(message.peers), True)
            continue
        live = connection.execute(sql.FINGERPRINTS, (message.id,)).fetchall()
        ended = connection.execute(sql.ENDED_FINGERPRINTS, (message.id,)).fetchall()
        if not live and not ended:
            continue
        if any(fingerprint != message.fingerprint for _, fingerprint in (*live, *ended)):
            raise _conflict(message)
        at: dict[str, int] = {}
        for place, _ in live:
            number, sequence = sql.unpack(place)
            at[connection.execute(sql.LANE_BY_NUMBER, (number,)).fetchall()[0][1]] = max(0, sequence)
        known[index] = AppendResult(message.id, tuple(at.get(peer, 0) for peer in message.peers), True)
    return known


def _conflict(message: NewMessage) -> Conflict:
    return Conflict(
        f"message {format_id(message.id)} was sent before with other content; use a new id or dedup_key for new content"
    )
