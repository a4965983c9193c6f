"""Whether the outbox's tables agree with each other.

Owns the statements that compare them, and what a repair writes. They walk whole tables, lane by lane: only
`Storage.check` may run them. Must not know pages and files.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

from dropr_core.errors import DroprError
from dropr_core.model.envelope import header_of
from dropr_core.model.message import State
from dropr_storage_sqlite.fsck.findings import PAGE, ContentCheck, say, say_ids
from dropr_storage_sqlite.fsck.order import Order, check_order
from dropr_storage_sqlite.outbox import sql
from dropr_storage_sqlite.outbox.rows import LaneRow, Ledger, Row, lane_rows

_IDS = Order("delivery", "delivery", "deliveries", sql.UNORDERED, sql.LISTED, sql.APART)
LOST = "lost"
"""The peer's name in a lane of which only the deliveries were found."""

_BODILESS = (
    "envelope IS NULL AND (shared IS NULL OR NOT EXISTS (SELECT 1 FROM shared WHERE n = delivery.shared)) "
    "AND place > ? AND place <= ?"
)
_REFERRED = (
    "SELECT shared AS n, count(*) AS refs FROM (SELECT shared FROM delivery WHERE shared IS NOT NULL UNION ALL "
    "SELECT shared FROM ended WHERE shared IS NOT NULL) GROUP BY shared"
)
_MEND = (
    "UPDATE lane SET last = ?, head = ?, head_id = ?, offered = 0, depth = ?, bytes = ?, awaiting = ?, "
    "awaiting_bytes = ?, sent = ?, total = ? WHERE lane = ?"
)


def check_outbox(check: ContentCheck) -> None:
    """Every check of the outbox, in the order in which repairs need each other."""
    _unknown_lanes(check)
    _states(check)
    for lane in lane_rows(check.connection).values():
        _bodiless(check, lane)
    _shared(check)
    _tally(check)
    for lane in lane_rows(check.connection).values():
        _lane(check, lane)
        _ids(check, lane)


def _name(lane: LaneRow) -> str:
    return f"lane {lane.lane}"


def _unknown_lanes(check: ContentCheck) -> None:
    known = set(lane_rows(check.connection))
    for number in list(check.owners("delivery", sql.SEQ_BITS)):
        if number not in known:
            low, high = sql.lowest(number), sql.highest(number)
            count = check.number("SELECT count(*) FROM delivery WHERE place > ? AND place <= ?", (low, high))
            check.find(
                f"lane number {number}",
                f"{say(count, 'delivery', 'deliveries')} stand in a lane of which it is not known any more to which "
                "peer it leads, so nobody ships them",
                f"lists them as dead for a peer '{LOST}', with what is in them; 'dropr cat' shows it, send it anew",
                lambda number=number: _end_lane(check, number),  # type: ignore[misc]
                severity="damage",
            )
    query = "SELECT lane, count(*) FROM ended GROUP BY lane UNION ALL SELECT lane, n FROM tally"
    for number in {row[0] for row in check.connection.execute(query)} - known:
        if not check.rows("SELECT 1 FROM lane WHERE lane = ?", (number,)):
            check.find(
                f"lane number {number}",
                "ended deliveries are listed in a lane of which it is not known any more to which peer it led; "
                "'dropr list' stops at them",
                f"lists them for a peer '{LOST}'",
                lambda number=number: _make_lane(check, number),  # type: ignore[misc]
            )


def _make_lane(check: ContentCheck, number: int) -> None:
    channel, priority = f"{LOST}/{number}", 5
    found = check.rows(
        "SELECT envelope FROM delivery WHERE place > ? AND place <= ? AND envelope IS NOT NULL ORDER BY place LIMIT 1",
        (sql.lowest(number), sql.highest(number)),
    )
    try:
        message = header_of(bytes(found[0][0])) if found else None
    except (DroprError, ValueError, IndexError):
        message = None
    if message is not None and not check.rows(sql.LANE, (LOST, message.channel, message.priority)):
        channel, priority = message.channel, message.priority
    check.connection.execute(
        "INSERT INTO lane(lane, peer, channel, priority, last) SELECT ?1, ?2, ?3, ?4, max(0, ifnull((SELECT "
        f"(place & {sql.MASK}) - {sql.HALF} FROM delivery WHERE place > ?5 AND place <= ?6 ORDER BY place DESC "
        "LIMIT 1), 0))",
        (number, LOST, channel, priority, sql.lowest(number), sql.highest(number)),
    ).fetchall()


def _end_lane(check: ContentCheck, number: int) -> None:
    _make_lane(check, number)
    while rows := check.rows(
        f"SELECT place, id, flags, size, shared, born, due FROM delivery WHERE place > ? AND place <= ? LIMIT {PAGE}",
        (sql.lowest(number), sql.highest(number)),
    ):
        _dead(check, [Row._make(row) for row in rows], "fsck: its lane was lost, the peer is not known any more")


def _dead(check: ContentCheck, rows: list[Row], reason: str) -> None:
    ledger = Ledger(check.connection, check.context, check.context.clock.now())
    for row in rows:
        ledger.end(row, State.DEAD, reason)
    ledger.close()


def _states(check: ContentCheck) -> None:
    good = [state.value for state in State] + [""]
    marks = ", ".join("?" * len(good))
    count = check.number(f"SELECT count(*) FROM ended WHERE state NOT IN ({marks})", tuple(good))
    if count:
        check.find(
            "ended deliveries",
            f"{say(count, 'ended delivery', 'ended deliveries')} in a state that does not exist; 'dropr list' stops "
            "at them",
            "lists them as dead",
            check.run(f"UPDATE ended SET state = 'dead' WHERE state NOT IN ({marks})", tuple(good)),
        )


def _bodiless(check: ContentCheck, lane: LaneRow) -> None:
    """Queued deliveries without their bytes: nothing of the lane could be shipped past them."""
    place = (sql.origin(lane.number) + lane.head, sql.highest(lane.number))
    count = check.number(f"SELECT count(*) FROM delivery WHERE {_BODILESS}", place)
    if not count:
        return
    query = f"SELECT place, id, flags, size, shared, born, due FROM delivery WHERE {_BODILESS} LIMIT {PAGE}"
    some = [row[1] for row in check.connection.execute(query, place).fetchall()[:5]]

    def fix() -> None:
        while rows := check.rows(query, place):
            check.connection.executemany("UPDATE delivery SET shared = NULL WHERE place = ?", [(r[0],) for r in rows])
            gone = [Row._make(row)._replace(shared=None) for row in rows]
            _dead(check, gone, "fsck: its content is missing in the store")

    check.find(
        _name(lane),
        f"the content of {say(count, 'queued delivery', 'queued deliveries')} is missing ({say_ids(some, count)}); "
        "nothing behind is shipped",
        "lists them as dead, so that the lane goes on",
        fix,
        severity="damage",
    )


def _shared(check: ContentCheck) -> None:
    check.connection.execute("CREATE TEMP TABLE IF NOT EXISTS referred(n INTEGER PRIMARY KEY, refs INTEGER NOT NULL)")
    check.connection.execute("DELETE FROM temp.referred").fetchall()
    check.connection.execute(f"INSERT INTO temp.referred {_REFERRED}").fetchall()
    wrong = "FROM shared AS s JOIN temp.referred AS r USING(n) WHERE s.refs <> r.refs"
    count = check.number(f"SELECT count(*) {wrong}")
    if count:
        check.find(
            "contents of multicasts",
            f"for {say(count, 'content', 'contents')} of messages to several peers it is noted wrongly how many "
            "deliveries need it: it would go too early or never",
            "counts anew",
            check.run(f"UPDATE shared SET refs = (SELECT refs FROM temp.referred AS r WHERE r.n = shared.n) "
                      f"WHERE n IN (SELECT s.n {wrong})"),
        )  # fmt: skip
    left = "FROM shared WHERE n NOT IN (SELECT n FROM temp.referred)"
    count = check.number(f"SELECT count(*) {left}")
    if count:

        def fix() -> None:
            while rows := check.rows(f"SELECT n, envelope {left} LIMIT 1"):
                check.keep(f"outbox-shared-{rows[0][0]}", bytes(rows[0][1]))
                check.connection.execute("DELETE FROM shared WHERE n = ?", (rows[0][0],)).fetchall()

        check.find(
            "contents of multicasts",
            f"{say(count, 'content')} that no delivery needs any more takes room"
            if count == 1 else f"{say(count, 'content')} that no delivery needs any more take room",
            "moves each into a file in aside/ of the data directory",
            fix,
        )  # fmt: skip


def _tally(check: ContentCheck) -> None:
    right = {
        (lane, state): n
        for lane, state, n in check.connection.execute(
            "SELECT lane, state, count(*) FROM ended WHERE state <> '' GROUP BY lane, state"
        )
    }
    noted = {(lane, state): n for lane, state, n in check.connection.execute("SELECT lane, state, n FROM tally")}
    wrong = [key for key in {**noted, **right} if noted.get(key, 0) != right.get(key, 0)]

    def fix() -> None:
        for key in wrong:
            check.connection.execute("DELETE FROM tally WHERE lane = ? AND state = ?", key).fetchall()
            if key in right:
                check.connection.execute("INSERT INTO tally VALUES(?, ?, ?)", (*key, right[key])).fetchall()

    if wrong:
        have, has = sum(noted.get(key, 0) for key in wrong), sum(right.get(key, 0) for key in wrong)
        check.find(
            "ended deliveries",
            f"{have} are counted where {has} are listed; 'dropr status' and 'dropr count' show the wrong number",
            "counts anew",
            fix,
        )


def _lane(check: ContentCheck, lane: LaneRow) -> None:
    """Head, last number and counters of one lane; ``lane`` knows already of what was appended lately."""
    low, high = sql.lowest(lane.number), sql.highest(lane.number)
    head = sql.origin(lane.number) + lane.head
    queued, size = check.rows(
        "SELECT count(*), total(size) FROM delivery WHERE place > ? AND place <= ?", (head, high)
    )[0]
    waiting, waiting_size = check.rows(
        "SELECT count(*), total(size) FROM delivery WHERE place > ? AND place <= ?", (low, head)
    )[0]
    last = max(lane.last, lane.head)
    right = (queued, int(size), waiting, int(waiting_size))

    def fix() -> None:
        values = (last, lane.head, lane.head_id, *right, lane.sent, lane.total, lane.number)
        check.connection.execute(_MEND, values).fetchall()

    if lane.head > lane.last:
        check.find(
            _name(lane),
            f"the peer has taken up to number {lane.head}, but only {lane.last} are noted as given: the next messages "
            "would get numbers that the peer has seen, and be taken for sent",
            f"goes on behind number {lane.head}",
            fix,
        )
    if (lane.depth, lane.bytes) != right[:2]:
        check.find(
            _name(lane),
            f"{lane.depth} queued deliveries ({lane.bytes} bytes) are counted where {queued} ({int(size)} bytes) are; "
            "limits and 'dropr status' go by the count, and shipping stops where more are counted than there are",
            "counts anew",
            fix,
        )
    if (lane.awaiting, lane.awaiting_bytes) != right[2:]:
        check.find(
            _name(lane),
            f"{lane.awaiting} deliveries ({lane.awaiting_bytes} bytes) are counted as waiting for a receipt where "
            f"{waiting} ({int(waiting_size)} bytes) are; limits and 'dropr status' go by the count",
            "counts anew",
            fix,
        )


def _ids(check: ContentCheck, lane: LaneRow) -> None:
    first = sql.origin(lane.number)
    floor = check.number("SELECT max(floor, head) FROM lane WHERE lane = ?", (lane.number,))
    renew = check.run("UPDATE lane SET floor = ? WHERE lane = ?", (max(lane.last, floor), lane.number))
    check_order(check, _name(lane), _IDS, lane.number, (first + floor, sql.highest(lane.number)), renew)
