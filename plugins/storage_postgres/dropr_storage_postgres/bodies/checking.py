"""The rows of large bodies, looked through while nobody works: is each whole, and does anybody need it.

Owns what a repair does with a body: a damaged one is put aside (it stays in the table, no sweep takes it), and nothing
is deleted. Must not know messages.
"""
# ruff: noqa: S608 -- statements are put together here from constants of this room only

from collections.abc import Callable, Iterator

from dropr_core.contracts.bodies import Leftovers
from dropr_core.errors import StoreCorrupt
from dropr_core.model.chunk_digest import LeafHash
from dropr_core.model.envelope import Reference
from dropr_core.model.names import MessageId
from dropr_storage_postgres.bodies import rows
from dropr_storage_postgres.bodies.rows import ARRIVED, ASIDE, PIECE, SENT, Row
from dropr_storage_postgres.bodies.sessions import BodySessions
from dropr_storage_postgres.engine.connection import Connection


def examine(
    sessions: BodySessions, row: Row, reference: Reference, what: str, *, repair: bool, say: Callable[[str], None]
) -> str:
    """What is wrong with a body; empty: nothing."""
    digest, why = LeafHash(), ""
    try:
        for offset in range(0, reference.size, PIECE):
            size = min(PIECE, reference.size - offset)
            digest.update(sessions.read(lambda c, at=offset, size=size: rows.get(c, row, at, size, what)))  # type: ignore[misc]
            say(f"reading {what}, {reference.size - offset} of {reference.size} bytes left")
        if digest.digest() != reference.digest:
            why = "another digest"
        else:
            known = sessions.read(lambda c: rows.leaves(c, row, 0, reference.size, what))
            why = "" if known == digest.leaves() else "other digests of its leaves"
    except StoreCorrupt:
        why = "not all of its rows"
    if not why:
        return ""
    if repair:
        sessions.durable(lambda connection: _put_aside(connection, row.n))
    return f"{what}, is damaged: it has {why}{', put aside' if repair else ''}"


def _put_aside(connection: Connection, n: int) -> None:
    connection.execute(f"UPDATE body SET kind = {ASIDE} WHERE n = %s", (n,))


def leftovers(
    sessions: BodySessions, sent: Callable[[MessageId], Reference | None],
    come: Callable[[MessageId], Reference | None], *, aside: bool, say: Callable[[str], None],
) -> Iterator[Leftovers | tuple[str, Exception]]:  # fmt: skip
    """Rows that no message refers to, by where they belong."""
    found = sessions.query(
        f"SELECT n, kind, state, peer, id, digest, size FROM body WHERE kind <> {ASIDE} ORDER BY kind, peer, n"
    )
    places: dict[tuple[int, str], list[tuple[int, int, MessageId, Reference]]] = {}
    for n, kind, state, peer, identity, digest, size in found:
        where = (SENT, "") if kind == SENT else (ARRIVED, peer)
        one = (n, state, MessageId(bytes(identity)), Reference(size, bytes(digest)))
        places.setdefault(where, []).append(one)
    for (kind, peer), bodies in places.items():
        place = f"{sessions.name}: {'sent' if kind == SENT else f'received from {peer}'}"
        try:
            yield _look_through(sessions, place, bodies, sent if kind == SENT else come, aside=aside, say=say)
        except Exception as error:
            yield place, error


def _look_through(
    sessions: BodySessions, place: str, bodies: list[tuple[int, int, MessageId, Reference]],
    reference_of: Callable[[MessageId], Reference | None], *, aside: bool, say: Callable[[str], None],
) -> Leftovers:  # fmt: skip
    unfinished, orphans, size, moved = 0, 0, 0, 0
    for n, state, identity, reference in bodies:
        say(f"looking through {place}")
        if state == rows.UNFINISHED:
            unfinished += 1
        elif reference_of(identity) != reference:
            orphans, size = orphans + 1, size + reference.size
            if aside:
                sessions.durable(lambda connection, n=n: _put_aside(connection, n))  # type: ignore[misc]
                moved += 1
    return Leftovers(place, unfinished, orphans, size, moved, f"kind {ASIDE} of the table body")
