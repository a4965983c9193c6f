"""Messages of several processes in one transaction, flushed once.

Owns who stores for whom: a process that has met other senders of late stores for all of them if it can, or else posts
its message and waits (`storage_kit.posts`). Only plain messages go this way, of one peer, without an own id, where
there are no limits: none of them can be refused for what it is. Must not know how rows are written.

Whatever dies, a message is stored once at most: the transaction notes, in `meta`, the last ticket that was taken from
each place and the number that its message got. Who has no answer looks there in the transaction in which he stores by
himself.
"""

import struct
import threading
from collections.abc import Callable, Sequence

import msgspec

from dropr_core.contracts.storage import AppendResult, NewMessage
from dropr_core.errors import WriteFailed
from dropr_core.model.names import MessageId
from dropr_core.storage_kit.group_commit import BatchedJob
from dropr_core.storage_kit.posts import BY_ITSELF, FAILED, LATE, LEADS, PLACES, Post, Posts
from dropr_storage_sqlite.engine.engine import MAY_BE_SENT, Engine
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.outbox import sql

_NOTE = struct.Struct(f"<{2 * PLACES}Q")
"""For each place the last ticket that was taken from it, and the number of its message."""
_DECODER = msgspec.msgpack.Decoder(tuple[bytes, str, int, str, bytes, bool, float | None, bool])
_encode = msgspec.msgpack.Encoder().encode

Append = Callable[[Connection, Sequence[NewMessage]], Sequence[AppendResult]]
Seen = Callable[[object], None]


class Together:
    """`append` of one message where other processes send, too."""

    def __init__(self, engine: Engine, append: Append) -> None:
        """``append`` writes the rows of some messages."""
        self._engine, self._append = engine, append
        self._posts = Posts(engine.path.with_suffix(".senders"))
        self._busy = threading.Lock()
        """Of this process one thread goes this way; the others have a commit together (`group_commit`)."""
        self._taken: list[tuple[Post, int]] = []
        """What the last transaction took, and what came of it."""

    def append(self, message: NewMessage, seen: Seen | None) -> Sequence[AppendResult] | None:
        """Store it durably, with those of others; None: this cannot be had now, and nothing was done."""
        if not self._busy.acquire(blocking=False):
            return None
        try:
            self._engine.guard.enter(write=True)  # in here, for `close` to be the last word
            if not self._posts.open():
                return None
            if self._posts.lead():
                return self._lead(message, 0, seen)
            identity, channel, priority, (peer,), envelope, receipt, expires, delayed, _ = message
            row = (identity, channel, priority, peer, envelope, receipt, expires, delayed)
            ticket = self._posts.post(_encode(row))
            return self._follow(message, ticket, seen) if ticket else None
        finally:
            self._busy.release()

    def close(self) -> None:
        """Give the place back; safe twice."""
        if not self._engine.guard.forked:
            with self._busy:
                self._posts.close()

    # ── who waits ────────────────────────────────────────────────────────────────────────────────

    def _follow(self, message: NewMessage, ticket: int, seen: Seen | None) -> Sequence[AppendResult]:
        try:
            answer = self._posts.wait(ticket)
        except BaseException:
            self._posts.withdraw()
            raise
        if answer == LEADS:
            return self._lead(message, ticket, seen)
        if answer == FAILED:
            raise WriteFailed(
                f"{self._engine.path}: the disk reported an error to the process that wrote for this one, too; "
                f"{MAY_BE_SENT}; look at the kernel's log"
            )
        if answer in {LATE, BY_ITSELF}:
            return self._store_alone(message, ticket, seen)
        placed = [AppendResult(message.id, (answer,), False)]
        if seen is not None:
            seen(placed)
        return placed

    def _store_alone(self, message: NewMessage, ticket: int, seen: Seen | None) -> Sequence[AppendResult]:
        """It was posted, and who led may have taken it all the same."""
        self._posts.withdraw()  # before the transaction: whoever takes does so within one
        return self._engine.write_flushed(BatchedJob(self._store_once, (message, ticket), seen))

    def _store_once(self, connection: Connection, calls: list[tuple[NewMessage, int]]) -> list[Sequence[AppendResult]]:
        ((message, ticket),) = calls
        note, at = _noted(connection), 2 * self._posts.place
        if note[at] != ticket:
            return [self._append(connection, [message])]
        _set_note(connection, note)  # a commit that changes nothing would not be synced, and what it has read neither
        return [[AppendResult(message.id, (note[at + 1],), False)]]

    # ── who leads ────────────────────────────────────────────────────────────────────────────────

    def _lead(self, message: NewMessage, ticket: int, seen: Seen | None) -> Sequence[AppendResult]:
        """Store it with all that others have posted. ``ticket``: its own, if it was posted before; else 0."""
        posts, self._taken = self._posts, []
        done = False
        try:
            posts.gather()
            placed = self._engine.write_flushed(BatchedJob(self._take, (message, ticket), seen))
            done = True
            for post, result in self._taken:
                posts.answer(post, result)
        except WriteFailed:
            for post, _ in self._taken:
                posts.answer(post, FAILED)
            raise
        except Exception:
            if done or not self._taken:
                raise
            for post, _ in self._taken:  # one of them may be the cause
                posts.answer(post, BY_ITSELF)
        finally:
            if not done:
                posts.withdraw()
            posts.hand_over()
        return placed if done else self._store_alone(message, ticket, seen)

    def _take(self, connection: Connection, calls: list[tuple[NewMessage, int]]) -> list[Sequence[AppendResult]]:
        """Within a transaction: its own message, and those that wait."""
        ((message, ticket),) = calls
        own, self._taken = self._posts.place, []
        posted = self._posts.posted()
        if not posted:
            return [self._append(connection, [message])]
        self._engine.company.met()
        note, fresh = _noted(connection), list[tuple[NewMessage, Post | None]]()
        for post in posted:
            taken = note[2 * post.place] == post.ticket  # by one who has died, or could not say so
            if post.place == own:
                continue
            if taken:
                self._taken.append((post, note[2 * post.place + 1]))
            elif (one := _decoded(post.payload)) is None:
                self._taken.append((post, BY_ITSELF))
            else:
                fresh.append((one, post))
        number = note[2 * own + 1] if ticket and note[2 * own] == ticket else 0
        if not number:
            fresh.append((message, None))
        # They came at the same moment, so any order is theirs; in that of their ids they need no index (`ids`).
        fresh.sort(key=lambda pair: pair[0].id)
        placed = self._append(connection, [one for one, _ in fresh]) if fresh else []
        for (_, owner), result in zip(fresh, placed, strict=True):
            if owner is None:
                number = result.sequences[0]
                continue
            note[2 * owner.place : 2 * owner.place + 2] = owner.ticket, result.sequences[0]
            self._taken.append((owner, result.sequences[0]))
        if ticket:
            note[2 * own : 2 * own + 2] = ticket, number
            self._taken.append((Post(own, ticket, None), number))
        _set_note(connection, note)
        return [[AppendResult(message.id, (number,), False)]]


def _noted(connection: Connection) -> list[int]:
    rows = connection.execute(sql.TAKEN).fetchall()
    return list(_NOTE.unpack(rows[0][0])) if rows and len(rows[0][0]) == _NOTE.size else [0] * (2 * PLACES)


def _set_note(connection: Connection, note: list[int]) -> None:
    connection.execute(sql.SET_TAKEN, (_NOTE.pack(*note),))


def _decoded(payload: bytes | None) -> NewMessage | None:
    """The message of another process; None if it is none."""
    if payload is None:
        return None
    try:
        identity, channel, priority, peer, envelope, receipt, expires, delayed = _DECODER.decode(payload)
    except msgspec.DecodeError:
        return None
    return NewMessage(MessageId(identity), channel, priority, (peer,), envelope, receipt, expires, delayed)
