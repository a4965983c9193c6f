"""The tables of large bodies. Owns the steps of their schema; what they mean stands in docs/formats/postgres.md."""

_CARE = (
    "autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold={rows}, autovacuum_vacuum_cost_delay=0, "
    "autovacuum_analyze_threshold=1000000, autovacuum_vacuum_insert_threshold=-1"
)

PAGES = (
    "CREATE TABLE {name}(body bigint NOT NULL, at integer NOT NULL, data bytea NOT NULL, "
    f"PRIMARY KEY(body, at)) WITH ({_CARE.format(rows=2000)}); "
    "ALTER TABLE {name} ALTER data SET STORAGE PLAIN"  # a word of CREATE TABLE since PostgreSQL 16 only
)
"""A table of pages: one for all bodies up to 16 MiB, and one for each larger body, which is dropped with it."""

BODIES = (
    f"""
CREATE TABLE body(n bigint PRIMARY KEY, kind smallint NOT NULL, state smallint NOT NULL, own boolean NOT NULL,
  peer text COLLATE "C" NOT NULL, id bytea NOT NULL, digest bytea NOT NULL, size bigint NOT NULL,
  have bigint NOT NULL DEFAULT 0, touched double precision NOT NULL) WITH (fillfactor=50, {_CARE.format(rows=200)});
CREATE INDEX body_id ON body(id);
CREATE UNIQUE INDEX body_arriving ON body(peer, id, digest, size) WHERE kind = 1;
CREATE TABLE body_part(body bigint NOT NULL, at bigint NOT NULL, size integer NOT NULL, leaves bytea NOT NULL,
  PRIMARY KEY(body, at)) WITH ({_CARE.format(rows=2000)});
{PAGES.replace("{name}", "body_page")};
""",
)
