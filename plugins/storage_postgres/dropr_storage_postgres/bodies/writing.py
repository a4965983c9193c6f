"""A body that this process writes, piece by piece, until its message is stored.

Owns that nothing half written is left by a living process, and that nobody takes the body before its message is there.
Must not know who needs a body (store.py).
"""
# ruff: noqa: S608 -- statements are put together here from constants of this room only

import contextlib

from dropr_core.contracts.bodies import Progress, Readable, Written
from dropr_core.errors import StoreError, TooBig, WriteFailed
from dropr_core.model.chunk_digest import digest_of, leaves_of
from dropr_core.model.envelope import Reference
from dropr_core.model.names import MessageId, format_id
from dropr_storage_postgres.bodies import rows
from dropr_storage_postgres.bodies.holder import Holder
from dropr_storage_postgres.bodies.rows import NOW, OWN, PIECE, Row
from dropr_storage_postgres.bodies.sessions import BodySessions
from dropr_storage_postgres.engine.connection import Connection

READ = 1024 * 1024
"""Bytes asked of a source at once."""

INSERT = (
    "INSERT INTO body(n, kind, state, own, peer, id, digest, size, have, touched) "
    f"VALUES (%s, %s, 0, %s, %s, %s, %s, %s, 0, {NOW})"
)


class WrittenRows(Written):
    """Complete rows whose lock this process holds until `release`."""

    def __init__(
        self, sessions: BodySessions, holder: Holder, row: Row, generation: int, identity: MessageId,
        reference: Reference,
    ) -> None:  # fmt: skip
        self.reference = reference
        self._sessions, self._holder, self._row, self._identity = sessions, holder, row, identity
        self._generation: int | None = generation

    def discard(self) -> None:
        """The message was not stored: remove the body."""
        with contextlib.suppress(StoreError):
            self._sessions.relaxed(lambda connection: rows.drop(connection, self._row))
        generation, self._generation = self._generation, None
        if generation is not None:
            self._holder.give(self._row.n, generation)

    def release(self) -> None:
        """The message is stored. Raises StoreError if the session broke that held the lock, and a sweep was faster."""
        generation, self._generation = self._generation, None
        if generation is None or self._holder.give(self._row.n, generation):
            return
        if not self._sessions.relaxed(self._still_there):
            raise WriteFailed(
                f"the body of message {format_id(self._identity)} is gone: the line to {self._sessions.name} broke "
                "before the message was stored; send it again (if it was stored, it ends as dead for want of its body)"
            )

    def _still_there(self, connection: Connection) -> bool:
        # Who sweeps holds this lock from before it asks for the message until the body is gone.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (self._row.n,))
        found = connection.execute("SELECT 1 FROM body WHERE n = %s AND state > 0", (self._row.n,)).fetchone()
        return found is not None


class BodyWriter:
    """Writes the bodies of one process."""

    def __init__(self, sessions: BodySessions, holder: Holder) -> None:
        self._sessions, self._holder = sessions, holder

    def write(
        self, kind: int, peer: str, identity: MessageId, source: Readable, limit: int | None,
        progress: Progress | None, size: int | None,
    ) -> WrittenRows:  # fmt: skip
        """Copy ``source`` to its end. Raises TooBig, StoreError, and what reading raises; nothing is left then."""
        writing = _Writing(self._sessions, kind, peer, identity, size)
        generation = self._holder.take(writing.n)
        try:
            reference = writing.copy(source, limit, progress)
            return WrittenRows(self._sessions, self._holder, writing.row, generation, identity, reference)
        except BaseException:
            with contextlib.suppress(StoreError):
                writing.forget()
            self._holder.give(writing.n, generation)
            raise


class _Writing:
    """One body on its way into its rows."""

    def __init__(self, sessions: BodySessions, kind: int, peer: str, identity: MessageId, size: int | None) -> None:
        self._sessions, self._kind, self._peer, self._identity, self._size = sessions, kind, peer, identity, size
        self.n = rows.new_number()
        self.row = Row(self.n, False, 0)
        self._begun = False
        self._done = 0
        self._leaves = bytearray()

    def copy(self, source: Readable, limit: int | None, progress: Progress | None) -> Reference:
        """Write it to its end; durable on return."""
        buffer = bytearray()
        done = 0
        while piece := source.read(READ):
            done += len(piece)
            if limit is not None and done > limit:
                raise TooBig(f"a body of more than {limit} bytes (limits.max_body); raise the limit on both nodes")
            buffer += piece
            while len(buffer) >= PIECE:
                self._put(bytes(memoryview(buffer)[:PIECE]), more=True)
                del buffer[:PIECE]
            if progress is not None:
                progress(done, self._size)
        if buffer or not self._begun:
            self._put(bytes(buffer), more=False)
        reference = Reference(done, digest_of(self._leaves))
        self._complete(reference)
        return reference

    def _put(self, data: bytes, *, more: bool) -> None:
        digests = leaves_of(data)
        if not self._begun:
            large = self._size is None and more
            self.row = Row(self.n, large or (self._size or 0) > OWN, 0)
        begun, offset, row = self._begun, self._done, self.row

        def job(connection: Connection) -> None:
            if rows.has_part(connection, row, offset):
                return  # the answer to its commit was lost
            if not begun:
                connection.execute(INSERT, (row.n, self._kind, row.own, self._peer, self._identity, b"", 0))
                rows.make_table(connection, row)
            rows.put(connection, row, offset, memoryview(data), digests)

        self._sessions.relaxed(job)
        self._begun = True
        self._done += len(data)
        self._leaves += digests

    def _complete(self, reference: Reference) -> None:
        def job(connection: Connection) -> bool:
            found = connection.execute(
                f"UPDATE body SET state = 1, size = %s, have = %s, digest = %s, touched = {NOW} WHERE n = %s "
                "RETURNING 1", (reference.size, reference.size, reference.digest, self.n),
            ).fetchone()  # fmt: skip
            return found is not None

        if not self._sessions.durable(job):
            raise WriteFailed(
                f"the body of message {format_id(self._identity)} was lost while it was written: the line to "
                f"{self._sessions.name} broke; send it again"
            )
        self.row = Row(self.n, self.row.own, reference.size)

    def forget(self) -> None:
        """Remove what was written."""
        if self._begun or self._done:
            self._sessions.relaxed(lambda connection: rows.drop(connection, self.row))
