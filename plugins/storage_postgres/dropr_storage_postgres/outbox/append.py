"""Putting messages into the outbox.

Owns `append`: own ids, limits, numbering and storing, all in one transaction. Must not know what happens to deliveries
afterwards.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import AppendRun, PlainMessages
from dropr_core.contracts.storage import AppendResult, NewMessage
from dropr_core.errors import Conflict, StoreError
from dropr_core.model.names import format_id
from dropr_core.storage_kit.limits import Amount, check_outbox, limited
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.engine import Engine, QuickJob
from dropr_storage_postgres.outbox import sql

_Key = tuple[str, str, int]
BUCKETS = 256
"""Locks for ids that were chosen by their senders: few, since a transaction may have many ids."""
FEW = 3
"""Rows up to which a statement for each is cheaper than COPY."""


class _Call:
    """What one call of `append` wants."""

    __slots__ = ("doubted", "messages")

    def __init__(self, messages: Sequence[NewMessage]) -> None:
        self.messages = messages
        self.doubted = False
        """Whether it may be stored already: the answer was lost."""

    def doubt(self) -> None:
        self.doubted = True


class Appender:
    """`append` of the outbox."""

    def __init__(self, engine: Engine, context: Context, staged: str) -> None:
        """``staged``: what the names of this machine's staging logs begin with in the table of facts."""
        self._engine, self._context, self._staged = engine, context, staged
        self._limited = limited(context)

    def append(self, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:
        """Store all messages or none, durably; see the contract."""
        if not messages:
            return []
        call = _Call(messages)
        return self._engine.write(
            QuickJob(self._append_all, call, lambda connection: self._send(connection, call), call.doubt)
        )

    def append_staged(self, messages: Sequence[NewMessage], log: str, after: int, upto: int) -> bool:
        """`append` with a note about a staging log; see the contract."""
        key = self._staged + log

        def job(connection: Connection) -> bool:
            noted = connection.execute(sql.STAGED_UPTO, (key,)).fetchone()
            if noted is None:
                connection.execute(sql.NEW_STAGED, (key,))
                noted = connection.execute(sql.STAGED_UPTO, (key,)).fetchone()
            if noted is None or noted[0] != after:
                return False
            if messages:
                self._append(connection, messages, doubted=False)
            connection.execute(sql.SET_STAGED, (upto, key))
            return True

        return self._engine.write(job)

    def _send(self, connection: Connection, call: _Call) -> Sequence[AppendResult] | None:
        """The common case of `send`, in one statement; None where it takes more."""
        message = call.messages[0]
        if len(call.messages) > 1 or len(message.peers) > 1 or message.fingerprint is not None or self._limited:
            return None
        size, now = len(message.envelope), self._engine.times.now()
        expires = None if message.expires_in is None else now + message.expires_in
        row = connection.execute(
            sql.SEND,
            (
                size, message.peers[0], message.channel, message.priority, now, expires, expires, _flags(message), size,
                message.id, message.envelope,
            ),
        ).fetchone()  # fmt: skip
        if row is None:
            return None  # the first of its lane
        if row[0] >= sql.HALF:
            raise _no_numbers((message.peers[0], message.channel, message.priority))
        return [AppendResult(message.id, (row[0],), False)]

    def _append_all(self, connection: Connection, calls: list[_Call]) -> list[Sequence[AppendResult]]:
        """What several threads want to append at the same time, as if one had asked for all of it."""
        doubted = any(call.doubted for call in calls)
        if len(calls) == 1:
            return [self._append(connection, calls[0].messages, doubted=doubted)]
        messages = [message for call in calls for message in call.messages]
        placed = iter(self._append(connection, messages, doubted=doubted))
        return [list(itertools.islice(placed, len(call.messages))) for call in calls]

    def _append(
        self, connection: Connection, messages: Sequence[NewMessage], *, doubted: bool
    ) -> Sequence[AppendResult]:
        if len(messages) > FEW and not self._limited and not doubted:
            placed = self._append_alike(connection, messages)
            if placed:
                return placed
        known: dict[int, AppendResult] = {}
        if any(message.fingerprint is not None for message in messages):
            known = self._known(connection, messages)
        if doubted:
            known |= self._stored(connection, messages, known)
        # What each lane gets: [how many, bytes, next place, place of sequence 0].
        lanes: dict[_Key, list[int]] = {}
        for index, message in enumerate(messages):
            if index in known:
                continue
            size = len(message.envelope)
            for peer in message.peers:
                share = lanes.setdefault((peer, message.channel, message.priority), [0, 0])
                share[0] += 1
                share[1] += size
        if self._limited and lanes:
            self._check_room(connection, lanes)
        for key, (number, last) in _extend(connection, lanes).items():
            first = sql.origin(number)
            lanes[key] += [first + last - lanes[key][0] + 1, first]
        return self._store(connection, messages, known, lanes)

    def _append_alike(self, connection: Connection, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:
        """All for one lane, alike, with nothing to remember: the common case of a batch. Else empty, and nothing is
        done.
        """
        plain = PlainMessages.of(messages)
        if plain is None:
            return []
        like, count, envelopes = plain.like, len(plain), plain.envelopes
        sizes = list(map(len, envelopes))
        key = (like.peers[0], like.channel, like.priority)
        number, last = _extend(connection, {key: [count, sum(sizes)]})[key]
        first = sql.origin(number) + last - count + 1
        nothing, flags, now = itertools.repeat(None), _flags(like), self._engine.times.now()
        columns = (
            range(first, first + count), itertools.repeat(now), nothing, nothing, nothing, itertools.repeat(flags),
            sizes, plain.ids, nothing, envelopes,
        )  # fmt: skip
        _copy(connection, zip(*columns))  # noqa: B905 -- some have no end
        return AppendRun(plain.ids, last - count + 1)

    def _store(
        self,
        connection: Connection,
        messages: Sequence[NewMessage],
        known: dict[int, AppendResult],
        lanes: dict[_Key, list[int]],
    ) -> list[AppendResult]:
        now = self._engine.times.now()
        many = [one for index, one in enumerate(messages) if len(one.peers) > 1 and index not in known]
        shares = iter(())
        if many:
            values = ([len(one.peers) for one in many], [one.envelope for one in many])
            shares = iter(connection.execute(sql.SHARE, values).fetchall())
        rows: list[tuple[Any, ...]] = []
        placed: list[AppendResult] = []
        fresh: dict[bytes, AppendResult] = {}
        for index, message in enumerate(messages):
            if index in known:
                twin = known[index]
                first = fresh.get(twin.id, twin)  # perhaps of this very call
                placed.append(twin._replace(sequences=first.sequences))
                continue
            shared: int | None = next(shares)[0] if len(message.peers) > 1 else None
            expires = None if message.expires_in is None else now + message.expires_in
            flags, size = _flags(message) | (0 if shared is None else sql.SHARED), len(message.envelope)
            inline = message.envelope if shared is None else None
            sequences = []
            for peer in message.peers:
                share = lanes[peer, message.channel, message.priority]
                place = share[2]
                share[2] = place + 1
                sequences.append(place - share[3])
                rows.append((
                    place, now, expires, expires, shared, flags, size, message.id, message.fingerprint, inline,
                ))  # fmt: skip
            placed.append(AppendResult(message.id, tuple(sequences), False))
            if known:
                fresh[message.id] = placed[-1]
        if len(rows) > FEW:
            _copy(connection, rows)
        else:
            for row in rows:
                connection.execute(sql.INSERT, row)
        return placed

    def _check_room(self, connection: Connection, lanes: dict[_Key, list[int]]) -> None:
        more: dict[tuple[str, str], Amount] = {}
        for (peer, channel, _), share in lanes.items():
            before = more.get((peer, channel), (0, 0))
            more[peer, channel] = (before[0] + share[0], before[1] + share[1])
        totals = {"all": sql.TOTAL, "peer": sql.TOTAL_OF_PEER, "channel": sql.TOTAL_OF_CHANNEL}
        check_outbox(
            self._context, more,
            lambda kind, name: connection.execute(totals[kind], (name,) if name else ()).fetchall()[0],
        )  # fmt: skip

    def _known(self, connection: Connection, messages: Sequence[NewMessage]) -> dict[int, AppendResult]:
        """Which of the messages were sent before (or stand twice in this call); raises Conflict."""
        first: dict[bytes, int] = {}
        for index, message in enumerate(messages):
            if message.fingerprint is not None:
                first.setdefault(message.id, index)
        ids = list(first)
        connection.execute(sql.OWN_IDS, (sorted({identity[-1] % BUCKETS for identity in ids}),)).fetchall()
        live: dict[bytes, list[tuple[int, bytes | None]]] = {}
        for identity, place, fingerprint in connection.execute(sql.FINGERPRINTS, (ids,)).fetchall():
            live.setdefault(identity, []).append((place, fingerprint))
        ended: dict[bytes, list[bytes | None]] = {}
        for identity, fingerprint in connection.execute(sql.ENDED_FINGERPRINTS, (ids,)).fetchall():
            ended.setdefault(identity, []).append(fingerprint)
        peers = _peers_of(connection, (place for places in live.values() for place, _ in places))
        known: dict[int, AppendResult] = {}
        for index, message in enumerate(messages):
            if message.fingerprint is None:
                continue
            twin = first[message.id]
            if twin != index:
                if messages[twin].fingerprint != message.fingerprint:
                    raise _conflict(message)
                known[index] = known.get(twin) or AppendResult(message.id, (0,) * len(message.peers), True)
                continue
            here = live.get(message.id, [])
            prints = [fingerprint for _, fingerprint in here] + ended.get(message.id, [])
            if not prints:
                continue
            if any(fingerprint != message.fingerprint for fingerprint in prints):
                raise _conflict(message)
            at = {peers[place]: max(0, sql.unpack(place)[1]) for place, _ in here}
            known[index] = AppendResult(message.id, tuple(at.get(peer, 0) for peer in message.peers), True)
        return known

    def _stored(
        self, connection: Connection, messages: Sequence[NewMessage], known: dict[int, AppendResult]
    ) -> dict[int, AppendResult]:
        """Which of the messages are stored, though nobody heard of it; their ids are their own and in no other call."""
        ids = [message.id for index, message in enumerate(messages) if index not in known]
        live: dict[bytes, list[int]] = {}
        for identity, place, _ in connection.execute(sql.FINGERPRINTS, (ids,)).fetchall():
            live.setdefault(identity, []).append(place)
        gone = {identity for (identity, _) in connection.execute(sql.ENDED_FINGERPRINTS, (ids,)).fetchall()}
        peers = _peers_of(connection, (place for places in live.values() for place in places))
        found: dict[int, AppendResult] = {}
        for index, message in enumerate(messages):
            if index not in known and (message.id in live or message.id in gone):
                at = {peers[place]: sql.unpack(place)[1] for place in live.get(message.id, ())}
                found[index] = AppendResult(message.id, tuple(at.get(peer, 0) for peer in message.peers), False)
        return found


def _flags(message: NewMessage) -> int:
    flags = sql.RECEIPT if message.receipt else 0
    if message.delayed:
        flags |= sql.DELAYED
    if message.fingerprint is not None:
        flags |= sql.FINGERPRINT
    if message.expires_in is not None:
        flags |= sql.EXPIRES
    return flags


def _extend(connection: Connection, lanes: dict[_Key, list[int]]) -> dict[_Key, tuple[int, int]]:
    """Give each lane its next numbers: (its own number, the last one given). The lanes are ours until the commit."""
    found: dict[_Key, tuple[int, int]] = {}
    for _ in range(2):
        if len(lanes) == 1:
            ((key, share),) = lanes.items()
            row = connection.execute(sql.EXTEND, (share[0], share[0], share[0], share[1], *key)).fetchone()
            if row is not None:
                found[key] = row
        elif lanes:
            missing = [key for key in lanes if key not in found]
            values = [(*key, lanes[key][0], lanes[key][1]) for key in missing]
            columns = [list(column) for column in zip(*values, strict=True)]
            for number, peer, channel, priority, last in connection.execute(sql.EXTEND_ALL, columns).fetchall():
                found[peer, channel, priority] = (number, last)
        missing = [key for key in lanes if key not in found]
        if not missing:
            break
        connection.execute(sql.NEW_LANES, [list(column) for column in zip(*missing, strict=True)])
    for key, (_, last) in found.items():
        if last >= sql.HALF:
            raise _no_numbers(key)
    return found


def _copy(connection: Connection, rows: Any) -> None:
    with connection.cursor().copy(sql.COPY) as copy:
        copy.set_types(sql.COPY_TYPES)
        for row in rows:
            copy.write_row(row)


def _peers_of(connection: Connection, places: Any) -> dict[int, str]:
    """Place → the peer of its lane."""
    wanted = list(places)
    numbers = sorted({sql.unpack(place)[0] for place in wanted})
    if not numbers:
        return {}
    peers = {row[0]: row[1] for row in connection.execute(sql.LANES_BY_NUMBER, (numbers,)).fetchall()}
    return {place: peers[sql.unpack(place)[0]] for place in wanted}


def _no_numbers(key: _Key) -> StoreError:
    return StoreError(f"lane {key} has run out of numbers")


def _conflict(message: NewMessage) -> Conflict:
    return Conflict(
        f"message {format_id(message.id)} was sent before with other content; use a new id or dedup_key for new content"
    )
