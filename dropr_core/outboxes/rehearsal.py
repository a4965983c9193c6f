"""What is wrong with the outboxes of a configuration, found without opening a connection.

Owns that look, for `dropr check`. Whether the tables are there says `dropr outbox list`.
"""

from collections.abc import Iterator
from importlib.util import find_spec

from dropr_core.config.node import NodeConfig
from dropr_core.config.outboxes import read_database


def rehearse_outboxes(config: NodeConfig) -> Iterator[str]:
    """Problems, each with its place in the file."""
    for name, outbox in config.outboxes.items():
        database = read_database(outbox.url, config.where.directory)
        if database.kind == "postgresql" and find_spec("psycopg") is None:
            yield f"outboxes.{name}: psycopg is not installed; pip install 'dropr-core[postgresql]' brings it"


__all__ = ["rehearse_outboxes"]
