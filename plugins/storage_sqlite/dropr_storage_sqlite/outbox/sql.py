"""Every statement of the outbox, and how positions are written down.

Owns the SQL; a test explains the plan of each statement and refuses scans of tables that grow.
Must not know values or rules.

A delivery's ``place`` is one integer, lane and sequence packed together, so that the table itself
is the log: appending, reading and releasing a lane are ranges of the rowid, and nothing sorts.
Sequences below 1 are deliveries that wait for a receipt outside of the log (after a renumbering).
"""

# ruff: noqa: S608 -- statements are put together here from constants of this package only

from dropr_storage_sqlite.engine.rising import RISING, stones_around

SEQ_BITS = 43
HALF = 1 << (SEQ_BITS - 1)
MASK = (1 << SEQ_BITS) - 1
MAX_LANE = (1 << (63 - SEQ_BITS)) - 2

RECEIPT, DELAYED, DUPLICATE, FINGERPRINT, SHARED, EXPIRES, APART = 1, 2, 4, 8, 16, 32, 64
SPECIAL = RECEIPT | FINGERPRINT | SHARED
"""Flags of a delivery that cannot simply be deleted once it is accepted."""
UNORDERED = DUPLICATE | FINGERPRINT | APART
"""Flags of a delivery whose id does not rise with its place (`engine.rising`)."""
LISTED = SPECIAL | UNORDERED
"""Flags of a delivery that the index of ids has."""
DATED = DELAYED | EXPIRES

STORE = "SELECT value FROM meta WHERE key = 'store'"
STAGED = "staged "
"""Before the name of a staging log: the key of the note how far it is taken in."""
STAGED_UPTO = "SELECT value FROM meta WHERE key = ?"
SET_STAGED = "INSERT OR REPLACE INTO meta VALUES(?, ?)"
ALL_STAGED = "SELECT key, value FROM meta WHERE key BETWEEN 'staged ' AND 'staged!'"
FORGET_STAGED = "DELETE FROM meta WHERE key = ?"
TAKEN = "SELECT value FROM meta WHERE key = 'taken'"
SET_TAKEN = "INSERT OR REPLACE INTO meta VALUES('taken', ?)"
SET_STORE = "UPDATE meta SET value = ? WHERE key = 'store'"

# ── lanes ────────────────────────────────────────────────────────────────────────────────────────
# A lane's row lags behind: `append` does not touch it. The last delivery (`tail`) tells how many (its
# sequence) and how many bytes (its `total`) were appended since; whoever changes counts writes them down first.
_TAIL = (
    f"LEFT JOIN delivery AS tail ON tail.place = (SELECT place FROM delivery WHERE place > (lane.lane << {SEQ_BITS}) "
    f"+ {HALF} + lane.last AND place <= (lane.lane << {SEQ_BITS} | {MASK}) ORDER BY place DESC LIMIT 1)"
)
_NEW = f"ifnull((tail.place & {MASK}) - {HALF} - lane.last, 0)"
_LANE = (
    f"lane.lane, peer, channel, priority, last + {_NEW}, head, head_id, offered, depth + {_NEW}, "
    f"bytes + ifnull(tail.total - lane.total, 0), awaiting, awaiting_bytes, sent + {_NEW}, "
    f"ifnull(tail.total, lane.total), tail.place IS NOT NULL"
)
LANE = f"SELECT {_LANE} FROM lane {_TAIL} WHERE peer = ? AND channel = ? AND priority = ?"
LANE_BY_NUMBER = f"SELECT {_LANE} FROM lane {_TAIL} WHERE lane.lane = ?"
LANES = f"SELECT {_LANE} FROM lane {_TAIL}"
END_OF = (
    f"SELECT lane.lane, last + {_NEW}, ifnull(tail.total, lane.total), floor, tail.id, tail.flags FROM lane {_TAIL} "
    "WHERE peer = ? AND channel = ? AND priority = ?"
)
NOTE = "UPDATE lane SET last = ?, depth = ?, bytes = ?, sent = ?, total = ? WHERE lane = ?"
WAITING = (
    f"SELECT peer, channel, priority, head, head_id, last + {_NEW}, depth + {_NEW}, "
    "bytes + ifnull(tail.total - lane.total, 0), (SELECT born FROM delivery WHERE "
    f"place > (lane.lane << {SEQ_BITS}) + {HALF} + lane.head ORDER BY place LIMIT 1) FROM lane {_TAIL} "
    "WHERE (depth > 0 OR tail.place IS NOT NULL)"
)
WAITING_OF = WAITING + " AND peer = ?"
STANDING = (
    f"SELECT peer, channel, priority, head, head_id, last + {_NEW}, depth + {_NEW}, "
    "bytes + ifnull(tail.total - lane.total, 0), CASE WHEN depth > 0 OR tail.place IS NOT NULL THEN "
    f"(SELECT born FROM delivery WHERE place > (lane.lane << {SEQ_BITS}) + {HALF} + lane.head ORDER BY place LIMIT 1) "
    f"END, awaiting, ifnull(held, 0), ifnull(reason, ''), log, ifnull(cursor, 0), ({STORE}) "
    f"FROM lane {_TAIL} LEFT JOIN peer ON peer.name = lane.peer "
    f"UNION ALL SELECT name, NULL, 0, 0, NULL, 0, 0, 0, NULL, 0, held, reason, log, cursor, ({STORE}) FROM peer "
    "WHERE (held <> 0 OR log IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM lane WHERE lane.peer = peer.name)"
)
"""What waits in each lane, and each peer that has a lane or is known otherwise."""
NEW_LANE = "INSERT INTO lane(peer, channel, priority) VALUES(?, ?, ?) RETURNING lane"
EXTEND = (
    "UPDATE lane SET last = last + 1, depth = depth + 1, bytes = bytes + ?2, total = total + ?2 "
    "WHERE lane = ?1 RETURNING last"
)
OFFER = "UPDATE lane SET offered = ? WHERE lane = ?"
ADVANCE = (
    "UPDATE lane SET head = ?1, floor = max(floor, ?1), head_id = ?2, offered = 0, depth = depth - ?3, "
    "bytes = bytes - ?4, awaiting = awaiting + ?5, awaiting_bytes = awaiting_bytes + ?6 WHERE lane = ?7"
)
COUNT = (
    "UPDATE lane SET depth = depth + ?, bytes = bytes + ?, awaiting = awaiting + ?, "
    "awaiting_bytes = awaiting_bytes + ? WHERE lane = ?"
)
RESTART = "UPDATE lane SET head = 0, head_id = zeroblob(16), offered = 0, last = ?1, floor = ?1 WHERE lane = ?2"
_DEPTH, _BYTES = f"depth + {_NEW}", "bytes + ifnull(tail.total - lane.total, 0)"
TOTAL = f"SELECT total({_DEPTH} + awaiting), total({_BYTES} + awaiting_bytes) FROM lane {_TAIL}"
TOTAL_OF_PEER = f"SELECT total({_DEPTH}), total({_BYTES}) FROM lane {_TAIL} WHERE peer = ?"
TOTAL_OF_CHANNEL = f"SELECT total({_DEPTH}), total({_BYTES}) FROM lane {_TAIL} WHERE channel = ?"

# ── deliveries ───────────────────────────────────────────────────────────────────────────────────
_ROW = "place, id, flags, size, shared, born, due"
INSERT = "INSERT INTO delivery VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_PLAIN = "INSERT INTO delivery VALUES(?3, ?4, ?1, ?2, ?5, NULL, NULL, NULL, NULL, ?6, ?7)"
TAKE = (
    "SELECT place, id, flags, born, coalesce(envelope, (SELECT envelope FROM shared WHERE n = delivery.shared)) "
    "FROM delivery WHERE place > ? AND place <= ? ORDER BY place LIMIT ?"
)
SUM = f"SELECT count(*), total(size), total(flags & {SPECIAL} <> 0) FROM delivery WHERE place > ? AND place <= ?"
SPECIALS = f"SELECT {_ROW} FROM delivery WHERE place > ? AND place <= ? AND flags & {SPECIAL} <> 0 ORDER BY place"
RANGE = f"SELECT {_ROW} FROM delivery WHERE place > ? AND place <= ? ORDER BY place"
DROP = f"DELETE FROM delivery WHERE place > ? AND place <= ? AND flags & {RECEIPT} = 0"
DROP_ALL = "DELETE FROM delivery WHERE place > ? AND place <= ?"
DROP_ONE = "DELETE FROM delivery WHERE place = ?"
ACCEPT = "UPDATE delivery SET due = NULL WHERE place = ?"
REQUEUE = f"UPDATE delivery SET due = expires, flags = flags | {DUPLICATE} WHERE place > ? AND place <= ?"
MOVE = f"UPDATE delivery SET place = ?, flags = flags | {DUPLICATE} WHERE place = ?"
SET_APART = "UPDATE delivery SET place = ? WHERE place = ?"
PLACES = "SELECT place FROM delivery WHERE place > ? AND place <= ? ORDER BY place LIMIT ?"
FIRST = "SELECT born FROM delivery WHERE place >= ? AND place <= ? ORDER BY place LIMIT 1"
ONE = f"SELECT {_ROW} FROM delivery WHERE place = ?"
BY_ID = f"SELECT {_ROW} FROM delivery WHERE id = ? AND flags & {LISTED} <> 0"
FINGERPRINTS = f"SELECT place, fingerprint FROM delivery WHERE id = ? AND flags & {LISTED} <> 0"
DUE = f"SELECT {_ROW} FROM delivery WHERE due IS NOT NULL AND due <= ? ORDER BY due LIMIT ?"
NEXT_DUE = "SELECT due FROM delivery WHERE due IS NOT NULL ORDER BY due LIMIT 1"
ENVELOPE_AT = (
    "SELECT coalesce(envelope, (SELECT envelope FROM shared WHERE n = delivery.shared)) FROM delivery WHERE place = ?"
)

# ── ids that rise ────────────────────────────────────────────────────────────────────────────────
# Above the `floor` of a lane, the highest head it ever had under its present numbers, deliveries that are not in the
# index of ids rise. Milestones stand at most `rising.SPACING` places apart, and from the floor and the last place.
MILESTONE = "INSERT INTO milestone VALUES(?, ?)"
PASSED = "DELETE FROM milestone WHERE place > ? AND place <= ? RETURNING id"
NONE_BELOW = f"UPDATE milestone SET id = x'' WHERE place >> {SEQ_BITS} = ? AND id = ?"
"""Nothing stands in the order at or below these places any more."""
LAST_MILESTONE = "SELECT place, id FROM milestone WHERE place > ? AND place <= ? ORDER BY place DESC LIMIT 1"
LAST_IN_ORDER = (
    f"SELECT id FROM delivery WHERE place > ? AND place <= ? AND flags & {UNORDERED} = 0 ORDER BY place DESC LIMIT 1"
)
_below, _above = stones_around("lane", SEQ_BITS)
BY_ORDER = (
    f"SELECT {_ROW} FROM lane CROSS JOIN delivery ON place > max((lane.lane << {SEQ_BITS}) + {HALF} + lane.floor, "
    f"ifnull({_below}, 0)) AND place <= ifnull({_above}, lane.lane << {SEQ_BITS} | {MASK}) "
    f"WHERE lane.lane <= {RISING} AND id = ?1 AND flags & {LISTED} = 0"
)
END_OF_NUMBER = (
    f"SELECT lane.lane, last + {_NEW}, ifnull(tail.total, lane.total), floor, tail.id, tail.flags FROM lane {_TAIL} "
    "WHERE lane.lane = ?"
)

# ── shared envelopes ─────────────────────────────────────────────────────────────────────────────
SHARE = "INSERT INTO shared(refs, envelope) VALUES(?, ?) RETURNING n"
UNSHARE = "UPDATE shared SET refs = refs - ? WHERE n = ?"
UNSHARE_DROP = "DELETE FROM shared WHERE n = ? AND refs <= 0"

# ── ended deliveries ─────────────────────────────────────────────────────────────────────────────
END = (
    "INSERT INTO ended(id, lane, seq, state, at, born, forget, flags, size, expires, reason, result, result_type, "
    f"shared, fingerprint, envelope) SELECT id, place >> {SEQ_BITS}, max(0, (place & {MASK}) - {HALF}), ?2, ?3, born, "
    "?4, flags, size, expires, ?5, ?6, ?7, CASE WHEN ?8 THEN shared END, fingerprint, "
    "CASE WHEN ?8 THEN envelope END "
    "FROM delivery WHERE place = ?1"
)
_ENDED = (
    "n, id, lane, seq, state, at, flags, size, reason, result, result_type, shared, envelope IS NOT NULL, born, forget"
)
ENDED_PAGE = f"SELECT {_ENDED} FROM ended WHERE n > ? AND state <> '' ORDER BY n LIMIT ?"
ENDED_BY_ID = f"SELECT {_ENDED} FROM ended WHERE id = ? AND state <> ''"
ENDED_IN_LANE = f"SELECT {_ENDED} FROM ended WHERE lane = ? AND seq > ? AND seq <= ? AND seq > 0 ORDER BY seq"
ENDED_AT = "SELECT id FROM ended WHERE lane = ? AND seq = ? AND seq > 0 AND state <> ''"
ENDED_FINGERPRINTS = "SELECT lane, fingerprint FROM ended WHERE id = ?"
ENDED_ENVELOPE = (
    "SELECT coalesce(envelope, (SELECT envelope FROM shared WHERE n = ended.shared)) FROM ended WHERE id = ? LIMIT 1"
)
UNPLACE = f"UPDATE ended SET seq = seq - {1 << 62} WHERE lane = ? AND seq > 0"
"""They have no number any more (none is below 1), but keep their order for a redrive."""
REVISE = "UPDATE ended SET state = ?2, at = ?3, forget = ?4, reason = ?5, result = ?6, result_type = ?7 WHERE n = ?1"
FORGET = "DELETE FROM ended WHERE n = ?"
WIPE = "UPDATE ended SET state = '', reason = '', result = NULL, shared = NULL, envelope = NULL WHERE n = ?"
"""A record with an own id leaves the id behind: wiping must not open the door to duplicates."""
FORGETTABLE = "SELECT n, lane, state, shared FROM ended WHERE forget <= ? ORDER BY forget LIMIT ?"
NEXT_FORGET = "SELECT forget FROM ended ORDER BY forget LIMIT 1"
RETURN = (
    "INSERT INTO delivery SELECT ?2, id, ?3, (flags | ?4), size, CASE WHEN expires IS NULL THEN NULL ELSE "
    "?3 + expires - born END, CASE WHEN expires IS NULL THEN NULL ELSE ?3 + expires - born END, shared, fingerprint, "
    "0, envelope FROM ended WHERE n = ?1"
)
RETURN_AS_BORN = (
    "INSERT INTO delivery SELECT ?2, id, born, (flags | ?3), size, expires, expires, shared, fingerprint, 0, envelope "
    "FROM ended WHERE n = ?1"
)
TALLY = "INSERT INTO tally VALUES(?, ?, ?) ON CONFLICT(lane, state) DO UPDATE SET n = n + excluded.n"
TALLIES = "SELECT lane, state, n FROM tally WHERE n > 0"

# ── peers ────────────────────────────────────────────────────────────────────────────────────────
PEERS = "SELECT name, held, reason, log, cursor FROM peer"
PEER = "SELECT held, reason, log, cursor FROM peer WHERE name = ?"
HOLD = (
    "INSERT INTO peer(name, held, reason) VALUES(?, 1, ?) ON CONFLICT(name) DO UPDATE "
    "SET held = 1, reason = excluded.reason"
)
RELEASE = "UPDATE peer SET held = 0, reason = '' WHERE name = ?"
CURSOR = (
    "INSERT INTO peer(name, log, cursor) VALUES(?, ?, ?) ON CONFLICT(name) DO UPDATE SET cursor = CASE WHEN log IS "
    "excluded.log THEN max(cursor, excluded.cursor) ELSE excluded.cursor END, log = excluded.log"
)


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
