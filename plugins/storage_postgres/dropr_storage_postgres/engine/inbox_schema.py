"""The inbox's part of the schema: what each version added.

Owns the steps of `schema.INBOX`; the SQL itself stands in the modules beside. Must not know Python code of the inbox.
"""

from dropr_storage_postgres.engine.inbox_arriving import ACCEPT, PLAIN
from dropr_storage_postgres.engine.inbox_claiming import CLAIM
from dropr_storage_postgres.engine.inbox_ending import ENDS
from dropr_storage_postgres.engine.inbox_settling import SETTLE
from dropr_storage_postgres.engine.inbox_tables import COUNTING, TABLES

INBOX: tuple[str, ...] = (TABLES + COUNTING + ACCEPT + PLAIN + ENDS + CLAIM + SETTLE,)
"""One script for each version, from nothing to the present one; only ever added to."""
