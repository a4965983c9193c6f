"""Receipts to give, things that are due, and what an operator does to messages.

Owns outcomes, state moves and sweep. Must not know consumers' rules.
"""

from collections.abc import Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import JobMove
from dropr_core.model.limits import RECEIPTS_BYTES
from dropr_core.model.message import Outcome, State, first_page
from dropr_core.model.names import MessageId, StoreId, make_store_id
from dropr_core.model.states import JOB, SETTLED, may_follow
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.engine import FLUSH, Engine
from dropr_storage_postgres.inbox.codes import CODES
from dropr_storage_postgres.inbox.lease import line

SWEEP = 1000
"""Rows that one sweep handles at most of each kind."""
KEEP_EXPIRED = 100_000
"""Records of expired messages that are kept; a flood of short-lived ones must not fill the disk."""
FOLD = 5000
"""Rows of counters that may stand there before they are put together."""

STORE = "SELECT value FROM meta WHERE key = 'store inbox'"
SET_STORE = "UPDATE meta SET value = %b WHERE key = 'store inbox' AND value = %b"
LOG = (
    "SELECT (SELECT value FROM meta WHERE key = 'store inbox'), s.sender, coalesce(s.last, 0), "
    "EXISTS (SELECT 1 FROM in_outcome o WHERE o.sender = s.sender) "
    "FROM (SELECT 1) one LEFT JOIN in_sender s ON s.name = %b"
)
KNOWN = "DELETE FROM in_outcome WHERE sender = %b::integer AND number <= %b::bigint"
SIZES = (
    "SELECT number, coalesce(length(result), 0) + length(reason) FROM in_outcome "
    "WHERE sender = %b::integer AND number > %b::bigint ORDER BY number LIMIT %b::bigint"
)
OUTCOMES = (
    "SELECT number, id, state, reason, result, type FROM in_outcome "
    "WHERE sender = %b::integer AND number > %b::bigint ORDER BY number LIMIT %b::bigint"
)
NEXT = "SELECT in_next(%b::float8)"
SWEPT = "SELECT in_sweep(%b::float8, %b::float8, %b::text, %b::integer, %b::integer)"
MOVE = (
    "SELECT in_move(%b::bytea[], %b::bigint[], %b::smallint[], %b::bigint[], %b::smallint[], %b::text[], %b::text[], "
    "%b::integer[], %b::text[], %b::float8, %b::float8, %b::text)"
)


class Ends:
    """Ends of messages, and new beginnings."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context

    def store_id(self) -> StoreId:
        """Names this half and its outcome logs."""
        return StoreId(bytes(self._engine.query(STORE)[0][0]))

    def outcomes(
        self, sender: str, log: StoreId | None, after: int, limit: int, max_bytes: int = RECEIPTS_BYTES
    ) -> tuple[StoreId, list[Outcome]]:
        """The outcome log of a sender after number ``after``, from stable storage."""
        found, number, last, any_kept = self._engine.query(LOG, (sender,))[0]
        store = StoreId(bytes(found))
        if log == store and after > last:
            # The sender knows more of this log than we do: we came out of a backup. A new log begins.
            fresh = make_store_id()
            self._engine.write(lambda connection: _nothing(connection.execute(SET_STORE, (fresh, store))))
            store = self.store_id()  # another server may have been faster
        if number is None or not any_kept:
            return store, []
        known = after if log == store else 0

        def job(connection: Connection) -> list[Outcome]:
            if known > 0:
                connection.execute(KNOWN, (number, known))
            # Others commit acknowledgements that the disk does not have yet: this commit makes it have them all.
            connection.execute(FLUSH)
            return _page(connection, number, known, max(1, limit), max_bytes)

        return store, self._engine.write(job)

    def sweep(self) -> float | None:
        """End expired messages, forget what is past its time; bounded work a call."""
        due = self._next()
        if due is not None and due <= self._engine.times.now():
            values = (self._engine.times.now(), self._context.remember, self._context.node, SWEEP, KEEP_EXPIRED)
            due = self._engine.relaxed(lambda connection: connection.execute(SWEPT, values).fetchall()[0][0])
        return None if due is None else self._engine.times.node(due)

    def _next(self) -> float | None:
        found = self._engine.query(NEXT, (self._context.remember,))[0][0]
        return None if found is None else float(found)

    def fold(self) -> None:
        """Put rows of counters together, if there are many."""
        self._engine.relaxed_statement("SELECT in_fold(%b::bigint)", (FOLD,), mark=False)

    def move(self, moves: Sequence[JobMove]) -> list[bool]:
        """Move each message that stands as it is given; see the contract."""
        allowed = [move for move in moves if _allowed(move)]
        if not allowed:
            return [False] * len(moves)
        values = [
            [move.job.id for move in allowed], [move.job.number for move in allowed],
            [CODES[move.job.state] for move in allowed],
            [int.from_bytes(move.job.token, "big") if move.job.token else None for move in allowed],
            [None if move.to is None else CODES[move.to] for move in allowed],
            [line(move.reason) for move in allowed], [move.reason.replace("\0", "") for move in allowed],
            [move.attempts for move in allowed], sorted({move.job.channel for move in allowed}),
        ]  # fmt: skip

        def job(connection: Connection) -> list[bool]:
            more = (self._engine.times.now(), self._context.remember, self._context.node)
            return list(connection.execute(MOVE, (*values, *more)).fetchall()[0][0])

        done = iter(self._engine.write(job))
        return [next(done) if _allowed(move) else False for move in moves]


def _allowed(move: JobMove) -> bool:
    if not 0 <= len(move.job.token) <= 8:
        return False
    return move.job.state in SETTLED if move.to is None else may_follow(JOB, move.job.state, move.to)


def _page(connection: Connection, number: int, after: int, limit: int, most: int) -> list[Outcome]:
    """Rows up to both limits; nothing is read to be cut off."""
    total, count = 0, 0
    for _, size in connection.execute(SIZES, (number, after, limit)).fetchall():
        total += size
        if count and total > most:
            break
        count += 1
    rows: list[Any] = connection.execute(OUTCOMES, (number, after, max(1, count))).fetchall()
    return first_page(map(_outcome, rows), limit, most)


def _outcome(row: Any) -> Outcome:
    number, message_id, state, reason, result, content_type = row
    answer = None if result is None else bytes(result)
    return Outcome(number, MessageId(bytes(message_id)), State(state), reason, answer, content_type)


def _nothing(_: object) -> None:
    """A result that nobody wants."""
