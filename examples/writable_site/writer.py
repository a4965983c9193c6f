"""Puts what the guest book's site has queued into its database; the handler of the channel `guestbook`.

As long as the database is away each entry waits and is tried again. An entry has an id, so that it stands in the
database once, even if the power fails between writing it and saying so.
"""

import json
import os
import sqlite3

import dropr_core as dropr

DATABASE = os.environ.get("SITE_DATABASE", "site.db")


def write(work: dropr.Work) -> None:
    """One entry. Raises Retry while the database is down, Reject for what is no entry."""
    try:
        entry = json.loads(work.body)
        row = (entry["id"], entry["name"], entry["text"], work.message.created_at)
    except (ValueError, KeyError, TypeError) as error:
        raise dropr.Reject(f"no entry of a guest book: {error!r}") from error
    try:
        # `rw`: a database that is away is not made anew, empty.
        with sqlite3.connect(f"file:{DATABASE}?mode=rw", uri=True, timeout=5) as database:
            database.execute("INSERT OR IGNORE INTO guestbook VALUES (?, ?, ?, ?)", row)
    except sqlite3.OperationalError as error:
        raise dropr.Retry(f"the database is down: {error}", after="1s") from error


def create() -> None:
    """Make the table, once."""
    with sqlite3.connect(DATABASE) as database:
        database.execute("CREATE TABLE IF NOT EXISTS guestbook (id TEXT PRIMARY KEY, name, text, at REAL)")


if __name__ == "__main__":
    create()
