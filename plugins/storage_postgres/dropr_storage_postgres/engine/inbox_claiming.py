"""How consumers get messages, as SQL.

Owns `in_claim`, `in_claim_one`, and what ends with a consumer. Locks are taken in this order by everybody: leases, then
queues by priority and number, then the lock of keys. Must not know Python.

A lease is a row with up to 128 places. Whoever ends one locks its row first: of two who try, one finds nothing.
"""

CLAIM = """
CREATE FUNCTION in_leave(who integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN  -- the row only after claims that are under way, which may leave leases
  PERFORM 1 FROM in_consumer c WHERE c.consumer = who FOR UPDATE;
  IF NOT EXISTS (SELECT 1 FROM in_lease l WHERE l.consumer = who) THEN
    DELETE FROM in_consumer c WHERE c.consumer = who;
  END IF;
  PERFORM pg_advisory_unlock('in_consumer'::regclass::oid::integer, who);
END $$;

CREATE FUNCTION in_alive(who integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN  -- its row, which a reaper removes before it looks for leases; and its lock, which its session must hold
  PERFORM 1 FROM in_consumer c WHERE c.consumer = who FOR KEY SHARE;
  RETURN FOUND AND NOT pg_try_advisory_xact_lock('in_consumer'::regclass::oid::integer, who);
END $$;

CREATE FUNCTION in_bereave(who integer, own boolean) RETURNS TABLE(token bigint, place bigint, attempts integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN  -- own: it is known not to come back; else whoever has its lock keeps it from that. Its row goes first: no claims
  IF NOT own AND NOT pg_try_advisory_xact_lock('in_consumer'::regclass::oid::integer, who) THEN
    RETURN;
  END IF;
  DELETE FROM in_consumer WHERE consumer = who;
  RETURN QUERY SELECT l.token, v.place, j.attempts FROM in_lease l CROSS JOIN LATERAL unnest(l.places) v(place)
    JOIN in_job j ON j.place = v.place WHERE l.consumer = who ORDER BY l.token, v.place & 17592186044415;
END $$;

CREATE FUNCTION in_any(channels text[], at double precision) RETURNS boolean STABLE
LANGUAGE plpgsql AS $$
DECLARE q record;
BEGIN
  FOR q IN SELECT * FROM in_queue t WHERE t.channel = ANY(channels) LOOP
    IF EXISTS (SELECT 1 FROM in_job j WHERE j.place > q.frontier AND j.place <= (q.queue::bigint << 44) + 17592186044415
               AND j.state = 0)
       OR EXISTS (SELECT 1 FROM in_job j WHERE j.place >> 44 = q.queue AND j.state = 1)
       OR EXISTS (SELECT 1 FROM in_job j WHERE j.place >> 44 = q.queue AND j.state = 2 AND j.due <= at) THEN
      RETURN true;
    END IF;
  END LOOP;
  RETURN false;
END $$;

CREATE FUNCTION in_lend(given bigint[], who integer, token bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE i integer; n integer := array_length(given, 1);
BEGIN
  FOR i IN 0..(n - 1) / 128 LOOP
    INSERT INTO in_lease VALUES (token + i, who, given[i * 128 + 1:(i + 1) * 128]);
  END LOOP;
  INSERT INTO in_tally(queue, ready, leased) SELECT p >> 44, -count(*), count(*) FROM unnest(given) p GROUP BY 1;
END $$;

CREATE FUNCTION in_pass(q integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE reached bigint; front bigint;
BEGIN  -- nothing after the frontier is ready as it arrived: whoever looks next need not walk over the rest again
  SELECT t.frontier INTO front FROM in_queue t WHERE t.queue = q FOR UPDATE;
  SELECT max(j.place) INTO reached FROM in_job j WHERE j.place > front AND j.place <= (q::bigint << 44) + 17592186044415
    AND NOT EXISTS (SELECT 1 FROM in_job f WHERE f.place > front AND f.state = 0
                    AND f.place <= (q::bigint << 44) + 17592186044415);
  IF reached IS NOT NULL THEN
    UPDATE in_queue t SET frontier = reached WHERE t.queue = q;
  END IF;
END $$;

CREATE FUNCTION in_claim(
  channels text[], want integer, who integer, base bigint, at double precision, remember double precision, node text,
  again boolean)
RETURNS TABLE(place bigint, lease bigint, id bytea, sender integer, arrived double precision, flags smallint,
              attempts integer, rank bigint, envelope bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE single integer; p bigint; n integer; low bigint; high bigint; mortal boolean;
BEGIN  -- few statements: for a short claim, to begin one costs more than what it does
  IF again THEN
    IF EXISTS (SELECT 1 FROM in_lease l WHERE l.token >= base AND l.token <= base + 1000) THEN
      RETURN QUERY SELECT j.place, l.token, j.id, j.sender, j.arrived, j.flags, j.attempts, j.rank, j.envelope
        FROM in_lease l CROSS JOIN LATERAL unnest(l.places) WITH ORDINALITY v(place, o)
        JOIN in_job j ON j.place = v.place
        WHERE l.token >= base AND l.token <= base + 1000 ORDER BY l.token, v.o;
      RETURN;
    END IF;
  END IF;
  -- The common case: one queue, and in it a stretch of messages that stand as they arrived.
  SELECT q.queue, q.frontier INTO single, p FROM in_consumer c, in_queue q
    WHERE c.consumer = who AND q.channel = ANY(channels)
    AND EXISTS (SELECT 1 FROM in_job j WHERE j.place > q.frontier AND j.state = 0
                AND j.place <= (q.queue::bigint << 44) + 17592186044415)
    AND NOT EXISTS (SELECT 1 FROM in_job j WHERE j.place >> 44 = q.queue AND j.state = 1)
    AND NOT EXISTS (SELECT 1 FROM in_job j WHERE j.place >> 44 = q.queue AND j.state = 2 AND j.due <= at)
    AND (SELECT count(*) FROM in_queue o WHERE o.channel = ANY(channels)) = 1
    FOR KEY SHARE OF c FOR UPDATE OF q;
  IF FOUND AND NOT pg_try_advisory_xact_lock('in_consumer'::regclass::oid::integer, who) THEN
    SELECT count(*), min(f.place), max(f.place), bool_or(f.expires IS NOT NULL) INTO n, low, high, mortal FROM (
      SELECT place, expires FROM in_job WHERE place > p AND state = 0
      AND place <= (single::bigint << 44) + 17592186044415 ORDER BY place LIMIT want) f;
    IF n > 0 AND NOT mortal AND high - low + 1 = n THEN
      UPDATE in_queue SET frontier = high WHERE queue = single;
      FOR i IN 0..(n - 1) / 128 LOOP
        INSERT INTO in_lease VALUES (base + i, who,
          ARRAY(SELECT generate_series(low + i * 128, least(high, low + i * 128 + 127))));
      END LOOP;
      INSERT INTO in_tally(queue, ready, leased) VALUES (single, -n, n);
      RETURN QUERY SELECT j.place, base + (j.place - low) / 128, j.id, j.sender, j.arrived, j.flags, j.attempts,
        j.rank, j.envelope FROM in_job j WHERE j.place >= low AND j.place <= high ORDER BY j.place;
      RETURN;
    END IF;
  END IF;
  RETURN QUERY SELECT * FROM in_claim_any(channels, want, who, base, at, remember, node);
END $$;

CREATE FUNCTION in_claim_any(
  channels text[], want integer, who integer, base bigint, at double precision, remember double precision, node text)
RETURNS TABLE(place bigint, lease bigint, id bytea, sender integer, arrived double precision, flags smallint,
              attempts integer, rank bigint, envelope bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  level smallint := -1; numbers integer[]; fronts bigint[]; room integer; given bigint[] := ARRAY[]::bigint[];
  got bigint[]; news bigint[]; olds bigint[]; dead bigint[]; mortal boolean; tops bigint[]; n integer; p bigint;
  special bigint[] := ARRAY[]::bigint[]; whole boolean := true; busy boolean := false; l record;
BEGIN
  FOR l IN SELECT q.queue,
      EXISTS (SELECT 1 FROM in_job j WHERE j.place > q.frontier
              AND j.place <= (q.queue::bigint << 44) + 17592186044415) AS beyond,
      EXISTS (SELECT 1 FROM in_job j WHERE j.place > q.frontier AND j.state = 0
              AND j.place <= (q.queue::bigint << 44) + 17592186044415)
        OR EXISTS (SELECT 1 FROM in_job j WHERE j.place >> 44 = q.queue AND j.state = 1)
        OR EXISTS (SELECT 1 FROM in_job j WHERE j.place >> 44 = q.queue AND j.state = 2 AND j.due <= at) AS there
      FROM in_queue q WHERE q.channel = ANY(channels) ORDER BY q.priority, q.queue
  LOOP
    IF l.there THEN
      busy := true;
    ELSIF l.beyond THEN
      PERFORM in_pass(l.queue);
    END IF;
  END LOOP;
  IF NOT busy THEN
    RETURN;
  END IF;
  IF NOT in_alive(who) THEN
    RETURN QUERY SELECT -1::bigint, NULL::bigint, NULL::bytea, NULL::integer, NULL::double precision, NULL::smallint,
      NULL::integer, NULL::bigint, NULL::bytea;
    RETURN;
  END IF;
  LOOP
    SELECT min(priority) INTO level FROM in_queue WHERE channel = ANY(channels) AND priority > level;
    EXIT WHEN level IS NULL OR coalesce(array_length(given, 1), 0) >= want;
    SELECT array_agg(q.queue), array_agg(q.frontier) INTO numbers, fronts FROM (
      SELECT queue, frontier FROM in_queue WHERE queue = ANY(ARRAY(
        SELECT queue FROM in_queue WHERE channel = ANY(channels) AND priority = level)) ORDER BY queue FOR UPDATE) q;
    FOR i IN 1..array_length(numbers, 1) LOOP
      WITH due AS (
        UPDATE in_job SET state = 1, due = NULL WHERE place = ANY(ARRAY(
          SELECT place FROM in_job WHERE place >> 44 = numbers[i] AND state = 2 AND due <= at ORDER BY due LIMIT 1000))
        AND state = 2 RETURNING 1)
      INSERT INTO in_tally(queue, ready, delayed) SELECT numbers[i], count(*), -count(*) FROM due HAVING count(*) > 0;
    END LOOP;
    LOOP
      room := want - coalesce(array_length(given, 1), 0);
      EXIT WHEN room <= 0;
      -- One statement, so that what is taken and how far everything reaches are of the same moment.
      IF array_length(numbers, 1) = 1 THEN
        SELECT array_agg(f.place), bool_or(f.expires IS NOT NULL),
               ARRAY[(SELECT max(place) FROM in_job WHERE place > fronts[1]
                      AND place <= (numbers[1]::bigint << 44) + 17592186044415)]
          INTO news, mortal, tops
          FROM (SELECT place, expires FROM in_job WHERE place > fronts[1] AND state = 0
                AND place <= (numbers[1]::bigint << 44) + 17592186044415 ORDER BY place LIMIT room) f;
      ELSE
        WITH fresh AS (
          SELECT f.place, f.expires FROM unnest(numbers, fronts) q(queue, frontier) CROSS JOIN LATERAL (
            SELECT place, expires FROM in_job WHERE place > q.frontier AND state = 0
            AND place <= (q.queue::bigint << 44) + 17592186044415 ORDER BY place LIMIT room) f),
        tops AS (
          SELECT array_agg((SELECT max(place) FROM in_job WHERE place > q.frontier
                            AND place <= (q.queue::bigint << 44) + 17592186044415) ORDER BY q.o) tops
          FROM unnest(numbers, fronts) WITH ORDINALITY q(queue, frontier, o))
        SELECT (SELECT array_agg(place ORDER BY place & 17592186044415) FROM fresh),
               (SELECT bool_or(expires IS NOT NULL) FROM fresh), (SELECT tops FROM tops)
          INTO news, mortal, tops;
      END IF;
      SELECT array_agg(r.place ORDER BY r.place & 17592186044415), bool_or(r.expires IS NOT NULL) OR mortal
        INTO olds, mortal FROM unnest(numbers) q CROSS JOIN LATERAL (
          SELECT place, expires FROM in_job WHERE place >> 44 = q AND state = 1 AND rank IS NULL
          ORDER BY rank NULLS FIRST, place LIMIT room) r;
      got := coalesce(news, ARRAY[]::bigint[]);
      IF olds IS NOT NULL OR array_length(numbers, 1) > 1 THEN
        SELECT array_agg(v ORDER BY o) INTO got FROM (
          SELECT v, v & 17592186044415 o FROM unnest(got || coalesce(olds, ARRAY[]::bigint[])) v
          ORDER BY 2 LIMIT room) m;
        got := coalesce(got, ARRAY[]::bigint[]);
      END IF;
      IF mortal THEN
        SELECT array_agg(place) INTO dead FROM in_job WHERE place = ANY(got) AND expires <= at;
        IF dead IS NOT NULL THEN
          FOREACH p IN ARRAY dead LOOP
            PERFORM in_expire(p, at, remember, node);
          END LOOP;
          CONTINUE;
        END IF;
      END IF;
      n := coalesce(array_length(got, 1), 0);
      FOR i IN 1..array_length(numbers, 1) LOOP
        IF n < room THEN
          p := greatest(tops[i], fronts[i]);
        ELSE
          SELECT greatest(max(v), fronts[i]) INTO p FROM unnest(got) v
            WHERE v > fronts[i] AND v <= (numbers[i]::bigint << 44) + 17592186044415
            AND (olds IS NULL OR v <> ALL(olds));
        END IF;
        IF p > fronts[i] THEN
          UPDATE in_queue SET frontier = p WHERE queue = numbers[i];
          fronts[i] := p;
        END IF;
      END LOOP;
      given := given || got;
      IF olds IS NOT NULL OR mortal THEN
        special := special || got; whole := false;
      END IF;
      EXIT WHEN n < room;
    END LOOP;
    LOOP
      room := want - coalesce(array_length(given, 1), 0);
      EXIT WHEN room <= 0;
      SELECT array_agg(r.place ORDER BY r.rank, r.place & 17592186044415),
             array_agg(r.place) FILTER (WHERE r.expires <= at) INTO got, dead FROM (
        SELECT t.* FROM unnest(numbers) q CROSS JOIN LATERAL (
          SELECT place, rank, expires FROM in_job WHERE place >> 44 = q AND state = 1 AND rank IS NOT NULL
          AND place <> ALL(given) ORDER BY rank, place LIMIT room) t
        ORDER BY t.rank, t.place & 17592186044415 LIMIT room) r;
      EXIT WHEN got IS NULL;
      IF dead IS NOT NULL THEN
        FOREACH p IN ARRAY dead LOOP
          PERFORM in_expire(p, at, remember, node);
        END LOOP;
        CONTINUE;
      END IF;
      given := given || got; special := special || got;
      EXIT;
    END LOOP;
  END LOOP;
  IF coalesce(array_length(given, 1), 0) = 0 THEN
    RETURN;
  END IF;
  IF array_length(special, 1) > 0 THEN
    UPDATE in_job SET state = 4 WHERE place = ANY(special);
  END IF;
  PERFORM in_lend(given, who, base);
  n := array_length(given, 1);
  IF whole AND array_length(special, 1) IS NULL AND given[n] - given[1] + 1 = n THEN  -- a stretch of one queue
    RETURN QUERY SELECT j.place, base + (j.place - given[1]) / 128, j.id, j.sender, j.arrived, j.flags, j.attempts,
      j.rank, j.envelope FROM in_job j WHERE j.place >= given[1] AND j.place <= given[n] ORDER BY j.place;
    RETURN;
  END IF;
  RETURN QUERY SELECT j.place, base + (v.o - 1) / 128, j.id, j.sender, j.arrived, j.flags, j.attempts, j.rank,
      j.envelope FROM unnest(given) WITH ORDINALITY v(place, o) JOIN in_job j ON j.place = v.place ORDER BY v.o;
END $$;

CREATE FUNCTION in_claim_one(
  wanted bigint, who integer, base bigint, at double precision, remember double precision, node text, again boolean)
RETURNS TABLE(place bigint, lease bigint, id bytea, sender integer, arrived double precision, flags smallint,
              attempts integer, rank bigint, envelope bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE j in_job; q in_queue; was smallint;
BEGIN
  IF again AND EXISTS (SELECT 1 FROM in_lease l WHERE l.token >= base AND l.token <= base + 1000) THEN
    RETURN QUERY SELECT j.place, l.token, j.id, j.sender, j.arrived, j.flags, j.attempts, j.rank, j.envelope
      FROM in_lease l CROSS JOIN LATERAL unnest(l.places) WITH ORDINALITY v(place, o) JOIN in_job j ON j.place = v.place
      WHERE l.token >= base AND l.token <= base + 1000 ORDER BY l.token, v.o;
    RETURN;
  END IF;
  IF NOT in_alive(who) THEN
    RETURN QUERY SELECT -1::bigint, NULL::bigint, NULL::bytea, NULL::integer, NULL::double precision, NULL::smallint,
      NULL::integer, NULL::bigint, NULL::bytea;
    RETURN;
  END IF;
  SELECT m.* INTO j FROM in_queue t JOIN in_job m ON m.place = (t.queue::bigint << 44) + wanted LIMIT 1;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT * INTO q FROM in_queue t WHERE t.queue = j.place >> 44 FOR UPDATE;
  SELECT * INTO j FROM in_job m WHERE m.place = j.place FOR UPDATE;
  IF NOT FOUND OR j.state NOT IN (0, 1, 2, 5) OR (j.state = 0 AND j.place <= q.frontier)
     OR (j.state <> 5 AND j.expires <= at) THEN
    RETURN;
  END IF;
  was := j.state;
  IF was = 5 THEN
    IF j.key IS NOT NULL THEN
      PERFORM pg_advisory_xact_lock('in_job'::regclass::oid::integer, 2);
      INSERT INTO in_holder VALUES (q.channel, j.key, j.place) ON CONFLICT DO NOTHING;
      IF NOT FOUND THEN
        RETURN;
      END IF;
    END IF;
    j.attempts := 0;
  END IF;
  UPDATE in_job SET state = 4, due = NULL, ended = NULL, attempts = j.attempts WHERE place = j.place;
  PERFORM in_count(q.queue, was, -1);
  PERFORM in_count(q.queue, 1::smallint, 1);
  PERFORM in_lend(ARRAY[j.place], who, base);
  RETURN QUERY SELECT j.place, base, j.id, j.sender, j.arrived, j.flags, j.attempts, j.rank, j.envelope;
END $$;
"""
