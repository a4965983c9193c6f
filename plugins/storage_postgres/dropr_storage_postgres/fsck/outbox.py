"""Whether the outbox's tables agree with each other.

Owns the statements that compare them, and what a repair writes. They walk whole tables: only `Storage.check` may run
them. Must not know sessions.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

from typing import Any

from dropr_core.model.message import State
from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.fsck.findings import ContentCheck, say, say_ids
from dropr_storage_postgres.outbox import sql

LOST = "lost"
"""The peer's name in a lane of which only the deliveries were found."""
_LANE_OF = f"(place >> {sql.SEQ_BITS})::integer"
_SEQUENCE = f"((place & {sql.MASK}) - {sql.HALF})"
_STATES = ", ".join(f"'{state.value}'" for state in State)
_UNKNOWN = (
    f"SELECT lane, count(*) FROM (SELECT {_LANE_OF} AS lane FROM delivery UNION ALL SELECT lane FROM ended UNION ALL "
    "SELECT lane FROM tally UNION ALL SELECT lane FROM head) AS used WHERE lane NOT IN (SELECT lane FROM lane) "
    "GROUP BY lane ORDER BY lane"
)
_BODILESS = (
    f"FROM delivery JOIN head ON head.lane = {_LANE_OF} WHERE {_SEQUENCE} > head AND envelope IS NULL AND "
    "(shared IS NULL OR NOT EXISTS (SELECT 1 FROM shared WHERE n = delivery.shared))"
)
_REFERRED = (
    "(SELECT shared AS n, count(*)::integer AS refs FROM (SELECT shared FROM delivery WHERE shared IS NOT NULL "
    "UNION ALL SELECT shared FROM ended WHERE shared IS NOT NULL) AS used GROUP BY shared) AS referred"
)
_TALLIED = "(SELECT lane, state, count(*) AS n FROM ended WHERE state <> '' GROUP BY lane, state) AS counted"
_STANDING = (
    f"(SELECT {_LANE_OF} AS lane, count(*) FILTER (WHERE {_SEQUENCE} > head) AS queued, "
    f"sum(size) FILTER (WHERE {_SEQUENCE} > head) AS queued_bytes, "
    f"count(*) FILTER (WHERE {_SEQUENCE} <= head) AS waits, "
    f"sum(size) FILTER (WHERE {_SEQUENCE} <= head) AS wait_bytes, max({_SEQUENCE}) AS highest "
    f"FROM delivery JOIN head ON head.lane = {_LANE_OF} GROUP BY 1) AS standing"
)
_COUNTED = (
    "SELECT lane, peer, channel, priority::bigint, last, head, added - gone, added_bytes - gone_bytes, awaiting, "
    "awaiting_bytes, coalesce(queued, 0), coalesce(queued_bytes, 0)::bigint, coalesce(waits, 0), "
    "coalesce(wait_bytes, 0)::bigint, coalesce(highest, 0) "
    f"FROM lane JOIN head USING (lane) LEFT JOIN {_STANDING} USING (lane) ORDER BY lane"
)
_MEND = (
    "UPDATE head SET gone = (SELECT added FROM lane WHERE lane = head.lane) - %s, gone_bytes = (SELECT added_bytes "
    "FROM lane WHERE lane = head.lane) - %s, awaiting = %s, awaiting_bytes = %s WHERE lane = %s"
)


def lock_outbox(connection: Connection) -> None:
    """Let nobody else write for the time of a repair."""
    connection.execute(
        "LOCK TABLE meta, peer, head, lane, delivery, shared, ended, tally IN SHARE ROW EXCLUSIVE MODE", prepare=False
    )


def check_outbox(check: ContentCheck) -> None:
    """Every check of the outbox, in the order in which repairs need each other."""
    _unknown_lanes(check)
    _headless(check)
    _states(check)
    _bodiless(check)
    _shared(check)
    _tally(check)
    for lane in check.rows(_COUNTED):
        _lane(check, lane)


def _unknown_lanes(check: ContentCheck) -> None:
    for number, count in check.rows(_UNKNOWN):

        def fix(number: int = number) -> None:
            check.connection.execute(
                "INSERT INTO lane(lane, peer, channel, priority, last) OVERRIDING SYSTEM VALUE SELECT %s, %s, %s, 5, "
                f"coalesce((SELECT max({_SEQUENCE}) FROM delivery WHERE {_LANE_OF} = %s), 0)",
                (number, LOST, f"{LOST}/{number}", number),
            )

        check.find(
            f"lane number {number}",
            f"{say(count, 'row')} of a lane of which it is not known any more to which peer it leads, so nobody ships "
            "what stands there",
            f"makes it a lane to a peer '{LOST}': 'dropr list' and 'dropr cat' show what is in it, send it anew",
            fix,
            severity="damage",
        )


def _headless(check: ContentCheck) -> None:
    count = check.number("SELECT count(*) FROM lane WHERE lane NOT IN (SELECT lane FROM head)")
    if count:
        check.find(
            "lanes",
            f"of {say(count, 'lane')} it is not known how far the peer has come; nothing is shipped there",
            "begins before everything that is kept; the peer says how far it has come",
            check.run("INSERT INTO head(lane) SELECT lane FROM lane WHERE lane NOT IN (SELECT lane FROM head)"),
            severity="damage",
        )


def _states(check: ContentCheck) -> None:
    count = check.number(f"SELECT count(*) FROM ended WHERE state NOT IN ({_STATES}, '')")
    if count:
        check.find(
            "ended deliveries",
            f"{say(count, 'ended delivery', 'ended deliveries')} in a state that does not exist; 'dropr list' stops "
            "at them",
            "lists them as dead",
            check.run(f"UPDATE ended SET state = 'dead' WHERE state NOT IN ({_STATES}, '')"),
        )


def _bodiless(check: ContentCheck) -> None:
    """Queued deliveries without their bytes: nothing of the lane could be shipped past them."""
    count = check.number(f"SELECT count(*) {_BODILESS}")
    if not count:
        return
    some = [row[0] for row in check.rows(f"SELECT id {_BODILESS} ORDER BY place LIMIT 5")]
    check.find(
        "queued deliveries",
        f"the content of {say(count, 'queued delivery', 'queued deliveries')} is missing ({say_ids(some, count)}); "
        "nothing behind is shipped",
        "lists them as dead, so that the lane goes on",
        check.run(
            "INSERT INTO ended(id, lane, seq, state, at, born, forget, flags, size, expires, reason, result_type, "
            f"fingerprint) SELECT id, {_LANE_OF}, greatest(0, {_SEQUENCE}), 'dead', now, born, now + 2592000, flags, "
            "size, expires, 'fsck: its content is missing in the store', '', fingerprint FROM (SELECT delivery.*, "
            f"extract(epoch FROM now())::float8 AS now {_BODILESS}) AS bodiless",
            f"DELETE FROM delivery WHERE place IN (SELECT place {_BODILESS})",
        ),
        severity="damage",
    )


def _shared(check: ContentCheck) -> None:
    wrong = f"FROM shared JOIN {_REFERRED} USING (n) WHERE shared.refs <> referred.refs"
    count = check.number(f"SELECT count(*) {wrong}")
    if count:
        check.find(
            "contents of multicasts",
            f"for {say(count, 'content')} of messages to several peers it is noted wrongly how many deliveries need "
            "it: it would go too early or never",
            "counts anew",
            check.run(f"UPDATE shared SET refs = referred.refs FROM {_REFERRED} WHERE referred.n = shared.n"),
        )
    count = check.number(f"SELECT count(*) FROM shared LEFT JOIN {_REFERRED} USING (n) WHERE referred.n IS NULL")
    if count:
        check.find(
            "contents of multicasts",
            f"{say(count, 'content')} that no delivery needs any more: room that is taken for nothing",
            "moves it into a table of its own, aside_outbox, which nobody reads",
            check.run(
                "CREATE TABLE IF NOT EXISTS aside_outbox(n bigint, at timestamptz DEFAULT now(), envelope bytea)",
                f"INSERT INTO aside_outbox(n, envelope) SELECT n, envelope FROM shared LEFT JOIN {_REFERRED} USING (n) "
                "WHERE referred.n IS NULL",
                f"DELETE FROM shared WHERE n NOT IN (SELECT n FROM {_REFERRED})",
            ),
        )


def _tally(check: ContentCheck) -> None:
    have, has = check.rows(
        "SELECT coalesce(sum(tally.n), 0)::bigint, coalesce(sum(counted.n), 0)::bigint FROM tally FULL JOIN "
        f"{_TALLIED} USING (lane, state) WHERE coalesce(tally.n, 0) <> coalesce(counted.n, 0)"
    )[0]
    if have or has:
        check.find(
            "ended deliveries",
            f"{have} are counted where {has} are listed; 'dropr status' and 'dropr count' show the wrong number",
            "counts anew",
            check.run("DELETE FROM tally", f"INSERT INTO tally SELECT * FROM {_TALLIED}"),
        )


def _lane(check: ContentCheck, row: Any) -> None:
    """Head, last number and counters of one lane."""
    number, peer, channel, priority, last, head, depth, size, awaiting, waiting_size = row[:10]
    queued, queued_size, waits, waits_size, highest = row[10:]
    name = f"lane {peer}:{channel}:{priority}"
    right = max(head, highest)

    def mend() -> None:
        check.connection.execute(_MEND, (queued, queued_size, waits, waits_size, number))

    if right > last:
        check.find(
            name,
            f"numbers up to {right} are in use, but only {last} are noted as given: the next messages would get "
            "numbers that the peer has seen, and be taken for sent",
            f"goes on behind number {right}",
            lambda: check.connection.execute("UPDATE lane SET last = %s WHERE lane = %s", (right, number)),
        )
    if (depth, size) != (queued, queued_size):
        check.find(
            name,
            f"{depth} queued deliveries ({size} bytes) are counted where {queued} ({queued_size} bytes) are; limits "
            "and 'dropr status' go by the count, and shipping stops where more are counted than there are",
            "counts anew",
            mend,
        )
    if (awaiting, waiting_size) != (waits, waits_size):
        check.find(
            name,
            f"{awaiting} deliveries ({waiting_size} bytes) are counted as waiting for a receipt where {waits} "
            f"({waits_size} bytes) are; limits and 'dropr status' go by the count",
            "counts anew",
            mend,
        )
