"""How messages end, and how operators move them, as SQL.

Owns `in_expire`, `in_bury`, `in_free_key`, `in_move` and `in_sweep`. Must not know Python.
"""

ENDS = """
CREATE FUNCTION in_tell(
  who integer, at double precision, message bytea, word text, why text, answer bytea, kind text) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE n bigint;
BEGIN
  UPDATE in_sender SET last = last + 1 WHERE sender = who RETURNING last INTO n;
  INSERT INTO in_outcome VALUES (who, n, at, message, word, why, answer, kind);
END $$;

CREATE FUNCTION in_free_key(p bigint, k bytea, at double precision) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE c text; following bigint; late double precision; q integer;
BEGIN
  PERFORM pg_advisory_xact_lock('in_job'::regclass::oid::integer, 2);
  SELECT channel INTO c FROM in_queue WHERE queue = p >> 44;
  PERFORM 1 FROM in_holder WHERE channel = c AND key = k AND place = p;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT j.place, j.due INTO following, late FROM in_job j WHERE j.key = k AND j.state = 3
    AND EXISTS (SELECT 1 FROM in_queue t WHERE t.queue = j.place >> 44 AND t.channel = c)
    ORDER BY j.place & 17592186044415 LIMIT 1;
  IF following IS NULL THEN
    DELETE FROM in_holder WHERE channel = c AND key = k;
    RETURN;
  END IF;
  UPDATE in_holder SET place = following WHERE channel = c AND key = k;
  UPDATE in_job SET state = CASE WHEN late > at THEN 2 ELSE 1 END, due = CASE WHEN late > at THEN late END
    WHERE place = following;
  INSERT INTO in_tally(queue, blocked, delayed, ready) VALUES (following >> 44, -1, coalesce(late > at, false)::integer,
    (NOT coalesce(late > at, false))::integer);
END $$;

CREATE FUNCTION in_expire(p bigint, at double precision, remember double precision, node text) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE j in_job;
BEGIN
  SELECT * INTO j FROM in_job WHERE place = p FOR UPDATE;
  UPDATE in_job SET state = 7, ended = at, due = at + remember, flags = flags | 4, envelope = '' WHERE place = p;
  INSERT INTO in_tally(queue, ready, delayed, blocked, expired, bytes) VALUES (p >> 44, -(j.state <= 1)::integer,
    -(j.state = 2)::integer, -(j.state = 3)::integer, 1, -j.size);
  IF j.flags & 1 = 1 THEN
    PERFORM in_tell(j.sender, at, j.id, 'expired', format('expired while %s at %s',
      CASE j.state WHEN 2 THEN 'delayed' WHEN 3 THEN 'blocked' ELSE 'ready' END, node), NULL, '');
  END IF;
  IF j.key IS NOT NULL AND j.state <> 3 THEN
    PERFORM in_free_key(p, j.key, at);
  END IF;
END $$;

CREATE FUNCTION in_bury(
  p bigint, more integer, line text, why text, at double precision, remember double precision) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE j in_job;
BEGIN
  UPDATE in_job SET state = 5, ended = at, due = at + remember, attempts = attempts + more,
    reason = in_line(reason, line) WHERE place = p RETURNING * INTO j;
  PERFORM in_count((p >> 44)::integer, 5::smallint, 1);
  IF j.flags & 1 = 1 THEN
    PERFORM in_tell(j.sender, at, j.id, 'failed', why, NULL, '');
  END IF;
  IF j.key IS NOT NULL THEN
    PERFORM in_free_key(p, j.key, at);
  END IF;
END $$;

CREATE FUNCTION in_forget(p bigint) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE j in_job;
BEGIN
  DELETE FROM in_job WHERE place = p RETURNING * INTO j;
  IF FOUND THEN
    PERFORM in_count((p >> 44)::integer, j.state, -1);
    IF j.flags & 4 = 0 THEN
      INSERT INTO in_tally(queue, bytes) VALUES (p >> 44, -j.size);
    END IF;
  END IF;
END $$;

CREATE FUNCTION in_move(
  m_id bytea[], m_number bigint[], m_state smallint[], m_token bigint[], m_to smallint[], m_line text[], m_why text[],
  m_attempts integer[], channels text[], at double precision, remember double precision, node text) RETURNS boolean[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE done boolean[]; i integer; j in_job; q in_queue; st smallint; other bigint;
BEGIN
  PERFORM 1 FROM in_lease WHERE token = ANY(m_token) ORDER BY token FOR UPDATE;
  PERFORM 1 FROM in_queue WHERE channel = ANY(channels) ORDER BY priority, queue FOR UPDATE;
  FOR i IN 1..array_length(m_id, 1) LOOP
    done[i] := false;
    SELECT * INTO j FROM in_job WHERE id = m_id[i] AND place & 17592186044415 = m_number[i] FOR UPDATE;
    CONTINUE WHEN NOT FOUND;
    SELECT * INTO q FROM in_queue WHERE queue = j.place >> 44;
    st := CASE WHEN j.state = 0 AND j.place <= q.frontier THEN 4 WHEN j.state = 0 THEN 1 ELSE j.state END;
    CONTINUE WHEN st <> m_state[i];
    IF st = 4 THEN
      CONTINUE WHEN NOT coalesce((in_unlend(ARRAY[m_token[i]], ARRAY[1], ARRAY[j.place]))[1], false);
    END IF;
    done[i] := true;
    IF m_to[i] IS NULL THEN
      PERFORM in_forget(j.place);
    ELSIF m_to[i] = 7 THEN
      PERFORM in_expire(j.place, at, remember, node);
    ELSE
      PERFORM in_count(q.queue, st, -1);
      UPDATE in_job SET attempts = coalesce(m_attempts[i], attempts + (st = 4)::integer) WHERE place = j.place;
      IF m_to[i] = 5 THEN
        IF st = 3 THEN  -- it holds no key
          UPDATE in_job SET state = 5 WHERE place = j.place;
        END IF;
        PERFORM in_bury(j.place, 0, m_line[i], m_why[i], at, remember);
      ELSE
        other := NULL;
        IF j.key IS NOT NULL AND st IN (3, 5) THEN
          PERFORM pg_advisory_xact_lock('in_job'::regclass::oid::integer, 2);
          INSERT INTO in_holder VALUES (q.channel, j.key, j.place) ON CONFLICT DO NOTHING;
          SELECT place INTO other FROM in_holder WHERE channel = q.channel AND key = j.key AND place <> j.place;
        END IF;
        UPDATE in_job SET state = CASE WHEN other IS NULL THEN 1 ELSE 3 END, due = NULL, ended = NULL,
          reason = in_line(reason, m_line[i]) WHERE place = j.place;
        PERFORM in_count(q.queue, (CASE WHEN other IS NULL THEN 1 ELSE 3 END)::smallint, 1);
      END IF;
    END IF;
  END LOOP;
  RETURN done;
END $$;

CREATE FUNCTION in_next(remember double precision) RETURNS double precision STABLE
LANGUAGE plpgsql AS $$
DECLARE first double precision; oldest double precision; s record;
BEGIN
  SELECT least((SELECT min(expires) FROM in_job WHERE expires IS NOT NULL AND state < 4),
               (SELECT min(due) FROM in_job WHERE state >= 5)) INTO first;
  FOR s IN SELECT sender FROM in_sender LOOP
    SELECT at INTO oldest FROM in_outcome o WHERE o.sender = s.sender ORDER BY o.number LIMIT 1;
    first := least(first, oldest + remember);
    oldest := NULL;
  END LOOP;
  RETURN first;
END $$;

CREATE FUNCTION in_sweep(at double precision, remember double precision, node text, most integer, kept integer)
RETURNS double precision
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE p bigint; j in_job; s record; places bigint[];
BEGIN
  SELECT array_agg(place ORDER BY place) INTO places FROM (
    SELECT place FROM in_job WHERE expires IS NOT NULL AND state < 4 AND expires <= at ORDER BY expires LIMIT most) e;
  IF places IS NOT NULL THEN
    PERFORM 1 FROM in_queue WHERE queue IN (SELECT DISTINCT v >> 44 FROM unnest(places) v)
      ORDER BY priority, queue FOR UPDATE;
    FOREACH p IN ARRAY places LOOP
      PERFORM 1 FROM in_job WHERE place = p AND state < 4 AND expires <= at FOR UPDATE;
      IF FOUND THEN
        PERFORM in_expire(p, at, remember, node);
      END IF;
    END LOOP;
    SELECT array_agg(place) INTO places FROM (
      SELECT place FROM in_job WHERE state = 7 ORDER BY place DESC OFFSET kept LIMIT most) e;
    IF places IS NOT NULL THEN
      FOREACH p IN ARRAY places LOOP
        PERFORM in_forget(p);
      END LOOP;
    END IF;
  END IF;
  FOR p IN SELECT place FROM in_job WHERE state >= 5 AND due <= at ORDER BY due LIMIT most FOR UPDATE SKIP LOCKED LOOP
    PERFORM in_forget(p);
  END LOOP;
  FOR s IN SELECT sender FROM in_sender LOOP
    DELETE FROM in_outcome WHERE sender = s.sender AND number IN (
      SELECT o.number FROM (SELECT number, at FROM in_outcome WHERE sender = s.sender ORDER BY number LIMIT most) o
      WHERE o.at <= in_sweep.at - remember);
  END LOOP;
  RETURN in_next(remember);
END $$;
"""
