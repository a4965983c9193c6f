"""Whether the inbox's tables agree with each other.

Owns the statements that compare them, and what a repair writes. They walk whole tables, queue by queue: only
`Storage.check` may run them. Must not know pages and files.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

from dropr_core.errors import DroprError
from dropr_core.model.envelope import header_of
from dropr_core.model.names import priority_of
from dropr_storage_sqlite.fsck.findings import PAGE, ContentCheck, say, say_ids
from dropr_storage_sqlite.fsck.order import Order, check_order
from dropr_storage_sqlite.inbox import sql
from dropr_storage_sqlite.inbox.lease import end_lease
from dropr_storage_sqlite.inbox.rows import Book, MessageRow, QueueRow, queue_rows

_IDS = Order("message", "message", "messages", sql.APART, sql.APART, sql.APART)
LOST = "lost"
_COLUMNS = "place, id, sender, arrived, flags, size, key, expires"

STATES = {
    "lease": ("lease", "taken by a consumer"),
    "ready": ("record of a return", "ready again"),
    "delayed": ("record of a delay", "delayed"),
    "ended": ("record of an end", "ended"),
    "blocked": ("record of a wait for an ordering key", "waiting for their ordering key"),
}
"""Tables of states, the one that is believed first; what a row is, what its message is."""

_NO_MESSAGE = "NOT EXISTS (SELECT 1 FROM message WHERE message.place = {0}.place)"
_BLOCKED_HERE = (
    f"(key IS NOT NULL AND EXISTS (SELECT 1 FROM blocked AS b WHERE b.channel = ?3 AND b.key = message.key "
    f"AND b.n = message.place & {sql.MASK}))"
)
_IN_TABLE = " OR ".join(
    f"EXISTS (SELECT 1 FROM {table} AS s WHERE s.place = message.place)"
    for table in ("lease", "ready", "delayed", "ended")
)
_STANDS = f"({_IN_TABLE} OR {_BLOCKED_HERE})"
_OF_QUEUE = "FROM message WHERE place > ?1 AND place <= ?2"
_STUCK = f"{_OF_QUEUE} AND (place <= ?4 OR flags & {sql.PARKED}) AND NOT {_STANDS}"
_TWICE = f"{_OF_QUEUE} AND place > ?4 AND NOT flags & {sql.PARKED} AND {_STANDS}"


def check_inbox(check: ContentCheck) -> None:
    """Every check of the inbox, in the order in which repairs need each other."""
    _unknown_queues(check)
    _unknown_senders(check)
    _numbers(check)
    _without_message(check)
    _two_states(check)
    _ranks(check)
    _unknown_consumers(check)
    _stuck(check)
    _keys(check)
    _dates(check)
    _counters(check)
    _ids(check)


def _unknown_queues(check: ContentCheck) -> None:
    known = set(queue_rows(check.connection))
    for number in list(check.owners("message", sql.N_BITS)):
        if number in known:
            continue
        low, high = sql.pack(number, 0) - 1, sql.pack(number, sql.MASK)
        count = check.number("SELECT count(*) FROM message WHERE place > ? AND place <= ?", (low, high))

        def fix(number: int = number, low: int = low, high: int = high) -> None:
            told = "SELECT channel FROM {} WHERE place > ? AND place <= ? LIMIT 1"
            by_key = check.rows(told.format("holder"), (low, high)) + check.rows(told.format("blocked"), (low, high))
            channel, priority = by_key[0][0] if by_key else f"{LOST}/{number}", 5
            found = check.rows("SELECT envelope FROM message WHERE place > ? AND place <= ? LIMIT 1", (low, high))
            try:
                message = header_of(bytes(found[0][0]))
                if not check.rows(sql.QUEUE, (message.channel, priority_of(message.priority))):
                    channel, priority = message.channel, priority_of(message.priority)
            except (DroprError, ValueError, IndexError):
                pass
            if check.rows(sql.QUEUE, (channel, priority)):
                channel = f"{LOST}/{number}"
            check.connection.execute(
                "INSERT INTO queue(queue, channel, priority) VALUES(?, ?, ?)", (number, channel, priority)
            ).fetchall()

        check.find(
            f"queue number {number}",
            f"{say(count, 'message')} in a queue of which it is not known any more to which channel it belongs: nobody "
            "gets them",
            f"takes the channel from the first of them, or names it '{LOST}/{number}'",
            fix,
            severity="damage",
        )


def _unknown_senders(check: ContentCheck) -> None:
    query = (
        "SELECT sender, count(*) FROM message WHERE NOT EXISTS (SELECT 1 FROM sender AS s WHERE s.sender = "
        "message.sender) GROUP BY sender"
    )
    for number, count in check.rows(query):
        check.find(
            f"sender number {number}",
            f"{say(count, 'message')} of a sender whose name is lost: they cannot be given out or listed, and a "
            "receipt cannot go home",
            f"names it '{LOST}-{number}'; who sent each stands in its envelope ('dropr show')",
            check.run("INSERT INTO sender(sender, name) VALUES(?, ?)", (number, f"{LOST}-{number}")),
        )
    query = (
        "SELECT sender, name, last, top FROM sender JOIN (SELECT sender, max(number) AS top FROM outcome "
        "GROUP BY sender) USING(sender) WHERE last < top"
    )
    for number, name, last, top in check.rows(query):
        check.find(
            f"receipts for {name}",
            f"{last} receipts are noted as written, but number {top} is there: new ones could not be written",
            f"goes on behind number {top}",
            check.run("UPDATE sender SET last = ? WHERE sender = ?", (top, number)),
        )


def _numbers(check: ContentCheck) -> None:
    last = check.number(sql.LAST)
    top = max((queue.frontier for queue in queue_rows(check.connection).values()), default=0)
    for queue in queue_rows(check.connection).values():
        found = check.number(
            "SELECT place FROM message WHERE place > ? AND place <= ? ORDER BY place DESC LIMIT 1",
            (queue.start, queue.end),
        )
        top = max(top, found & sql.MASK)
    if top > last:
        check.find(
            "numbers of arrival",
            f"{last} are noted as given, but {top} was given: the next messages could not be stored, or not be found",
            f"goes on behind {top}",
            check.run("UPDATE meta SET value = ? WHERE key = 'last'", (top,)),
        )


def _without_message(check: ContentCheck) -> None:
    for table, (what, _) in STATES.items():
        where = _NO_MESSAGE.format(table)
        count = check.number(f"SELECT count(*) FROM {table} WHERE {where}")
        if count:
            numbers = [place & sql.MASK for (place,) in check.rows(f"SELECT place FROM {table} WHERE {where} LIMIT 3")]
            more = "" if count <= len(numbers) else " and more"
            check.find(
                f"table {table}",
                f"{say(count, what, what.replace('record', 'records', 1) if 'record' in what else '')} without a "
                f"message (number {', '.join(map(str, numbers))}{more}): the message is gone, and whoever ends "
                "what is left of it fails",
                "removes what is left (no content is in it)",
                check.run(f"DELETE FROM {table} WHERE {where}"),
                severity="damage",
            )
    where = _NO_MESSAGE.format("expiry")
    count = check.number(f"SELECT count(*) FROM expiry WHERE {where}")
    if count:
        check.find(
            "table expiry",
            f"{say(count, 'date')} on which a message expires that is not there: each sweep would fail at it",
            "removes them (no content is in them)",
            check.run(f"DELETE FROM expiry WHERE {where}"),
        )


def _two_states(check: ContentCheck) -> None:
    names = list(STATES)
    for index, table in enumerate(names[1:], 1):
        for earlier in names[:index]:
            where = f"EXISTS (SELECT 1 FROM {earlier} AS e WHERE e.place = {table}.place)"
            count = check.number(f"SELECT count(*) FROM {table} WHERE {where}")
            if count:
                check.find(
                    f"table {table}",
                    f"{say(count, 'message')} stand as {STATES[earlier][1]} and as {STATES[table][1]} at once",
                    f"lets {STATES[earlier][1]} stand",
                    check.run(f"DELETE FROM {table} WHERE {where}"),
                )


def _ranks(check: ContentCheck) -> None:
    """Ranks without a message, and ready messages that stand at another rank than theirs."""
    alone = _NO_MESSAGE.format("ranked")
    count = check.number(f"SELECT count(*) FROM ranked WHERE {alone}")
    if count:
        check.find(
            "table ranked",
            f"{say(count, 'rank')} of a message that is not there",
            "removes what is left (no content is in it)",
            check.run(f"DELETE FROM ranked WHERE {alone}"),
        )
    other = "ready.rank IS NOT (SELECT rank FROM ranked WHERE ranked.place = ready.place)"
    count = check.number(f"SELECT count(*) FROM ready WHERE {other}")
    if count:
        check.find(
            "table ready",
            f"{say(count, 'message')} would be given out at another rank than the one noted of it",
            "puts them where their rank is",
            check.run(
                f"UPDATE ready SET rank = (SELECT rank FROM ranked WHERE ranked.place = ready.place) WHERE {other}"
            ),
        )


def _unknown_consumers(check: ContentCheck) -> None:
    where = "NOT EXISTS (SELECT 1 FROM consumer AS c WHERE c.consumer = lease.consumer)"
    count = check.number(f"SELECT count(*) FROM lease WHERE {where}")

    def fix() -> None:
        while rows := check.rows(f"SELECT place, attempts, reason FROM lease WHERE {where} LIMIT {PAGE}"):
            book = _book(check)
            for place, attempts, reason in rows:
                end_lease(check.connection, book, place)
                book.ready(place, attempts, reason)
            book.close()

    if count:
        check.find(
            "leases",
            f"{say(count, 'message')} taken by a consumer that nobody knows: nobody would ever give them out again",
            "makes them ready again",
            fix,
        )
    query = (
        "SELECT consumer, name, leases, (SELECT count(*) FROM lease AS l WHERE l.consumer = c.consumer) AS n "
        "FROM consumer AS c WHERE leases <> n"
    )
    for number, name, leases, right in check.rows(query):
        check.find(
            f"consumer {name}",
            f"{leases} leases are counted where {right} are",
            "counts anew",
            check.run("UPDATE consumer SET leases = ? WHERE consumer = ?", (right, number)),
        )


def _range(queue: QueueRow) -> tuple[int, int, str, int]:
    return (queue.start, queue.end, queue.channel, queue.start + queue.frontier)


def _stuck(check: ContentCheck) -> None:
    for queue in queue_rows(check.connection).values():
        values = _range(queue)
        count = check.number(f"SELECT count(*) {_STUCK}", values)
        if count:
            some = [row[0] for row in check.rows(f"SELECT id {_STUCK} LIMIT 3", values)]

            def fix(values: tuple[int, int, str, int] = values) -> None:
                while rows := check.rows(f"SELECT {_COLUMNS} {_STUCK} ORDER BY place LIMIT {PAGE}", values):
                    _make_ready(check, [MessageRow._make(row) for row in rows])

            check.find(
                f"queue {queue.channel}:{queue.priority}",
                f"{say(count, 'message')} passed over: not given to anybody, not ended, and nobody would get them "
                f"({say_ids(some, count)})",
                "makes them ready",
                fix,
            )
        count = check.number(f"SELECT count(*) {_TWICE}", values)
        if count:
            check.find(
                f"queue {queue.channel}:{queue.priority}",
                f"{say(count, 'message')} would be given out once as new, and once more as what they are "
                "(delayed, taken, ended …)",
                "leaves them as what they are",
                check.run(
                    f"UPDATE message SET flags = flags | {sql.PARKED} WHERE place IN (SELECT place {_TWICE})", values,
                ),
            )  # fmt: skip


def _make_ready(check: ContentCheck, rows: list[MessageRow]) -> None:
    book = _book(check)
    for row in rows:
        channel = book.queue(row.place >> sql.N_BITS).channel
        if row.key is not None:
            holder = check.rows(sql.HOLDER, (channel, row.key))
            if holder and holder[0][0] != row.place:
                if not row.flags & sql.PARKED:
                    check.connection.execute(sql.PARK, (row.place,)).fetchall()
                book.block(row, None)
                continue
            check.connection.execute(sql.SET_HOLDER, (channel, row.key, row.place)).fetchall()
        book.ready(row.place, 0, "")
        book.date(row)
    book.close()


def _keys(check: ContentCheck) -> None:
    """Ordering keys that nobody will ever free."""
    bad = (
        "FROM holder AS h WHERE NOT EXISTS (SELECT 1 FROM message AS m WHERE m.place = h.place) "
        "OR EXISTS (SELECT 1 FROM ended AS e WHERE e.place = h.place)"
    )
    free = (
        "FROM (SELECT DISTINCT channel, key FROM blocked) AS b WHERE NOT EXISTS "
        "(SELECT 1 FROM holder AS h WHERE h.channel = b.channel AND h.key = b.key)"
    )
    for where, why in ((bad, "is held by a message that is gone or ended"), (free, "is held by no message")):
        count = check.number(f"SELECT count(*) {where}")
        if not count:
            continue
        names = [row[0] for row in check.rows(f"SELECT key {where} LIMIT 3")]

        def fix(where: str = where) -> None:
            while rows := check.rows(f"SELECT channel, key {where} LIMIT {PAGE}"):
                book = _book(check)
                for channel, key in rows:
                    _next_of_key(check, book, channel, key)
                book.close()

        check.find(
            f"ordering key {', '.join(map(repr, names))}" + (f" and {count - 3} more" if count > 3 else ""),
            f"it {why}, so what waits for it would wait for ever",
            "gives it to the next message that waits for it, or frees it",
            fix,
        )


def _next_of_key(check: ContentCheck, book: Book, channel: str, key: str) -> None:
    following = check.rows(sql.NEXT_BLOCKED, (channel, key))
    if not following:
        check.connection.execute(sql.NO_HOLDER, (channel, key)).fetchall()
        return
    number, place, due = following[0]
    check.connection.execute(sql.UNBLOCK, (channel, key, number)).fetchall()
    check.connection.execute(sql.SET_HOLDER, (channel, key, place)).fetchall()
    book.delay(place, 0.0 if due is None else due, 0, "")


def _dates(check: ContentCheck) -> None:
    where = (
        "FROM message AS m WHERE expires IS NOT NULL AND NOT EXISTS (SELECT 1 FROM lease AS l WHERE l.place = m.place) "
        "AND NOT EXISTS (SELECT 1 FROM ended AS e WHERE e.place = m.place) AND NOT EXISTS "
        "(SELECT 1 FROM expiry AS x WHERE x.expires = m.expires AND x.place = m.place)"
    )
    count = check.number(f"SELECT count(*) {where}")
    if count:
        check.find(
            "table expiry",
            f"{say(count, 'message')} would not expire in time",
            "notes when they expire",
            check.run(f"INSERT OR IGNORE INTO expiry SELECT expires, place {where}"),
        )


def _counters(check: ContentCheck) -> None:
    blocked = dict(check.rows(f"SELECT place >> {sql.N_BITS}, count(*) FROM blocked GROUP BY 1"))
    for queue in queue_rows(check.connection).values():
        place = (queue.start, queue.end)
        every, size = check.rows(
            f"SELECT count(*), total(CASE WHEN flags & {sql.EMPTIED} THEN 0 ELSE size END) {_OF_QUEUE}", place
        )[0]
        right = {"buried": 0, "done": 0, "expired": 0, "blocked": blocked.get(queue.number, 0), "bytes": int(size)}
        for table, state in (("lease", "leased"), ("delayed", "delayed")):
            right[state] = check.number(f"SELECT count(*) FROM {table} WHERE place > ? AND place <= ?", place)
        right |= dict(check.rows("SELECT state, count(*) FROM ended WHERE place > ? AND place <= ? GROUP BY 1", place))
        right["ready"] = every - sum(number for state, number in right.items() if state != "bytes")
        wrong = {name: number for name, number in right.items() if getattr(queue, name, number) != number}
        if wrong:
            told = ", ".join(f"{getattr(queue, name)} {name} where {number} are" for name, number in wrong.items())
            columns = ", ".join(f"{name} = ?" for name in wrong)
            check.find(
                f"queue {queue.channel}:{queue.priority}",
                f"it counts {told}; consumers look only where something is counted as ready, limits and 'dropr status' "
                "go by the count",
                "counts anew",
                check.run(f"UPDATE queue SET {columns} WHERE queue = ?", (*wrong.values(), queue.number)),
            )


def _ids(check: ContentCheck) -> None:
    last = check.number(sql.LAST)
    for queue in queue_rows(check.connection).values():
        place = sql.pack(queue.number, last)  # nothing rises at or below it then
        renew = check.run("INSERT OR REPLACE INTO milestone VALUES(?, x'')", (place,))
        name, between = f"queue {queue.channel}:{queue.priority}", (queue.start, queue.end)
        check_order(check, name, _IDS, queue.number, between, renew)


def _book(check: ContentCheck) -> Book:
    return Book(check.connection, check.context, check.context.clock.now())
