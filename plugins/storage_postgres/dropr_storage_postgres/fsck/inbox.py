"""Whether the inbox's tables agree with each other.

Owns the statements that compare them, and what a repair writes. They walk whole tables: only `Storage.check` may run
them. Must not know sessions.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

from dropr_storage_postgres.engine.connection import Connection
from dropr_storage_postgres.engine.inbox_tables import MASK, N_BITS
from dropr_storage_postgres.fsck.findings import ContentCheck, say, say_ids

_TABLES = "in_queue, in_job, in_source, in_sender, in_outcome, in_holder, in_consumer, in_lease, in_tally"
_STATE = "CASE WHEN j.state = 0 THEN CASE WHEN j.place <= q.frontier THEN 4 ELSE 1 END ELSE j.state END"
_LEASED = "(SELECT v.place, count(*) AS n FROM in_lease l CROSS JOIN LATERAL unnest(l.places) v(place) GROUP BY 1) l"
_JOBS = f"in_job j JOIN in_queue q ON q.queue = j.place >> {N_BITS}"
_UNKNOWN = (
    f"SELECT DISTINCT (place >> {N_BITS})::integer FROM in_job WHERE place >> {N_BITS} NOT IN "
    f"(SELECT queue FROM in_queue)"
)
_HELD_BY_NOBODY = f"FROM {_JOBS} LEFT JOIN {_LEASED} ON l.place = j.place WHERE {_STATE} = 4 AND l.place IS NULL"
_WRONGLY_HELD = (
    f"FROM {_LEASED} LEFT JOIN ({_JOBS}) ON j.place = l.place WHERE j.place IS NULL OR {_STATE} <> 4 OR l.n > 1"
)
_ORPHANS = (
    f"FROM in_holder h LEFT JOIN ({_JOBS}) ON j.place = h.place AND q.channel = h.channel AND j.key = h.key "
    "AND j.state NOT IN (3, 5, 6, 7) WHERE j.place IS NULL"
)
_STUCK = (
    f"FROM {_JOBS} WHERE j.state = 3 AND NOT EXISTS (SELECT 1 FROM in_holder h WHERE h.channel = "
    f"q.channel AND h.key = j.key)"
)
_FIRST_STUCK = f"(SELECT min(j.place & {MASK}) AS number, q.channel, j.key {_STUCK} GROUP BY 2, 3) f"
_COUNTED = (
    f"SELECT q.queue, count(*) FILTER (WHERE {_STATE} = 1) AS ready, count(*) FILTER (WHERE j.state = 2) AS delayed, "
    f"count(*) FILTER (WHERE j.state = 3) AS blocked, count(*) FILTER (WHERE {_STATE} = 4) AS leased, "
    "count(*) FILTER (WHERE j.state = 5) AS buried, count(*) FILTER (WHERE j.state = 6) AS done, "
    "count(*) FILTER (WHERE j.state = 7) AS expired, "
    "coalesce(sum(j.size) FILTER (WHERE j.flags & 4 = 0), 0)::bigint AS bytes "
    f"FROM in_queue q LEFT JOIN in_job j ON j.place >> {N_BITS} = q.queue GROUP BY 1"
)
_TALLIED = (
    "SELECT queue, sum(ready) AS ready, sum(delayed) AS delayed, sum(blocked) AS blocked, sum(leased) AS leased, "
    "sum(buried) AS buried, sum(done) AS done, sum(expired) AS expired, sum(bytes)::bigint AS bytes, "
    "sum(processed)::bigint AS processed FROM in_tally GROUP BY queue"
)
_FIGURES = "ready, delayed, blocked, leased, buried, done, expired, bytes"
_MISCOUNTED = f"FROM ({_COUNTED}) c FULL JOIN ({_TALLIED}) t USING (queue) WHERE " + " OR ".join(
    f"coalesce(c.{name}, 0) <> coalesce(t.{name}, 0)" for name in _FIGURES.split(", ")
)


def lock_inbox(connection: Connection) -> None:
    """Let nobody else write for the time of a repair."""
    connection.execute(f"LOCK TABLE {_TABLES} IN SHARE ROW EXCLUSIVE MODE", prepare=False)


def check_inbox(check: ContentCheck) -> None:
    """Every check of the inbox, in the order in which repairs need each other."""
    _unknown_queues(check)
    _numbers(check)
    _leases(check)
    _keys(check)
    _figures(check)


def _unknown_queues(check: ContentCheck) -> None:
    for (number,) in check.rows(_UNKNOWN):
        check.find(
            f"queue number {number}",
            "messages stand in a queue of which the channel is not known any more, so nobody gets them",
            f"makes it a channel 'lost/{number}'",
            check.run(
                "INSERT INTO in_queue(queue, channel, priority, frontier) OVERRIDING SYSTEM VALUE "
                f"VALUES ({number}, 'lost/{number}', 5, {number}::bigint << {N_BITS})"
            ),
            severity="damage",
        )


def _numbers(check: ContentCheck) -> None:
    highest = check.number(f"SELECT coalesce(max(place & {MASK}), 0) FROM in_job")
    given = check.number("SELECT last_value FROM in_number")
    if highest > given:
        check.find(
            "numbers",
            f"numbers up to {highest} are in use, but only {given} are noted as given: new messages would be refused",
            f"goes on behind number {highest}",
            check.run(f"SELECT setval('in_number', {highest})"),
        )


def _leases(check: ContentCheck) -> None:
    count = check.number(f"SELECT count(*) {_WRONGLY_HELD}")
    if count:
        check.find(
            "leases",
            f"{say(count, 'lease')} of a message that is not leased, or is leased twice",
            "ends them; who believes to hold one meets a stale token",
            check.run(
                f"DELETE FROM in_lease WHERE places && (SELECT array_agg(l.place) {_WRONGLY_HELD})",
            ),
        )
    count = check.number(f"SELECT count(*) {_HELD_BY_NOBODY}")
    if count:
        some = [row[0] for row in check.rows(f"SELECT j.id {_HELD_BY_NOBODY} ORDER BY j.place LIMIT 5")]
        check.find(
            "leased messages",
            f"{say(count, 'message')} that nobody holds and nobody is given ({say_ids(some, count)})",
            "makes them ready",
            check.run(f"UPDATE in_job SET state = 1 WHERE place IN (SELECT j.place {_HELD_BY_NOBODY})"),
            severity="damage",
        )


def _keys(check: ContentCheck) -> None:
    count = check.number(f"SELECT count(*) {_ORPHANS}")
    if count:
        check.find(
            "ordering keys",
            f"{say(count, 'key')} held by a message that is not there any more; what waits behind it waits for ever",
            "frees them",
            check.run(f"DELETE FROM in_holder WHERE (channel, key) IN (SELECT h.channel, h.key {_ORPHANS})"),
            severity="damage",
        )
    count = check.number(f"SELECT count(*) {_STUCK}")
    if count:
        check.find(
            "blocked messages",
            f"{say(count, 'message')} that wait for one of their ordering key, though nobody holds it",
            "makes the first of each key ready",
            check.run(
                f"INSERT INTO in_holder SELECT q.channel, j.key, j.place FROM {_JOBS} JOIN {_FIRST_STUCK} "
                f"ON f.number = j.place & {MASK} AND f.channel = q.channel AND f.key = j.key",
                "UPDATE in_job SET state = CASE WHEN due IS NULL THEN 1 ELSE 2 END WHERE state = 3 AND place IN "
                "(SELECT place FROM in_holder)",
            ),
            severity="damage",
        )


def _figures(check: ContentCheck) -> None:
    wrong = check.rows(f"SELECT queue {_MISCOUNTED} ORDER BY queue")
    if wrong:
        check.find(
            "figures",
            f"the kept figures of {say(len(wrong), 'queue')} are not those of counting; limits and 'dropr status' go "
            "by them",
            "counts anew",
            check.run(
                f"CREATE TEMPORARY TABLE counted ON COMMIT DROP AS SELECT c.*, coalesce(t.processed, 0) AS processed "
                f"FROM ({_COUNTED}) c LEFT JOIN ({_TALLIED}) t USING (queue)",
                "INSERT INTO in_folded SELECT now(), array_agg(mark) FROM in_tally WHERE mark IS NOT NULL "
                "HAVING count(*) > 0",
                "DELETE FROM in_tally",
                f"INSERT INTO in_tally(queue, {_FIGURES}, processed) SELECT queue, {_FIGURES}, processed FROM counted",
            ),
        )
