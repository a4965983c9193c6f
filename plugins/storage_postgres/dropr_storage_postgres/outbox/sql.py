"""Every statement of the outbox, and how positions are written down.

Owns the SQL; a test explains the plan of each statement and refuses scans of tables that grow. Must not know values or
rules.

A delivery's ``place`` is one integer, lane and sequence packed together, so that the table's key is the log: appending,
reading and releasing a lane are ranges of one index, which begin where something lives and walk over nothing dead.
Sequences below 1 are deliveries that wait for a receipt outside of the log (after a renumbering).

A lane has two rows, so that who sends and who ships do not wait for each other: `lane` counts what came in and is
locked by appends, `head` counts what left and is locked by everything that ends, moves or marks deliveries. Who needs
both locks `head` first; who needs several locks them in order.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this file only

SEQ_BITS = 43
HALF = 1 << (SEQ_BITS - 1)
MASK = (1 << SEQ_BITS) - 1

RECEIPT, DELAYED, DUPLICATE, FINGERPRINT, SHARED, EXPIRES = 1, 2, 4, 8, 16, 32
SPECIAL = RECEIPT | FINGERPRINT | SHARED
"""Flags of a delivery that cannot simply be deleted once it is accepted."""
DATED = DELAYED | EXPIRES

STORE = "SELECT value FROM meta WHERE key = 'store outbox'"
SET_STORE = "UPDATE meta SET value = %s WHERE key = 'store outbox'"
STAGED_UPTO = "SELECT n FROM meta WHERE key = %s FOR UPDATE"
NEW_STAGED = "INSERT INTO meta(key) VALUES (%s) ON CONFLICT DO NOTHING"
SET_STAGED = "UPDATE meta SET n = %s WHERE key = %s"
ALL_STAGED = "SELECT key, n FROM meta WHERE starts_with(key, %s) AND n > 0"
FORGET_STAGED = "DELETE FROM meta WHERE key = ANY(%s)"
OWN_IDS = "SELECT pg_advisory_xact_lock(hashtext(current_schema()), n::integer) FROM unnest(%s::bigint[]) n"
"""One at a time stores messages whose ids fall into the same bucket, and were chosen by their senders."""

# ── lanes ────────────────────────────────────────────────────────────────────────────────────────
_LANE = (
    "lane, peer, channel, priority::bigint, last, head, head_id, offered, added - gone, added_bytes - gone_bytes, "
    "awaiting, awaiting_bytes, sent"
)
_NAMED = "peer = %s AND channel = %s AND priority = %s"
LANE = f"SELECT {_LANE} FROM lane JOIN head USING (lane) WHERE {_NAMED}"
LANES = f"SELECT {_LANE} FROM lane JOIN head USING (lane)"
LANES_BY_NUMBER = LANES + " WHERE lane = ANY(%s)"
LOCK = f"SELECT lane FROM head WHERE lane = (SELECT lane FROM lane WHERE {_NAMED}) FOR UPDATE"
LOCK_BY_NUMBER = "SELECT lane FROM head WHERE lane = ANY(%s) ORDER BY lane FOR UPDATE"
LOCK_ALL = "SELECT lane FROM head ORDER BY lane FOR UPDATE"
LOCK_TAILS = "SELECT lane FROM lane ORDER BY peer, channel, priority FOR UPDATE"
_WANTED = "unnest(%s::text[], %s::text[], %s::bigint[]) AS wanted(peer, channel, priority)"
NUMBERS = f"SELECT lane FROM lane JOIN {_WANTED} USING (peer, channel, priority)"
_EXTEND = (
    "UPDATE lane SET last = last + {n}, sent = sent + {n}, added = added + {n}, added_bytes = added_bytes + {size} "
)
EXTEND = _EXTEND.format(n="%s", size="%s") + f"WHERE {_NAMED} RETURNING lane, last"
EXTEND_ALL = (
    _EXTEND.format(n="wanted.n", size="wanted.size")
    + "FROM (SELECT lane.lane, wanted.n, wanted.size FROM lane JOIN unnest(%s::text[], %s::text[], %s::bigint[], "
    "%s::bigint[], %s::bigint[]) AS wanted(peer, channel, priority, n, size) USING (peer, channel, priority) "
    "ORDER BY peer, channel, priority FOR UPDATE OF lane) AS wanted WHERE lane.lane = wanted.lane "
    "RETURNING lane.lane, peer, channel, priority::bigint, last"
)
NEW_LANES = (
    f"WITH made AS (INSERT INTO lane(peer, channel, priority) SELECT peer, channel, priority FROM {_WANTED} "
    "ORDER BY peer, channel, priority ON CONFLICT DO NOTHING RETURNING lane) "
    "INSERT INTO head(lane) SELECT lane FROM made"
)
EXTEND_AGAIN = (
    "UPDATE lane SET last = last + %s, added = added + %s, added_bytes = added_bytes + %s WHERE lane = %s "
    "RETURNING last"
)
"""Deliveries that come again are not counted as sent."""
WAITING = (
    "SELECT peer, channel, priority::bigint, head, head_id, last, added - gone, added_bytes - gone_bytes, "
    f"(SELECT born FROM delivery WHERE place > (lane.lane::bigint << {SEQ_BITS}) + {HALF} + head AND "
    f"place <= (lane.lane::bigint << {SEQ_BITS} | {MASK}) ORDER BY place LIMIT 1) "
    "FROM lane JOIN head USING (lane) WHERE added > gone"
)
WAITING_OF = WAITING + " AND peer = %s"
OFFER = "UPDATE head SET offered = %s WHERE lane = %s"
CLEAR = f"UPDATE head SET offered = 0 WHERE offered > 0 AND lane = (SELECT lane FROM lane WHERE {_NAMED})"
ADVANCE = (
    "UPDATE head SET head = %s, head_id = %s, offered = 0, gone = gone + %s, gone_bytes = gone_bytes + %s, "
    "awaiting = awaiting + %s, awaiting_bytes = awaiting_bytes + %s WHERE lane = %s"
)
COUNT = (
    "UPDATE head SET gone = head.gone + d.gone, gone_bytes = head.gone_bytes + d.gone_bytes, "
    "awaiting = head.awaiting + d.awaiting, awaiting_bytes = head.awaiting_bytes + d.awaiting_bytes "
    "FROM unnest(%s::bigint[], %s::bigint[], "
    "%s::bigint[], %s::bigint[], %s::bigint[]) AS d(lane, gone, gone_bytes, awaiting, awaiting_bytes) "
    "WHERE head.lane = d.lane"
)
RESTART = "UPDATE head SET head = 0, head_id = '\\x00000000000000000000000000000000', offered = 0 WHERE lane = %s"
RESTART_TAIL = "UPDATE lane SET last = %s WHERE lane = %s"
_TOTAL = (
    "SELECT coalesce(sum(added - gone{more}), 0)::bigint, coalesce(sum(added_bytes - gone_bytes{bytes}), 0)::bigint "
    "FROM lane JOIN head USING (lane)"
)
TOTAL = _TOTAL.format(more=" + awaiting", bytes=" + awaiting_bytes")
TOTAL_OF_PEER = _TOTAL.format(more="", bytes="") + " WHERE peer = %s"
TOTAL_OF_CHANNEL = _TOTAL.format(more="", bytes="") + " WHERE channel = %s"

# ── deliveries ───────────────────────────────────────────────────────────────────────────────────
_COLUMNS = "place, born, expires, due, shared, flags, size, id, fingerprint, envelope"
_ROW = "place, id, flags::bigint, size::bigint, shared, born, due"
SEND = (
    f"WITH tail AS ({_EXTEND.format(n=1, size='%s')} WHERE {_NAMED} RETURNING lane, last), stored AS (INSERT INTO "
    f"delivery({_COLUMNS}) SELECT (lane::bigint << {SEQ_BITS}) + {HALF} + last, %s, %s, %s, NULL, %s, %s, %s, NULL, %s "
    "FROM tail) SELECT last FROM tail"
)
"""A single message, in one statement."""
INSERT = f"INSERT INTO delivery({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
COPY = f"COPY delivery({_COLUMNS}) FROM STDIN (FORMAT BINARY)"
COPY_TYPES = ("int8", "float8", "float8", "float8", "int8", "int4", "int4", "bytea", "bytea", "bytea")
_ENVELOPE = "coalesce(envelope, (SELECT shared.envelope FROM shared WHERE n = delivery.shared))"
TAKE = (
    f"SELECT place, id, flags::bigint, born, {_ENVELOPE} FROM delivery WHERE place > %s AND place <= %s "
    "ORDER BY place LIMIT %s"
)
SUM = (
    f"SELECT count(*), coalesce(sum(size), 0)::bigint, coalesce(bool_or(flags & {SPECIAL} <> 0), false) FROM delivery "
    "WHERE place > %s AND place <= %s"
)
SPECIALS = f"SELECT {_ROW} FROM delivery WHERE place > %s AND place <= %s AND flags & {SPECIAL} <> 0 ORDER BY place"
RANGE = f"SELECT {_ROW} FROM delivery WHERE place > %s AND place <= %s ORDER BY place"
PAGE = RANGE + " LIMIT %s"
DROP = f"DELETE FROM delivery WHERE place > %s AND place <= %s AND flags & {RECEIPT} = 0"
DROP_MANY = "DELETE FROM delivery WHERE place = ANY(%s)"
ACCEPT = (
    f"UPDATE delivery SET due = NULL WHERE place > %s AND place <= %s AND flags & {RECEIPT} <> 0 AND due IS NOT NULL"
)
REQUEUE = f"UPDATE delivery SET due = expires, flags = flags | {DUPLICATE} WHERE place > %s AND place <= %s"
RENUMBER = (
    "WITH old AS (DELETE FROM delivery WHERE place > %s AND place <= %s RETURNING *) "
    f"INSERT INTO delivery({_COLUMNS}) SELECT row_number() OVER (ORDER BY place) + %s, born, expires, due, shared, "
    "flags | %s::bigint::integer, size, id, fingerprint, envelope FROM old"
)
HOW_MANY = "SELECT count(*) FROM delivery WHERE place > %s AND place <= %s"
FIRST = "SELECT born FROM delivery WHERE place >= %s AND place <= %s ORDER BY place LIMIT 1"
OLDEST = (
    f"SELECT min((SELECT born FROM delivery WHERE place >= (lane::bigint << {SEQ_BITS}) AND "
    f"place <= (lane::bigint << {SEQ_BITS} | {MASK}) ORDER BY place LIMIT 1)) FROM lane JOIN head USING (lane) "
    "WHERE added > gone OR awaiting > 0"
)
"""A lane is in the order in which it was sent: its first is its oldest."""
ONE = f"SELECT {_ROW} FROM delivery WHERE place = %s"
MANY = f"SELECT {_ROW} FROM delivery WHERE place = ANY(%s)"
BY_IDS = f"SELECT {_ROW} FROM delivery WHERE id = ANY(%s) ORDER BY place"
FINGERPRINTS = "SELECT id, place, fingerprint FROM delivery WHERE id = ANY(%s)"
DUE = f"SELECT {_ROW} FROM delivery WHERE due IS NOT NULL AND due <= %s ORDER BY due LIMIT %s"
NEXT_DUE = "SELECT due FROM delivery WHERE due IS NOT NULL ORDER BY due LIMIT 1"
ENVELOPE = f"SELECT {_ENVELOPE} FROM delivery WHERE id = %s LIMIT 1"

# ── shared envelopes ─────────────────────────────────────────────────────────────────────────────
SHARE = (
    "INSERT INTO shared(refs, envelope) SELECT refs, envelope FROM unnest(%s::bigint[], %s::bytea[]) WITH ORDINALITY "
    "AS s(refs, envelope, at) ORDER BY at RETURNING n"
)
UNSHARE = (
    "WITH less AS (SELECT n, refs FROM unnest(%s::bigint[], %s::bigint[]) AS less(n, refs)), "
    "left_over AS (UPDATE shared SET refs = shared.refs - less.refs FROM less WHERE shared.n = less.n "
    "RETURNING shared.n, shared.refs) "
    "SELECT n FROM left_over WHERE refs <= 0"
)
UNSHARE_DROP = "DELETE FROM shared WHERE n = ANY(%s)"

# ── ended deliveries ─────────────────────────────────────────────────────────────────────────────
END = (
    "INSERT INTO ended(id, lane, seq, state, at, born, forget, flags, size, expires, reason, result, result_type, "
    f"shared, fingerprint, envelope) SELECT id, place >> {SEQ_BITS}, greatest(0, (place & {MASK}) - {HALF}), "
    "e.state, %s, born, e.forget, flags, size, expires, e.reason, e.result, e.type, "
    "CASE WHEN e.body THEN shared END, fingerprint, "
    "CASE WHEN e.body THEN envelope END FROM unnest(%s::bigint[], %s::text[], %s::float8[], %s::text[], %s::bytea[], "
    "%s::text[], %s::bool[]) WITH ORDINALITY AS e(place, state, forget, reason, result, type, body, n) "
    "JOIN delivery USING (place) ORDER BY e.n"
)
_ENDED = (
    "n, id, lane::bigint, seq, state, at, flags::bigint, size::bigint, reason, result, result_type, shared, "
    "envelope IS NOT NULL, born, forget"
)
ENDED_PAGE = f"SELECT {_ENDED} FROM ended WHERE n > %s AND state <> '' ORDER BY n LIMIT %s"
ENDED_BY_IDS = f"SELECT {_ENDED} FROM ended WHERE id = ANY(%s) AND state <> '' ORDER BY n"
ENDED_IN_LANE = f"SELECT {_ENDED} FROM ended WHERE lane = %s AND seq > %s AND seq <= %s AND seq > 0 ORDER BY seq"
ENDED_AT = "SELECT id FROM ended WHERE lane = %s AND seq = %s AND seq > 0 AND state <> ''"
ENDED_FINGERPRINTS = "SELECT id, fingerprint FROM ended WHERE id = ANY(%s)"
ENDED_ENVELOPE = (
    "SELECT coalesce(envelope, (SELECT shared.envelope FROM shared WHERE shared.n = ended.shared)) FROM ended "
    "WHERE id = %s LIMIT 1"
)
UNPLACE = f"UPDATE ended SET seq = seq - {1 << 62} WHERE lane = %s AND seq > 0"
"""They have no number any more (none is below 1), but keep their order for a redrive."""
REVISE = "UPDATE ended SET state = %s, at = %s, forget = %s, reason = %s, result = %s, result_type = %s WHERE n = %s"
FORGET = "DELETE FROM ended WHERE n = ANY(%s)"
WIPE = "UPDATE ended SET state = '', reason = '', result = NULL, shared = NULL, envelope = NULL WHERE n = ANY(%s)"
"""A record with an own id leaves the id behind: wiping must not open the door to duplicates."""
FORGETTABLE = "SELECT n, lane::bigint, state, shared FROM ended WHERE forget <= %s ORDER BY forget LIMIT %s FOR UPDATE"
NEXT_FORGET = "SELECT forget FROM ended ORDER BY forget LIMIT 1"
LOCK_ENDED = "SELECT n FROM ended WHERE n = ANY(%s) ORDER BY n FOR UPDATE"
RETURN = (
    f"INSERT INTO delivery({_COLUMNS}) SELECT e.place, coalesce(e.now, born), "
    "coalesce(e.now + expires - born, expires), "
    f"coalesce(e.now + expires - born, expires), shared, flags | {DUPLICATE}, size, id, fingerprint, envelope "
    "FROM unnest(%s::bigint[], %s::bigint[], %s::float8[]) AS e(n, place, now) JOIN ended USING (n)"
)
"""With a time it begins a new life, without it goes on with the old one."""
TALLY = (
    "INSERT INTO tally(lane, state, n) SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) ORDER BY 1, 2 "
    "ON CONFLICT(lane, state) DO UPDATE SET n = tally.n + excluded.n"
)
TALLIES = "SELECT lane::bigint, state, n FROM tally WHERE n > 0"

# ── peers ────────────────────────────────────────────────────────────────────────────────────────
PEERS = "SELECT name, held, reason, log, cursor FROM peer"
PEER = "SELECT held, reason, log, cursor FROM peer WHERE name = %s"
LOCK_PEER = "INSERT INTO peer(name) VALUES (%s) ON CONFLICT(name) DO UPDATE SET cursor = peer.cursor"
HOLD = (
    "INSERT INTO peer(name, held, reason) VALUES (%s, true, %s) ON CONFLICT(name) DO UPDATE "
    "SET held = true, reason = excluded.reason"
)
RELEASE = "UPDATE peer SET held = false, reason = '' WHERE name = %s"
CURSOR = "UPDATE peer SET cursor = CASE WHEN log = %s THEN greatest(cursor, %s) ELSE %s END, log = %s WHERE name = %s"


def origin(lane: int) -> int:
    """The place of sequence 0 of a lane."""
    return (lane << SEQ_BITS) + HALF


def lowest(lane: int) -> int:
    """The place before everything of a lane."""
    return lane << SEQ_BITS


def highest(lane: int) -> int:
    """The last place of a lane."""
    return (lane << SEQ_BITS) | MASK


def unpack(place: int) -> tuple[int, int]:
    """(lane, sequence) of a place."""
    return place >> SEQ_BITS, (place & MASK) - HALF
