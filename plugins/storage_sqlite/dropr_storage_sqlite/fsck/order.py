"""Whether ids that are in no index can be found by their order.

Owns the comparison, and the repair, which lists all of a lane or queue. Must not know what else stands in the tables.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

from collections.abc import Callable
from typing import NamedTuple

from dropr_storage_sqlite.engine.rising import RISING, SPACING, TIMED
from dropr_storage_sqlite.fsck.findings import ContentCheck, say


class Order(NamedTuple):
    """A table whose ids rise."""

    table: str
    what: str
    several: str
    unordered: int
    """Flags of rows whose ids do not rise."""
    listed: int
    """Flags of rows that are in the index of ids."""
    apart: int
    """The flag that brings a row into the index."""


def check_order(
    check: ContentCheck, name: str, order: Order, number: int, between: tuple[int, int], renew: Callable[[], object]
) -> None:
    """``between``: the place before the rows that may rise, and the last one. ``renew``: what is left to do when all of
    them are listed, and there is no milestone any more.
    """
    table, low, high = order.table, *between
    low = max(
        low, check.number("SELECT max(place) FROM milestone WHERE place > ? AND place <= ? AND id = x''", between)
    )
    rows = f"FROM {table} WHERE place > ?1 AND place <= ?2"
    rise = f"{rows} AND flags & {order.unordered} = 0"
    beside = f"FROM {table} AS t WHERE flags & {order.unordered} = 0 AND place > "
    never = "1" if number > RISING else f"NOT {TIMED.format('id')}"
    unlisted = f"SELECT count(*) {rows} AND flags & {order.listed} = 0 AND {never}"
    falling = f"SELECT count(*) FROM (SELECT id, lag(id) OVER (ORDER BY place) AS before {rise}) WHERE id <= before"
    misplaced = (
        "SELECT count(*) FROM milestone AS m WHERE place > ?1 AND place <= ?2 AND "
        f"((SELECT t.id {beside} ?1 AND place <= m.place ORDER BY place DESC LIMIT 1) > m.id OR "
        f"(SELECT t.id {beside} m.place AND place <= ?2 ORDER BY place LIMIT 1) <= m.id)"
    )
    lost = sum(check.number(query, (low, high)) for query in (unlisted, falling, misplaced))
    stones = check.number("SELECT count(*) FROM milestone WHERE place > ? AND place <= ?", (low, high))
    far = number <= RISING and check.number(f"SELECT count(*) {rise}", (low, high)) > SPACING * (stones + 1)

    def fix() -> None:
        every = f"UPDATE {table} SET flags = flags | {order.apart} WHERE place > ? AND place <= ? AND flags & ? = 0"
        check.connection.execute(every, (*between, order.unordered)).fetchall()
        check.connection.execute("DELETE FROM milestone WHERE place > ? AND place <= ?", between).fetchall()
        renew()

    if lost:
        check.find(
            name,
            f"{say(lost, order.what, order.several)} stand out of the order of their ids without being listed: 'dropr "
            "show' and others that look for an id may not find them",
            "lists all that wait there",
            fix,
        )
    elif far:
        check.find(
            name,
            f"too few milestones ({stones}) among the ids of what waits: to find a message takes long",
            "lists all that wait there",
            fix,
        )
