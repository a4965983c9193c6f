"""How messages enter the inbox, as SQL.

Owns `in_accept`: the log-matching rule and the rows of new messages; `in_mark`: by what a put is known later whose
answer was lost; `in_push` and `in_put_plain`, the same for plain messages of one lane or caller, where nothing else is
new. Must not know Python.
"""

# ruff: noqa: S608 -- put together here from constants of this module only

ACCEPT = """
CREATE FUNCTION in_queue_of(c text, p smallint) RETURNS integer LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE found integer;
BEGIN
  SELECT queue INTO found FROM in_queue WHERE channel = c AND priority = p;
  IF found IS NULL THEN
    INSERT INTO in_queue(channel, priority) VALUES (c, p) ON CONFLICT DO NOTHING;
    SELECT queue INTO found FROM in_queue WHERE channel = c AND priority = p;
    UPDATE in_queue SET frontier = found::bigint << 44 WHERE queue = found AND frontier = 0;
  END IF;
  RETURN found;
END $$;

CREATE FUNCTION in_sender_of(n text) RETURNS integer LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE found integer;
BEGIN
  SELECT sender INTO found FROM in_sender WHERE name = n;
  IF found IS NULL THEN
    INSERT INTO in_sender(name) VALUES (n) ON CONFLICT DO NOTHING;
    SELECT sender INTO found FROM in_sender WHERE name = n;
  END IF;
  RETURN found;
END $$;

CREATE FUNCTION in_accept(
  a_sender text[], a_store bytea[], a_channel text[], a_priority smallint[], a_queue smallint[], a_after bigint[],
  a_after_id bytea[], a_upto bigint[], a_upto_id bytea[], a_count integer[], a_bytes bigint[],
  a_flags smallint[], e_arrival integer[], e_flags smallint[], e_id bytea[], e_envelope bytea[],
  s_entry integer[], s_key bytea[], s_due double precision[], s_expires double precision[], s_rank bigint[],
  start bytea, at double precision,
  OUT taken boolean[], OUT seqs bigint[], OUT ids bytea[], OUT base bigint, OUT standing bigint[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  n integer := coalesce(array_length(a_channel, 1), 0);
  total integer := coalesce(array_length(e_id, 1), 0);
  specials integer := coalesce(array_length(s_entry, 1), 0);
  queues integer[]; senders integer[]; plain boolean[]; skipped boolean[]; nums bigint[];
  q integer; who integer; seq bigint; head bytea; i integer; e integer; p bigint; st smallint; kept bigint;
  due double precision;
BEGIN
  PERFORM pg_advisory_xact_lock('in_job'::regclass::oid::integer, 1);
  FOR i IN 1..n LOOP
    taken[i] := true;
    IF a_store[i] IS NOT NULL THEN
      SELECT sequence, id INTO seq, head FROM in_source
        WHERE sender = a_sender[i] AND store = a_store[i] AND channel = a_channel[i] AND priority = a_priority[i];
      IF NOT FOUND THEN
        seq := 0; head := start;
      END IF;
      taken[i] := seq = a_after[i] AND head = a_after_id[i];
      IF taken[i] THEN
        seqs[i] := a_upto[i]; ids[i] := a_upto_id[i];
      ELSE
        seqs[i] := seq; ids[i] := head;
      END IF;
    END IF;
    queues[i] := 0; senders[i] := 0;
    IF taken[i] AND a_count[i] > 0 THEN
      queues[i] := in_queue_of(a_channel[i], a_queue[i]);
      senders[i] := in_sender_of(a_sender[i]);
    END IF;
    IF taken[i] AND a_store[i] IS NOT NULL THEN
      INSERT INTO in_source VALUES (a_sender[i], a_store[i], a_channel[i], a_priority[i], a_upto[i], a_upto_id[i],
          nullif(queues[i], 0), nullif(senders[i], 0))
        ON CONFLICT (sender, store, channel, priority) DO UPDATE SET sequence = a_upto[i], id = a_upto_id[i],
          queue = coalesce(excluded.queue, in_source.queue), number = coalesce(excluded.number, in_source.number);
    END IF;
  END LOOP;
  IF total = 0 THEN
    RETURN;
  END IF;
  IF e_arrival IS NULL AND (n > 1 OR NOT taken[1]) THEN
    e_arrival := ARRAY(SELECT v.o FROM unnest(a_count) WITH ORDINALITY v(c, o), generate_series(1, v.c) ORDER BY v.o);
    e_flags := ARRAY(SELECT a_flags[v] FROM unnest(e_arrival) WITH ORDINALITY w(v, o) ORDER BY w.o);
  END IF;
  IF specials = 0 AND NOT false = ANY(taken) THEN
    base := setval('in_number', nextval('in_number') + total - 1) - total;
    IF e_arrival IS NULL AND n = 1 THEN
      p := (queues[1]::bigint << 44) + base; who := senders[1]; st := a_flags[1];
      INSERT INTO in_job(place, arrived, sender, size, flags, id, envelope)
        SELECT p + v.o, at, who, length(v.body), st, v.id, v.body
        FROM unnest(e_id, e_envelope) WITH ORDINALITY v(id, body, o);
    ELSE
      INSERT INTO in_job(place, arrived, sender, size, flags, id, envelope)
        SELECT (queues[v.a]::bigint << 44) + base + v.o, at, senders[v.a], length(v.body), v.f, v.id, v.body
        FROM unnest(e_arrival, e_flags, e_id, e_envelope) WITH ORDINALITY v(a, f, id, body, o);
    END IF;
    INSERT INTO in_tally(queue, ready, bytes) SELECT v.q, sum(v.c), sum(v.b)
      FROM unnest(queues, a_count, a_bytes) v(q, c, b) WHERE v.q > 0 GROUP BY v.q;
    RETURN;
  END IF;
  -- Who needs a number: not what was refused, nor what stands here already, also from earlier in this call.
  plain := array_fill(true, ARRAY[total]);
  skipped := array_fill(false, ARRAY[total]);
  FOR i IN 1..specials LOOP
    e := s_entry[i];
    plain[e] := false;
    CONTINUE WHEN e_flags[e] & 2 = 0 OR queues[e_arrival[e]] = 0;
    SELECT place & 17592186044415 INTO kept FROM in_job
      WHERE id = e_id[e] AND envelope = e_envelope[e] AND state NOT IN (5, 7) LIMIT 1;
    IF kept IS NULL THEN
      SELECT -min(v.o) INTO kept FROM unnest(e_id, e_envelope, e_arrival) WITH ORDINALITY v(id, body, a, o)
        WHERE v.o < e AND v.id = e_id[e] AND v.body = e_envelope[e] AND queues[v.a] > 0;
    END IF;
    IF kept IS NOT NULL THEN
      skipped[e] := true;
      standing := coalesce(standing, ARRAY[]::bigint[]) || ARRAY[e::bigint, kept];
    END IF;
  END LOOP;
  n := 0;
  FOR e IN 1..total LOOP
    IF queues[e_arrival[e]] > 0 AND NOT skipped[e] THEN
      n := n + 1;
      nums[e] := n;
    ELSE
      nums[e] := 0;
    END IF;
  END LOOP;
  IF n = 0 THEN
    base := 0;
    RETURN;
  END IF;
  base := setval('in_number', nextval('in_number') + n - 1) - n;
  INSERT INTO in_job(place, arrived, sender, size, flags, id, envelope)
    SELECT (queues[v.a]::bigint << 44) + base + v.n, at, senders[v.a], length(v.body), v.f, v.id, v.body
    FROM unnest(e_arrival, e_flags, e_id, e_envelope, nums) WITH ORDINALITY v(a, f, id, body, n, o)
    WHERE v.n > 0 AND plain[v.o];
  INSERT INTO in_tally(queue, ready, bytes) SELECT queues[v.a], count(*), sum(length(v.body))
    FROM unnest(e_arrival, e_envelope, nums) WITH ORDINALITY v(a, body, n, o) WHERE v.n > 0 AND plain[v.o] GROUP BY 1;
  FOR i IN 1..specials LOOP
    e := s_entry[i]; q := queues[e_arrival[e]];
    CONTINUE WHEN nums[e] = 0;
    p := (q::bigint << 44) + base + nums[e];
    due := s_due[i];
    st := CASE WHEN due IS NOT NULL THEN 2 WHEN s_rank[i] IS NOT NULL THEN 1 ELSE 0 END;
    IF s_key[i] IS NOT NULL THEN
      PERFORM pg_advisory_xact_lock('in_job'::regclass::oid::integer, 2);
      INSERT INTO in_holder VALUES (a_channel[e_arrival[e]], s_key[i], p) ON CONFLICT DO NOTHING;
      IF NOT FOUND THEN
        st := 3;
      END IF;
    END IF;
    INSERT INTO in_job(place, arrived, expires, due, rank, sender, size, state, flags, id, key, envelope)
      VALUES (p, at, s_expires[i], due, s_rank[i], senders[e_arrival[e]], length(e_envelope[e]), st, e_flags[e],
              e_id[e], s_key[i], e_envelope[e]);
    PERFORM in_count(q, st, 1);
    INSERT INTO in_tally(queue, bytes) VALUES (q, length(e_envelope[e]));
  END LOOP;
END $$;

CREATE FUNCTION in_mark(a_putter bigint, a_mark bigint, a_base bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE in_put SET mark = a_mark, base = a_base, at = now() WHERE putter = a_putter;
  IF NOT FOUND THEN
    DELETE FROM in_put WHERE at < now() - interval '1 day';
    INSERT INTO in_put VALUES (a_putter, a_mark, a_base, now());
  END IF;
END $$;
"""

_ENTER = """
  base := setval('in_number', nextval('in_number') + count - 1) - count;
  place := (q::bigint << 44) + base;
  IF count = 1 THEN
    INSERT INTO in_job(place, arrived, sender, size, flags, id, envelope)
      VALUES (place + 1, at, who, length(envelopes[1]), flags, ids[1], envelopes[1]);
  ELSE
    INSERT INTO in_job(place, arrived, sender, size, flags, id, envelope)
      SELECT place + v.o, at, who, length(v.body), flags, v.id, v.body
      FROM unnest(ids, envelopes) WITH ORDINALITY v(id, body, o);
  END IF;
  INSERT INTO in_tally(queue, ready, bytes) VALUES (q, count, bytes);
"""
PLAIN = f"""
CREATE FUNCTION in_push(
  a_sender text, a_store bytea, a_channel text, a_priority smallint, a_after bigint, a_after_id bytea, a_upto bigint,
  a_upto_id bytea, count integer, bytes bigint, flags smallint, ids bytea[], envelopes bytea[], at double precision)
RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE q integer; who integer; base bigint; place bigint;
BEGIN  -- the number before the first one. NULL: it does not follow, or nothing of this lane was ever taken
  IF pg_advisory_xact_lock('in_job'::regclass::oid::integer, 1) IS NULL THEN
    RETURN NULL;
  END IF;
  UPDATE in_source s SET sequence = a_upto, id = a_upto_id WHERE s.sender = a_sender AND s.store = a_store
    AND s.channel = a_channel AND s.priority = a_priority AND s.sequence = a_after AND s.id = a_after_id
    AND s.queue IS NOT NULL RETURNING s.queue, s.number INTO q, who;
  IF q IS NULL THEN
    RETURN NULL;
  END IF;
{_ENTER}
  RETURN base;
END $$;

CREATE FUNCTION in_put_plain(
  a_sender text, a_channel text, a_priority smallint, a_putter bigint, a_mark bigint, count integer, bytes bigint,
  flags smallint, ids bytea[], envelopes bytea[], at double precision)
RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE q integer; who integer; base bigint; place bigint;
BEGIN  -- NULL: queue, sender or putter are new. `in_mark` removes putters of a day ago, but none of half a day
  IF pg_advisory_xact_lock('in_job'::regclass::oid::integer, 1) IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT t.queue, s.sender INTO q, who FROM in_queue t, in_sender s, in_put p
    WHERE t.channel = a_channel AND t.priority = a_priority AND s.name = a_sender
    AND p.putter = a_putter AND p.at > now() - interval '12 hours';
  IF q IS NULL THEN
    RETURN NULL;
  END IF;
{_ENTER}
  UPDATE in_put p SET mark = a_mark, base = base, at = now() WHERE p.putter = a_putter;
  RETURN base;
END $$;
"""
