"""Every statement of the inbox, and how positions are written down.

Owns the SQL; a test explains the plan of each statement and refuses scans of tables that grow.
Must not know values or rules.

A message's ``place`` is one integer: its queue (channel and priority) and its number packed
together, so that the table itself is the queue. ``frontier`` is the number up to which a queue was
given out; what stands after it is ready unless it is PARKED. Only exceptions (returned, delayed,
blocked, ended) have a row in a table of their own, so the common way costs no second index.
"""

# ruff: noqa: S608 -- statements are put together here from constants of this file only

from dropr_storage_sqlite.engine.rising import RISING, stones_around

N_BITS = 44
MASK = (1 << N_BITS) - 1
MAX_QUEUE = (1 << (63 - N_BITS)) - 2

RECEIPT, DUPLICATE, PARKED, KEYED, DATED, EMPTIED, RANKED, APART = 1, 2, 4, 8, 16, 32, 64, 128

STORE = "SELECT value FROM meta WHERE key = 'store'"
LAST = "SELECT value FROM meta WHERE key = 'last'"
NUMBERS = "UPDATE meta SET value = value + ? WHERE key = 'last' RETURNING value"

# ── heads, senders, queues ───────────────────────────────────────────────────────────────────────
HEAD = "SELECT seq, id FROM source WHERE sender = ? AND store = ? AND channel = ? AND priority = ?"
SET_HEAD = "INSERT OR REPLACE INTO source VALUES(?, ?, ?, ?, ?, ?)"
HEADS = "SELECT sender, store, channel, priority, seq, id FROM source WHERE sender = ?"
HEADS_OF_STORE = HEADS + " AND store = ?"
SET_STORE = "UPDATE meta SET value = ? WHERE key = 'store'"
SENDER = "SELECT sender FROM sender WHERE name = ?"
SENDER_LOG = "SELECT sender, last FROM sender WHERE name = ?"
SENDER_NAME = "SELECT name FROM sender WHERE sender = ?"
NEW_SENDER = "INSERT INTO sender(name) VALUES(?) RETURNING sender"
SENDERS = "SELECT sender, last FROM sender"
_QUEUE = "queue, channel, priority, frontier, ready, delayed, leased, blocked, buried, done, bytes, processed, expired"
QUEUE = f"SELECT {_QUEUE} FROM queue WHERE channel = ? AND priority = ?"
QUEUE_BY_NUMBER = f"SELECT {_QUEUE} FROM queue WHERE queue = ?"
QUEUES_OF = f"SELECT {_QUEUE} FROM queue WHERE channel = ? ORDER BY priority"
QUEUES = f"SELECT {_QUEUE} FROM queue"
NEW_QUEUE = f"INSERT INTO queue(channel, priority) VALUES(?, ?) RETURNING {_QUEUE}"
ADVANCE = "UPDATE queue SET frontier = ? WHERE queue = ?"
LEASED = "UPDATE queue SET frontier = ?1, ready = ready - ?2, leased = leased + ?2 WHERE queue = ?3"
COUNT = (
    "UPDATE queue SET ready = ready + ?, delayed = delayed + ?, leased = leased + ?, blocked = blocked + ?, "
    "buried = buried + ?, done = done + ?, bytes = bytes + ?, processed = processed + ?, expired = expired + ? "
    "WHERE queue = ?"
)
TOTAL = "SELECT total(ready + delayed + leased + blocked), total(bytes) FROM queue"
TOTAL_OF_CHANNEL = "SELECT total(ready + delayed + leased + blocked), total(bytes) FROM queue WHERE channel = ?"

# ── messages ─────────────────────────────────────────────────────────────────────────────────────
INSERT = "INSERT INTO message VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_PLAIN = "INSERT INTO message VALUES(?4, ?5, ?1, ?2, ?3, ?6, NULL, NULL, ?7)"
FRESH = (
    "SELECT place, id, sender, arrived, flags, expires, envelope, 0, '', NULL FROM message "
    f"WHERE place > ? AND place <= ? AND flags & {PARKED} = 0 ORDER BY place LIMIT ?"
)
_ready = (
    "SELECT ready.place, id, sender, arrived, flags, expires, envelope, attempts, reason, rank FROM ready "
    f"CROSS JOIN message USING(place) WHERE ready.place >> {N_BITS} = ? AND "
)
RETURNED = _ready + "rank IS NULL ORDER BY ready.place LIMIT ?"
BY_RANK = _ready + "rank >= 0 ORDER BY rank, ready.place LIMIT ?"
FIRST_PLACE = (
    f"SELECT place FROM message WHERE place > ? AND place <= ? AND flags & {PARKED} = 0 ORDER BY place LIMIT 1"
)
FRESH_PLAIN = (
    "SELECT place, id, sender, arrived, flags, envelope FROM message "
    f"WHERE place > ?2 AND place <= ?3 AND flags & {PARKED} = 0 ORDER BY place "
    "LIMIT iif((SELECT expires FROM expiry ORDER BY expires LIMIT 1) IS NULL AND "
    f"(SELECT place FROM ready WHERE place >> {N_BITS} = ?1 AND rank IS NULL ORDER BY place LIMIT 1) IS NULL, ?4, 0)"
)
"""Nothing where anything may expire, or was returned to this queue."""
RETURNED_PLACE = f"SELECT place FROM ready WHERE place >> {N_BITS} = ? AND rank IS NULL ORDER BY place LIMIT 1"
RANKED_PLACE = f"SELECT place FROM ready WHERE place >> {N_BITS} = ? AND rank >= 0 ORDER BY rank, place LIMIT 1"
FIRST_FRESH = (
    f"SELECT arrived FROM message WHERE place > ? AND place <= ? AND flags & {PARKED} = 0 ORDER BY place LIMIT 1"
)
FIRST_RETURNED = (
    "SELECT arrived FROM ready CROSS JOIN message USING(place) WHERE place > ? AND place <= ? ORDER BY place LIMIT 1"
)
_MESSAGE = "place, id, sender, arrived, flags, size, key, expires"
MESSAGE = f"SELECT {_MESSAGE} FROM message WHERE place = ?"
BY_NUMBER = f"SELECT {_MESSAGE} FROM queue CROSS JOIN message ON message.place = queue.queue << {N_BITS} | ? LIMIT 1"
"""A look-up for each queue, none of them in what waits there."""
OF_CHANNEL = (
    f"SELECT {_MESSAGE} FROM queue CROSS JOIN message ON place = queue << {N_BITS} | ?2 WHERE channel = ?1 LIMIT 1"
)
MESSAGES = f"SELECT {_MESSAGE} FROM message WHERE place > ? AND place <= ? ORDER BY place LIMIT ?"
ENVELOPE_AT = "SELECT envelope FROM message WHERE place = ?"
PARK = f"UPDATE message SET flags = flags | {PARKED} WHERE place = ?"
EMPTY = f"UPDATE message SET flags = flags | {EMPTIED}, envelope = zeroblob(0) WHERE place = ?"
MOVE = "UPDATE message SET place = ?, flags = ? WHERE place = ?"
RANK = "INSERT OR REPLACE INTO ranked VALUES(?, ?)"
UNRANK = "DELETE FROM ranked WHERE place = ?"
UNRANK_RANGE = "DELETE FROM ranked WHERE place >= ? AND place <= ?"
RANK_AT = "SELECT rank FROM ranked WHERE place = ?"
REMOVE = "DELETE FROM message WHERE place = ?"
REMOVE_RANGE = "DELETE FROM message WHERE place >= ? AND place <= ?"

# ── ids ──────────────────────────────────────────────────────────────────────────────────────────
# In a queue messages that are not in the index of ids rise (`engine.rising`). Milestones stand there with at most
# `rising.SPACING` messages between two of them, before the first and behind the last one.
BY_ID = f"SELECT {_MESSAGE} FROM message WHERE id = ? AND flags & {APART} <> 0"
_below, _above = stones_around("queue", N_BITS)
_IN_ORDER = (
    f"FROM queue CROSS JOIN message ON place > ifnull({_below}, queue.queue << {N_BITS}) AND "
    f"place <= ifnull({_above}, queue.queue << {N_BITS} | {MASK}) "
    f"WHERE queue.queue <= {RISING} AND id = ?1 AND flags & {APART} = 0"
)
BY_ORDER = f"SELECT {_MESSAGE} {_IN_ORDER}"
_IS_SAME = (
    "envelope = ?2 AND NOT EXISTS (SELECT 1 FROM ended WHERE ended.place = message.place AND state <> 'done') LIMIT 1"
)
SAME = f"SELECT place FROM message WHERE id = ?1 AND flags & {APART} <> 0 AND {_IS_SAME}"
SAME_IN_ORDER = f"SELECT place {_IN_ORDER} AND queue.queue = ?3 AND {_IS_SAME}"
"""A buried copy does not count: its sender was told that it failed, and sends it again on purpose."""
MILESTONE = "INSERT INTO milestone VALUES(?, ?)"
MARK = "INSERT OR IGNORE INTO milestone VALUES(?, ?)"
_PLACES = f"place > {{}} AND place <= (queue.queue << {N_BITS} | {MASK}) ORDER BY place DESC LIMIT 1"
QUEUE_END = (
    f"SELECT {_QUEUE}, m.place, m.id, tail.id, tail.flags FROM queue LEFT JOIN milestone AS m ON m.place = "
    f"(SELECT place FROM milestone WHERE {_PLACES.format(f'(queue.queue << {N_BITS})')}) "
    "LEFT JOIN message AS tail ON tail.place = "
    f"(SELECT place FROM message WHERE {_PLACES.format(f'ifnull(m.place, queue.queue << {N_BITS})')}) "
    "WHERE channel = ? AND priority = ?"
)
"""With its last milestone, and with the last message if that stands behind it."""
LAST_MILESTONE = "SELECT place, id FROM milestone WHERE place > ? AND place <= ? ORDER BY place DESC LIMIT 1"
ANY_PLACE = "SELECT place FROM message WHERE place > ? AND place <= ? ORDER BY place LIMIT 1"
LAST_IN_ORDER = (
    f"SELECT id FROM message WHERE place > ? AND place <= ? AND flags & {APART} = 0 ORDER BY place DESC LIMIT 1"
)
COUNT_TO = "SELECT count(*) FROM (SELECT 1 FROM message WHERE place > ? AND place <= ? LIMIT ?)"
SWEPT = (
    f"SELECT swept, (SELECT flags FROM message WHERE place > (queue.queue << {N_BITS} | frontier) AND "
    f"place <= (queue.queue << {N_BITS} | {MASK}) ORDER BY place LIMIT 1) FROM queue WHERE queue = ?"
)
"""And the flags of the first message that consumers have not passed."""
SET_SWEPT = "UPDATE queue SET swept = ? WHERE queue = ?"
NEXT_MILESTONES = "SELECT place FROM milestone WHERE place > ? AND place <= ? ORDER BY place LIMIT ?"
CLEAR = (
    "DELETE FROM milestone WHERE place > ?1 AND place <= ?2 AND NOT EXISTS (SELECT 1 FROM message WHERE "
    f"message.place <= milestone.place AND message.place > max(milestone.place >> {N_BITS} << {N_BITS}, "
    "ifnull((SELECT m.place FROM milestone AS m WHERE m.place < milestone.place ORDER BY m.place DESC LIMIT 1), 0)))"
)
"""Those with nothing between them and the one before."""
CLEAR_QUEUE = "DELETE FROM milestone WHERE place > ? AND place <= ?"

# ── states ───────────────────────────────────────────────────────────────────────────────────────
READY = "INSERT INTO ready VALUES(?1, ?2, ?3, (SELECT rank FROM ranked WHERE place = ?1))"
READY_RANKED = "INSERT INTO ready VALUES(?, 0, '', ?)"
READY_AT = "SELECT attempts, reason FROM ready WHERE place = ?"
UNREADY = "DELETE FROM ready WHERE place = ?"
DELAY = "INSERT INTO delayed VALUES(?, ?, ?, ?, ?)"
DELAYED_AT = "SELECT attempts, reason, due FROM delayed WHERE place = ?"
DELAYED_IN = "SELECT place FROM delayed WHERE place > ? AND place <= ? ORDER BY place LIMIT ?"
DELAYED_DUE = "SELECT place, attempts, reason FROM delayed WHERE queue = ? AND due <= ? ORDER BY due LIMIT ?"
FIRST_DELAYED = "SELECT place, due FROM delayed WHERE queue = ? ORDER BY due LIMIT 1"
NEXT_DELAYED = "SELECT due FROM delayed WHERE queue = ? ORDER BY due LIMIT 1"
UNDELAY = "DELETE FROM delayed WHERE place = ?"
LEASE = "INSERT INTO lease VALUES(?, ?, ?, ?, ?, ?)"
LEASE_FRESH = (
    "INSERT INTO lease SELECT place, ?, ?, 1, flags, '' FROM message "
    f"WHERE place > ? AND place <= ? AND flags & {PARKED} = 0"
)
LEASE_AT = "SELECT attempts, reason, consumer, token FROM lease WHERE place = ?"
LEASES_IN = "SELECT place FROM lease WHERE place > ? AND place <= ? ORDER BY place LIMIT ?"
LEASES_OF = "SELECT place, attempts, token, reason FROM lease WHERE consumer = ? ORDER BY place"
HELD = "SELECT place, attempts, flags, reason, consumer FROM lease WHERE place >= ? AND place <= ? AND token = ?"
HELD_SUM = (
    f"SELECT count(*), total(flags & {RECEIPT | KEYED} <> 0), max(consumer), max(flags & {RANKED}) FROM lease "
    "WHERE place >= ? AND place <= ? AND token = ?"
)
UNLEASE = "DELETE FROM lease WHERE place = ?"
UNLEASE_RANGE = "DELETE FROM lease WHERE place >= ? AND place <= ? AND token = ?"
END = "INSERT OR REPLACE INTO ended VALUES(?, ?, ?, ?, ?, ?)"
ENDED_AT = "SELECT state, at, attempts, reason, forget FROM ended WHERE place = ?"
ENDED_IN = "SELECT place FROM ended WHERE place > ? AND place <= ? ORDER BY place LIMIT ?"
BURIED_IN = "SELECT place FROM ended WHERE place > ? AND place <= ? AND state = 'buried' ORDER BY place LIMIT ?"
UNEND = "DELETE FROM ended WHERE place = ?"
FORGETTABLE = "SELECT place FROM ended WHERE forget <= ? ORDER BY forget LIMIT ?"
NEXT_FORGET = "SELECT forget FROM ended ORDER BY forget LIMIT 1"
EXPIRE = "INSERT OR IGNORE INTO expiry VALUES(?, ?)"
UNEXPIRE = "DELETE FROM expiry WHERE expires = ? AND place = ?"
EXPIRED = "SELECT place FROM expiry WHERE expires <= ? ORDER BY expires LIMIT ?"
NEXT_EXPIRED = "SELECT expires FROM expiry ORDER BY expires LIMIT 1"

# ── ordering keys ────────────────────────────────────────────────────────────────────────────────
HOLDER = "SELECT place FROM holder WHERE channel = ? AND key = ?"
MOVE_HOLDER = "UPDATE holder SET place = ? WHERE channel = ? AND key = ? AND place = ?"
SET_HOLDER = "INSERT OR REPLACE INTO holder VALUES(?, ?, ?)"
NO_HOLDER = "DELETE FROM holder WHERE channel = ? AND key = ?"
BLOCK = "INSERT INTO blocked VALUES(?, ?, ?, ?, ?)"
BLOCKED_AT = "SELECT due FROM blocked WHERE channel = ? AND key = ? AND n = ?"
NEXT_BLOCKED = "SELECT n, place, due FROM blocked WHERE channel = ? AND key = ? ORDER BY n LIMIT 1"
UNBLOCK = "DELETE FROM blocked WHERE channel = ? AND key = ? AND n = ?"

# ── consumers and outcomes ───────────────────────────────────────────────────────────────────────
CONSUMER = "SELECT consumer FROM consumer WHERE name = ?"
NEW_CONSUMER = "INSERT INTO consumer(name) VALUES(?) RETURNING consumer"
CONSUMER_NAME = "SELECT name FROM consumer WHERE consumer = ?"
CONSUMERS = "SELECT consumer, name, leases FROM consumer"
HOLDERS = "SELECT name FROM consumer WHERE leases <> 0"
LEASES = "UPDATE consumer SET leases = leases + ? WHERE consumer = ?"
LEASES_OF_NAME = "UPDATE consumer SET leases = leases + ? WHERE name = ? RETURNING consumer"
NO_CONSUMER = "DELETE FROM consumer WHERE consumer = ?"
NUMBER = "UPDATE sender SET last = last + ? WHERE sender = ? RETURNING last"
OUTCOME = "INSERT INTO outcome VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
OUTCOMES = (
    "SELECT number, id, state, reason, result, type FROM outcome WHERE sender = ? AND number > ? "
    "ORDER BY number LIMIT ?"
)
OUTCOMES_KNOWN = "DELETE FROM outcome WHERE sender = ? AND number <= ?"
OLDEST_OUTCOME = "SELECT number, at FROM outcome WHERE sender = ? ORDER BY number LIMIT ?"


def pack(queue: int, number: int) -> int:
    """The place of a message."""
    return (queue << N_BITS) | number


def unpack(place: int) -> tuple[int, int]:
    """(queue, number) of a place."""
    return place >> N_BITS, place & MASK
