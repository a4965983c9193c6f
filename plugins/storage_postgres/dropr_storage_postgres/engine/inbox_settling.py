"""How consumers settle messages, as SQL.

Owns `in_unlend`, `in_ack`, `in_ack_stretch` and `in_settle`. Locks are taken in this order, by everybody: leases, then
queues by priority and number, then the lock of keys. Must not know Python.
"""

SETTLE = """
CREATE FUNCTION in_unlend(tokens bigint[], counts integer[], places bigint[]) RETURNS boolean[]
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE held bigint[]; want bigint[]; rest bigint[]; done boolean[]; lo integer := 1; i integer;
BEGIN
  FOR i IN 1..array_length(tokens, 1) LOOP
    want := places[lo:lo + counts[i] - 1];
    DELETE FROM in_lease l WHERE l.token = tokens[i] AND l.places = want;
    IF FOUND THEN
      done := done || array_fill(true, ARRAY[counts[i]]);
      lo := lo + counts[i];
      CONTINUE;
    END IF;
    SELECT l.places INTO held FROM in_lease l WHERE l.token = tokens[i] FOR UPDATE;
    IF NOT FOUND THEN
      done := done || array_fill(false, ARRAY[counts[i]]);
    ELSE
      SELECT array_agg(h ORDER BY o) INTO rest FROM unnest(held) WITH ORDINALITY v(h, o) WHERE h <> ALL(want);
      IF rest IS NULL THEN
        DELETE FROM in_lease l WHERE l.token = tokens[i];
      ELSIF array_length(rest, 1) < array_length(held, 1) THEN
        UPDATE in_lease l SET places = rest WHERE l.token = tokens[i];
      END IF;
      done := done || (SELECT array_agg(w = ANY(held) ORDER BY o) FROM unnest(want) WITH ORDINALITY v(w, o));
    END IF;
    lo := lo + counts[i];
  END LOOP;
  RETURN done;
END $$;

CREATE TYPE in_ended AS (place bigint, flags smallint, sender integer, id bytea, key bytea);

CREATE FUNCTION in_follow(ended in_ended[], turns bigint[], at double precision) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE e in_ended; r record; last bigint;
BEGIN  -- what follows from acknowledgements: keys are passed on, and who wants a receipt is told
  FOREACH e IN ARRAY ended LOOP
    IF e.key IS NOT NULL THEN
      PERFORM in_free_key(e.place, e.key, at);
    END IF;
  END LOOP;
  FOR r IN SELECT sender s, count(*) n FROM unnest(ended) WHERE flags & 1 = 1 GROUP BY 1 ORDER BY 1 LOOP
    UPDATE in_sender SET last = last + r.n WHERE sender = r.s RETURNING last INTO last;
    INSERT INTO in_outcome SELECT r.s, last - r.n + row_number() OVER (ORDER BY
        CASE WHEN turns IS NULL THEN v.place ELSE array_position(turns, v.place) END), at, v.id,
        'processed', '', NULL, '' FROM unnest(ended) v WHERE v.flags & 1 = 1 AND v.sender = r.s;
  END LOOP;
END $$;

CREATE FUNCTION in_ack(tokens bigint[], counts integer[], places bigint[], at double precision, mark bigint)
RETURNS boolean[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE done boolean[] := in_unlend(tokens, counts, places); gone bigint[] := places; ended in_ended[];
BEGIN
  IF false = ANY(done) THEN
    SELECT array_agg(p) INTO gone FROM unnest(places, done) v(p, d) WHERE d;
    IF gone IS NULL THEN
      RETURN done;
    END IF;
  END IF;
  WITH gone AS (DELETE FROM in_job WHERE place = ANY(gone) RETURNING place, flags, sender, size, id, key),
  counted AS (INSERT INTO in_tally(queue, leased, processed, bytes, mark)
    SELECT place >> 44, -count(*), count(*), -sum(size), in_ack.mark FROM gone GROUP BY 1)
  SELECT array_agg(ROW(place, flags, sender, id, key)::in_ended) FILTER (WHERE flags & 1 = 1 OR key IS NOT NULL)
    INTO ended FROM gone;
  IF ended IS NOT NULL THEN
    PERFORM in_follow(ended, gone, at);
  END IF;
  RETURN done;
END $$;

CREATE FUNCTION in_ack_stretch(
  tokens bigint[], counts bigint[], low bigint, total bigint, at double precision, mark bigint) RETURNS boolean[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE done boolean[]; n integer := array_length(tokens, 1); found integer; ended in_ended[];
BEGIN  -- places in a row, as one claim gave them; NULL: every one was settled
  IF n > 1 THEN
    PERFORM 1 FROM in_lease l JOIN (
        SELECT t, c, (sum(c) OVER (ORDER BY o))::bigint - c AS skip
        FROM unnest(tokens, counts) WITH ORDINALITY u(t, c, o)) v
      ON l.token = v.t WHERE l.places = ARRAY(SELECT generate_series(low + v.skip, low + v.skip + v.c - 1))
      FOR UPDATE OF l;
  ELSE
    DELETE FROM in_lease l
      WHERE l.token = tokens[1] AND l.places = ARRAY(SELECT generate_series(low, low + total - 1));
  END IF;
  GET DIAGNOSTICS found = ROW_COUNT;
  IF found < n THEN
    done := in_ack(tokens, counts::integer[], ARRAY(SELECT generate_series(low, low + total - 1)), at, mark);
    RETURN CASE WHEN false = ANY(done) THEN done END;
  END IF;
  IF n > 1 THEN
    DELETE FROM in_lease WHERE token = ANY(tokens);
  END IF;
  WITH gone AS (DELETE FROM in_job WHERE place >= low AND place < low + total
    RETURNING place, flags, sender, size, id, key),
  counted AS (INSERT INTO in_tally(queue, leased, processed, bytes, mark)
    SELECT low >> 44, -count(*), count(*), -sum(size), in_ack_stretch.mark FROM gone HAVING count(*) > 0)
  SELECT array_agg(ROW(place, flags, sender, id, key)::in_ended) FILTER (WHERE flags & 1 = 1 OR key IS NOT NULL)
    INTO ended FROM gone;
  IF ended IS NOT NULL THEN
    PERFORM in_follow(ended, NULL, at);
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION in_rerank(p bigint, r bigint, level smallint) RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE old in_queue; j in_job; q integer; np bigint := p;
BEGIN
  SELECT * INTO old FROM in_queue WHERE queue = p >> 44;
  SELECT * INTO j FROM in_job WHERE place = p;
  IF old.priority <> level THEN
    q := in_queue_of(old.channel, level);
    np := (q::bigint << 44) + (p & 17592186044415);
    INSERT INTO in_tally(queue, leased, bytes) VALUES (old.queue, -1, -j.size), (q, 1, j.size);
    IF j.key IS NOT NULL THEN
      PERFORM pg_advisory_xact_lock('in_job'::regclass::oid::integer, 2);
      UPDATE in_holder SET place = np WHERE channel = old.channel AND key = j.key AND place = p;
    END IF;
  END IF;
  UPDATE in_job SET place = np, rank = r, state = 4 WHERE place = p;
  RETURN np;
END $$;

CREATE FUNCTION in_settle(
  tokens bigint[], counts integer[], places bigint[], turn integer[], kinds smallint[], results bytea[], types text[],
  reasons text[], times double precision[], counted boolean[], ranks bigint[], levels smallint[],
  at double precision, remember double precision, mark bigint) RETURNS boolean[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  done boolean[] := in_unlend(tokens, counts, places); i integer; p bigint; j in_job; order_ integer[];
BEGIN
  INSERT INTO in_tally(queue, mark) VALUES (places[1] >> 44, in_settle.mark);
  SELECT array_agg(o ORDER BY t) INTO order_ FROM unnest(turn) WITH ORDINALITY v(t, o);
  FOREACH i IN ARRAY order_ LOOP
    CONTINUE WHEN NOT done[i];
    p := places[i];
    IF levels[i] IS NOT NULL THEN
      p := in_rerank(p, ranks[i], levels[i]);
    END IF;
    IF kinds[i] = 0 THEN
      IF times[i] > 0 THEN
        UPDATE in_job SET state = 6, ended = at, due = at + times[i], attempts = attempts + 1 WHERE place = p
          RETURNING * INTO j;
        INSERT INTO in_tally(queue, leased, processed, done) VALUES (p >> 44, -1, 1, 1);
      ELSE
        DELETE FROM in_job WHERE place = p RETURNING * INTO j;
        INSERT INTO in_tally(queue, leased, processed, bytes) VALUES (p >> 44, -1, 1, -j.size);
      END IF;
      IF j.flags & 1 = 1 THEN
        PERFORM in_tell(j.sender, at, j.id, 'processed', reasons[i], results[i], types[i]);
      END IF;
      IF j.key IS NOT NULL THEN
        PERFORM in_free_key(p, j.key, at);
      END IF;
    ELSIF kinds[i] = 1 THEN
      UPDATE in_job SET state = CASE WHEN times[i] > at THEN 2 ELSE 1 END,
        due = CASE WHEN times[i] > at THEN times[i] END, attempts = attempts + counted[i]::integer,
        reason = in_line(reason, reasons[i]) WHERE place = p;
      INSERT INTO in_tally(queue, leased, ready, delayed) VALUES (p >> 44, -1, (times[i] <= at)::integer,
        (times[i] > at)::integer);
    ELSE
      PERFORM in_count((p >> 44)::integer, 4::smallint, -1);
      PERFORM in_bury(p, 1, reasons[i], types[i], at, remember);
    END IF;
  END LOOP;
  RETURN done;
END $$;
"""
