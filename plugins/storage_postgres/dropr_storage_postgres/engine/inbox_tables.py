"""The inbox's tables, indexes and counters, as SQL.

Owns what stands where; the other modules `inbox_*` have the functions that change it, each of which is one statement
for its caller: no lock is ever held while a program somewhere thinks, or dies. Must not know Python.

A message's ``place`` is its queue (channel and priority) and its number, packed into one integer, so that the table in
the order of its key is the queue. ``queue.frontier`` is the place up to which it was given out. A plain message is
written once and removed once: what stands behind the frontier is leased, what stands after it is ready, and neither
needs a change of its row. So a claim reads forward from the frontier, and never walks over what was removed before,
whether it has been vacuumed or not. Only exceptions (given back, delayed, blocked, ranked, ended, mortal) are changed
where they stand, and are found by indexes that hold nothing else.

Numbers come from a sequence under one advisory lock, which every writer of new messages holds until it has committed:
what commits later stands further on, or messages could appear behind a frontier that has passed them.
"""

N_BITS = 44
MASK = (1 << N_BITS) - 1
MAX_QUEUE = (1 << (63 - N_BITS)) - 2

RECEIPT, DUPLICATE, EMPTIED = 1, 2, 4
FRESH, READY, DELAYED, BLOCKED, LEASED, BURIED, DONE, EXPIRED = range(8)
"""What ``job.state`` may be. FRESH: as it arrived, which is ready after the frontier and leased behind it."""

ARRIVING, KEYS = 1, 2
"""Advisory locks of the class of table ``job``: of who enters messages, and of who moves holders of ordering keys."""

PART = 128
"""Places in one row of ``lease``: it is written anew when one of them is settled by itself."""

TABLES = """
CREATE SEQUENCE in_number AS bigint MAXVALUE 17592186044415;
CREATE TABLE in_queue(
  queue integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (MAXVALUE 524286),
  channel text NOT NULL, priority smallint NOT NULL, frontier bigint NOT NULL DEFAULT 0,
  UNIQUE(channel, priority)) WITH (fillfactor = 50);
CREATE TABLE in_job(
  place bigint PRIMARY KEY, arrived double precision NOT NULL, expires double precision, due double precision,
  ended double precision, rank bigint, sender integer NOT NULL, size integer NOT NULL,
  attempts integer NOT NULL DEFAULT 0, state smallint NOT NULL DEFAULT 0, flags smallint NOT NULL DEFAULT 0,
  id bytea NOT NULL, key bytea, reason text, envelope bytea NOT NULL)
  WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.5);
ALTER TABLE in_job ALTER envelope SET STORAGE EXTERNAL;
CREATE INDEX in_job_id ON in_job(id);
CREATE INDEX in_job_ready ON in_job((place >> 44), rank NULLS FIRST, place) WHERE state = 1;
CREATE INDEX in_job_delayed ON in_job((place >> 44), due, place) WHERE state = 2;
CREATE INDEX in_job_blocked ON in_job(key, (place & 17592186044415)) WHERE state = 3;
CREATE INDEX in_job_state ON in_job(state, place) WHERE state >= 2;
CREATE INDEX in_job_forget ON in_job(due) WHERE state >= 5;
CREATE INDEX in_job_expires ON in_job(expires) WHERE expires IS NOT NULL AND state < 4;
CREATE TABLE in_source(
  sender text NOT NULL, store bytea NOT NULL, channel text NOT NULL, priority smallint NOT NULL,
  sequence bigint NOT NULL, id bytea NOT NULL, queue integer, number integer,
  PRIMARY KEY(sender, store, channel, priority)) WITH (fillfactor = 50);
CREATE TABLE in_sender(
  sender integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, name text NOT NULL UNIQUE, last bigint NOT NULL DEFAULT 0)
  WITH (fillfactor = 50);
CREATE TABLE in_outcome(
  sender integer NOT NULL, number bigint NOT NULL, at double precision NOT NULL, id bytea NOT NULL, state text NOT NULL,
  reason text NOT NULL, result bytea, type text NOT NULL, PRIMARY KEY(sender, number));
CREATE TABLE in_holder(channel text NOT NULL, key bytea NOT NULL, place bigint NOT NULL, PRIMARY KEY(channel, key))
  WITH (fillfactor = 70);
CREATE SEQUENCE in_consumer_number AS integer CYCLE;
CREATE TABLE in_consumer(
  consumer integer PRIMARY KEY, name text NOT NULL UNIQUE, machine text NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp()) WITH (fillfactor = 50);
CREATE TABLE in_lease(token bigint PRIMARY KEY, consumer integer NOT NULL, places bigint[] NOT NULL)
  WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX in_lease_consumer ON in_lease(consumer);
CREATE TABLE in_tally(
  queue integer NOT NULL, ready integer NOT NULL DEFAULT 0, delayed integer NOT NULL DEFAULT 0,
  blocked integer NOT NULL DEFAULT 0, leased integer NOT NULL DEFAULT 0, buried integer NOT NULL DEFAULT 0,
  done integer NOT NULL DEFAULT 0, expired integer NOT NULL DEFAULT 0, bytes bigint NOT NULL DEFAULT 0,
  processed bigint NOT NULL DEFAULT 0, mark bigint);
CREATE TABLE in_folded(at timestamptz NOT NULL, marks bigint[] NOT NULL);
CREATE TABLE in_put(
  putter bigint PRIMARY KEY, mark bigint NOT NULL, base bigint NOT NULL, at timestamptz NOT NULL)
  WITH (fillfactor = 50);
"""
"""``tally`` has what each transaction changed; the sum of a queue's rows is what stands there. Nobody waits for anybody
to write it, and `in_fold` puts many rows into one. ``mark``: of which call, whose answer may be lost; ``folded`` keeps
the marks of rows that are gone for a while."""

COUNTING = """
CREATE FUNCTION in_count(q integer, s smallint, n integer) RETURNS void LANGUAGE sql AS $$
  INSERT INTO in_tally(queue, ready, delayed, blocked, leased, buried, done, expired) VALUES (q,
    CASE WHEN s <= 1 THEN n ELSE 0 END, CASE s WHEN 2 THEN n ELSE 0 END, CASE s WHEN 3 THEN n ELSE 0 END,
    CASE s WHEN 4 THEN n ELSE 0 END, CASE s WHEN 5 THEN n ELSE 0 END, CASE s WHEN 6 THEN n ELSE 0 END,
    CASE s WHEN 7 THEN n ELSE 0 END)
$$;
CREATE FUNCTION in_fold(most bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) FROM (SELECT 1 FROM in_tally LIMIT most + 1) t) <= most
     OR NOT pg_try_advisory_xact_lock('in_tally'::regclass::oid::integer, 0) THEN
    RETURN;
  END IF;
  DELETE FROM in_folded WHERE at < now() - interval '5 minutes';
  WITH gone AS (DELETE FROM in_tally RETURNING *),
  kept AS (INSERT INTO in_folded SELECT now(), array_agg(mark) FROM gone WHERE mark IS NOT NULL HAVING count(*) > 0)
  INSERT INTO in_tally SELECT queue, sum(ready), sum(delayed), sum(blocked), sum(leased), sum(buried), sum(done),
    sum(expired), sum(bytes), sum(processed) FROM gone GROUP BY queue;
END $$;
CREATE FUNCTION in_line(history text, line text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE joined text := history;
BEGIN
  IF coalesce(line, '') <> '' THEN
    joined := CASE WHEN coalesce(history, '') = '' THEN line ELSE history || chr(10) || line END;
    IF length(joined) > 8192 THEN
      joined := right(joined, 8192);
      IF position(chr(10) IN joined) > 0 AND position(chr(10) IN joined) < 8192 THEN
        joined := substr(joined, position(chr(10) IN joined) + 1);
      END IF;
    END IF;
  END IF;
  RETURN joined;
END $$;
"""
