"""Waits until every order was processed, and compares the two databases."""

import contextlib
import sqlite3
import time

import dropr_core as dropr


def ask(file, question):
    """The rows of a question to one of the two."""
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
        return connection.execute(question).fetchall()


orders = ask("shop.db", "SELECT message FROM orders")
with dropr.open("shop.yaml") as node:
    for (message,) in orders:
        while (sent := node.find(message)) is None:  # still in the table of the shop
            time.sleep(0.05)
        sent.wait(timeout=120)
(pieces,) = ask("stock.db", "SELECT pieces FROM stock")[0]
print(f"{len(orders)} orders, {1000 - pieces} pieces taken")
