"""The table of what machines have in common besides messages and bodies.

Owns its CREATE statement (docs/formats/postgres.md). Must not know what the documents say.
"""

SHARED: tuple[str, ...] = (
    """
CREATE SEQUENCE document_version;
CREATE TABLE document(name text COLLATE "C" PRIMARY KEY, version bigint NOT NULL, data bytea NOT NULL);
""",
)

__all__ = ["SHARED"]
