"""The copy of a store that is made before a migration, in a schema beside it.

Owns what is copied and how an operator goes back to it. Must not know what the tables mean, nor what a migration does.

The copy is a whole store of the old format, functions and figures of sequences included: to go back is to rename two
schemas, which the copy's function `put_back` does. Large bodies are not copied unless their own tables are to change:
they are put back as they are by then.
"""

import re

from psycopg.errors import InsufficientPrivilege, error_from_result
from psycopg.pq import ExecStatus

from dropr_core.errors import StoreError
from dropr_core.storage_kit.migrating import RUNBOOK
from dropr_storage_postgres.engine.types import Connection

SUFFIX = "_before"
MARK = "dropr: a store as it was before a migration"
THERE = (
    "SELECT obj_description(n.oid, 'pg_namespace'), EXISTS (SELECT 1 FROM pg_class c WHERE c.relnamespace = n.oid) "
    "FROM pg_namespace n WHERE n.nspname = %s"
)
COPY = """
DO $do$
DECLARE r record; made text[];
BEGIN
  FOR r IN SELECT c.relname, string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', '
      ORDER BY a.attnum) AS columns FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
      WHERE c.relnamespace = '@s'::regnamespace AND c.relkind = 'c' GROUP BY c.relname
  LOOP
    EXECUTE format('CREATE TYPE @c.%I AS (%s)', r.relname, r.columns);
  END LOOP;
  FOR r IN SELECT s.* FROM pg_sequences s WHERE s.schemaname = '@s' AND NOT EXISTS (SELECT 1 FROM pg_depend d
      WHERE d.objid = format('@s.%I', s.sequencename)::regclass AND d.deptype = 'i')
  LOOP
    EXECUTE format('CREATE SEQUENCE @c.%I AS %s MINVALUE %s MAXVALUE %s START %s %s', r.sequencename, r.data_type,
      r.min_value, r.max_value, r.start_value, CASE WHEN r.cycle THEN 'CYCLE' ELSE '' END);
    EXECUTE format('SELECT setval(''@c.%I'', last_value, is_called) FROM @s.%I', r.sequencename, r.sequencename);
  END LOOP;
  FOR r IN SELECT c.relname, c.relpersistence, c.reloptions FROM pg_class c
      WHERE c.relnamespace = '@s'::regnamespace AND c.relkind = 'r' AND (@bodies OR c.relname !~ '^body')
  LOOP
    EXECUTE format('CREATE %s TABLE @c.%I(LIKE @s.%I INCLUDING ALL) %s',
      CASE r.relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE '' END, r.relname, r.relname,
      'WITH (' || array_to_string(r.reloptions, ', ') || ')');
    IF r.relpersistence = 'p' THEN
      EXECUTE format('INSERT INTO @c.%I OVERRIDING SYSTEM VALUE SELECT * FROM @s.%I', r.relname, r.relname);
    END IF;
  END LOOP;
  FOR r IN SELECT c.relname, a.attname, pg_get_serial_sequence(format('@s.%I', c.relname), a.attname) AS sequence
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> ''
      WHERE c.relnamespace = '@s'::regnamespace AND to_regclass(format('@c.%I', c.relname)) IS NOT NULL
  LOOP
    EXECUTE format('SELECT setval(pg_get_serial_sequence(%L, %L), last_value, is_called) FROM %s',
      format('@c.%I', r.relname), r.attname, r.sequence);
  END LOOP;
  made := ARRAY(SELECT replace(pg_get_functiondef(p.oid), 'FUNCTION @s.', 'FUNCTION @c.') FROM pg_proc p
    WHERE p.pronamespace = '@s'::regnamespace AND p.proname <> 'put_back');
  PERFORM set_config('search_path', '@c', true), set_config('check_function_bodies', 'off', true);
  FOR i IN 1..coalesce(array_length(made, 1), 0) LOOP
    EXECUTE made[i];
  END LOOP;
  PERFORM set_config('search_path', '@s', true);
END $do$;
CREATE FUNCTION @c.put_back() RETURNS text LANGUAGE plpgsql AS $do$
DECLARE r record;
BEGIN
  ALTER SCHEMA @s RENAME TO @aside;
  ALTER SCHEMA @c RENAME TO @s;
  FOR r IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = '@aside'::regnamespace AND c.relkind = 'r'
      AND c.relname ~ '^body' AND to_regclass(format('@s.%I', c.relname)) IS NULL
  LOOP
    EXECUTE format('ALTER TABLE @aside.%I SET SCHEMA @s', r.relname);
  END LOOP;
  RETURN '@s is the store of before; the newer one is @aside';
END $do$;
COMMENT ON SCHEMA @c IS '@mark';
"""


def name_of_copy(schema: str) -> str:
    """The schema that has the copy of another one."""
    return schema[: 63 - len(SUFFIX)] + SUFFIX


def copy_store(connection: Connection, schema: str, where: str, *, bodies: bool) -> str:
    """Copy a store in the transaction that is going to change it; the name of the copy. The one of an earlier migration
    goes. ``bodies``: with large bodies. Raises StoreError: there may be no such schema; psycopg errors.
    """
    copy = name_of_copy(schema)
    try:
        found = connection.execute(THERE, (copy,)).fetchone()
        if found is not None and found[0] != MARK and found[1]:
            raise StoreError(
                f"{where} has to be migrated, and the schema {copy}, where the copy of before belongs, has tables of "
                "somebody else's: rename it, then start again; nothing was changed"
            )
        if found is not None and found[0] == MARK:
            _script(connection, f"DROP SCHEMA {copy} CASCADE")
            found = None
        if found is None:
            _script(connection, f"CREATE SCHEMA {copy}")
    except InsufficientPrivilege as error:
        raise StoreError(
            f"{where} has to be migrated, and its user may not make the schema {copy} for the copy of before "
            f"({error}): CREATE SCHEMA {copy} AUTHORIZATION the user (an older one of that name may be dropped), or "
            f"GRANT CREATE ON DATABASE, then start again ({RUNBOOK}); nothing was changed"
        ) from error
    script, values = COPY, {"s": schema, "c": copy, "aside": schema[:53] + "_migrated", "mark": MARK}
    for name, value in {**values, "bodies": str(bodies).lower()}.items():
        script = re.sub(f"@{name}\\b", value, script)
    _script(connection, script)
    return copy


def _script(connection: Connection, script: str) -> None:
    result = connection.pgconn.exec_(script.encode())
    if result.status not in {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}:
        raise error_from_result(result)
